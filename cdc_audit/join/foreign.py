"""Contexts of other packages' messages, for those who come from them (``[context] accept``). Any role can send them: asserted.

- bemi: its row triggers send ``_bemi`` with ``{"context": {...}, "SQL": "..."}`` before each row. The statement's text has values
  in it and is dropped.
- sequin: ``sequin:transaction_annotations.set`` with a JSON object counts for the changes after it, until the next one or until
  ``sequin:transaction_annotations.clear``. Changes before it have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cdc_audit.join import context as read_context
from cdc_audit.model.context import NO_CONTEXT, Context, Trust

_BEMI = "_bemi"
_SEQUIN_SET = "sequin:transaction_annotations.set"
_SEQUIN_CLEAR = "sequin:transaction_annotations.clear"
_MESSAGES = {"bemi": (_BEMI,), "sequin": (_SEQUIN_SET, _SEQUIN_CLEAR)}
# What the ORMs of their users spell in their own way.
_OURS = {
    "userId": "user_id",
    "userID": "user_id",
    "userEmail": "user_email",
    "ipAddress": "ip_address",
    "userAgent": "user_agent",
}


def prefixes(accepted: Iterable[str]) -> tuple[str, ...]:
    """The names of the messages of these packages."""
    return tuple(name for package in accepted for name in _MESSAGES[package])


def counts_from_its_place(prefix: str) -> bool:
    """Whether changes before the first such message have no context, instead of this one."""
    return prefix != _BEMI


def read(prefix: str, content: str) -> Context:
    """The context in a message. Raises nothing."""
    if prefix == _SEQUIN_CLEAR:
        return NO_CONTEXT
    said = read_context.read(content.strip(), kind="context", xid=None, keys={})
    if prefix == _BEMI:
        inner = said.fields.get("context")
        if not isinstance(inner, dict):
            return Context(Trust.INVALID)  # its text would hold the statement
        said = said._replace(fields=inner)
    return read_context.to_context(said._replace(fields=_renamed(said.fields)))


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """Our names for the user's own columns, where ours isn't there."""
    return {
        ours if (ours := _OURS.get(name)) and ours not in fields else name: value
        for name, value in fields.items()
    }
