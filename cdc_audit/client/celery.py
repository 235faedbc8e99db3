"""Celery: a task acts for whom it was sent, and says its own name and id.

    from cdc_audit.client.celery import install

    install()                   # once, where the Celery app is made: by who sends tasks, and by the workers

The sender's context travels in a header of the message, as JSON: who can write to the broker can write it.
"""

from __future__ import annotations

import json
from typing import Any

from celery import signals

from cdc_audit.client import payload
from cdc_audit.client.context import audit_context, current_context

_HEADER = "cdc_audit"
_open: dict[str, audit_context] = {}


def install() -> None:
    """Connect to Celery's signals; again does nothing."""
    signals.before_task_publish.connect(_send, dispatch_uid="cdc_audit")
    signals.task_prerun.connect(_begin, dispatch_uid="cdc_audit")
    signals.task_postrun.connect(_end, dispatch_uid="cdc_audit")


def _send(headers: dict[str, Any] | None = None, **_: Any) -> None:
    text = payload.context_text(current_context())
    if text and headers is not None:
        headers[_HEADER] = text


def _begin(task_id: str, task: Any, **_: Any) -> None:
    sent = _fields(getattr(task.request, _HEADER, None) or (task.request.headers or {}).get(_HEADER))
    context = audit_context(**{**sent, "task": task.name, "task_id": task_id})
    context.__enter__()
    _open[task_id] = context


def _end(task_id: str, **_: Any) -> None:
    context = _open.pop(task_id, None)
    if context is not None:
        context.__exit__(None, None, None)


def _fields(text: object) -> dict[str, Any]:
    """What the header says; nothing if it isn't a JSON object."""
    try:
        fields = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
