"""Application events: what a database can't see (``cdc_audit.log_event``).

Content as for contexts (``join.context``), with ``action``, ``table`` (``name`` or ``schema.name``), ``record_id`` and ``data``.
An object under the key ``context`` in ``data`` is the event's own context: so an event outside of a transaction can say who acts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from cdc_audit.join import context as read_context
from cdc_audit.model.context import Context, ContextKey, Trust
from cdc_audit.model.event import ApplicationEvent
from cdc_audit.model.jsonb import NotJsonbError, canonical

# An application can't make its events look like what the database itself reports.
_RESERVED = frozenset(
    {"INSERT", "UPDATE", "DELETE", "TRUNCATE", "DDL", "CONTEXT", "SNAPSHOT", "SELECT", "READ_GAP"}
)
# Of two messages that make one row, the one that can be believed less decides.
WEAKNESS = {Trust.NONE: 0, Trust.SIGNED: 1, Trust.ASSERTED: 2, Trust.INVALID: 3, Trust.FORGED: 4}
_ACTION = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


class ReadEvent(NamedTuple):
    """An event, its own context (None: it takes its transaction's), and how far the event itself can be believed."""

    event: ApplicationEvent
    context: Context | None
    trust: Trust
    db_user: str = ""
    application_name: str = ""
    at: str = ""


def read_event(content: str, *, xid: int | None, keys: Mapping[str, ContextKey], lsn: int = 0) -> ReadEvent:
    """The event in a message. One that can't be read becomes an event ``EVENT`` whose invalid context keeps its text."""
    said = read_context.read(content, kind="event", xid=xid, keys=keys, lsn=lsn)
    action, data = said.fields.get("action"), said.fields.get("data")
    if (
        said.trust is Trust.INVALID
        or not isinstance(action, str)
        or not _ACTION.fullmatch(action)
        or action in _RESERVED
    ):
        invalid = read_context.to_context(read_context.Said(Trust.INVALID, {}, content))
        return ReadEvent(ApplicationEvent("EVENT", "", "", b""), invalid, Trust.INVALID)
    own = (
        data.pop("context", None)
        if isinstance(data, dict) and isinstance(data.get("context"), dict)
        else None
    )
    context = read_context.to_context(said._replace(fields=own)) if own is not None else None
    if own is not None and not data:
        data = None
    try:
        text = b"" if data is None else canonical(orjson.dumps(data))
    except NotJsonbError:
        text = b""
    event = ApplicationEvent(
        action, _scalar(said.fields.get("table")), _scalar(said.fields.get("record_id")), text
    )
    return ReadEvent(event, context, said.trust, said.db_user, said.application_name, _in_utc(said.at))


def _scalar(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value).replace("\0", "\ufffd")


def _in_utc(at: str) -> str:
    """An ISO time with offset as PostgreSQL prints it in UTC, or ""."""
    try:
        moment = datetime.fromisoformat(at).astimezone(UTC)
    except ValueError:
        return ""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + "+00"
