"""Reads, as the follower of the server's log sends them (``source.reads``): rows ``SELECT``, with the context of their transaction
where one is known.

pgAudit's word is best effort: it also tells reads that were rolled back, and a crash may lose lines. Each row says so. What the
message says of itself (user, application, address) is the log's; ``context_trust`` says how far to believe the message: signed,
if the follower's role sent it. Where lines are missing the follower says ``gap``: a row ``READ_GAP``.

A read is joined by transaction id. The follower sends it after its transaction has ended, so that the stream has shown its
context before; contexts of the last transactions are remembered for that. Of a transaction with several contexts none is taken.
After a restart of the daemon the memory is empty: the row's own ``xid`` still finds the transaction's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from cdc_audit.join import context as read_context
from cdc_audit.join.event import WEAKNESS, ReadEvent
from cdc_audit.model.context import Context, ContextKey, Trust
from cdc_audit.model.event import ApplicationEvent
from cdc_audit.model.jsonb import NotJsonbError, canonical

ACTION = "SELECT"
GAP = "READ_GAP"
_REMEMBERED = 10_000
_COLUMNS = ("schema", "table", "user", "application")  # of their own
_MARKS = {"source": "pgaudit", "guarantee": "best effort"}


class Contexts:
    """The contexts of the last transactions that had one: at least ``_REMEMBERED`` of them, at most twice as many."""

    def __init__(self) -> None:
        self._recent: dict[int, tuple[str, Context]] = {}
        self._older: dict[int, tuple[str, Context]] = {}

    def remember(self, xid: int, committed_at: str, context: Context) -> None:
        """A transaction has ended that had this context and no other."""
        if len(self._recent) >= _REMEMBERED:
            self._older, self._recent = self._recent, {}
        self._recent[xid] = committed_at, context

    def of(self, xid: int, at: str) -> Context | None:
        """The context of the transaction in which something happened at that time, as PostgreSQL prints it in UTC.

        Ids come again after 2^32 transactions: one that had ended before is another transaction.
        """
        found = self._recent.get(xid) or self._older.get(xid)
        return found[1] if found is not None and at and _moment(at) <= _moment(found[0]) else None


def read_reading(
    content: str, *, xid: int | None, keys: Mapping[str, ContextKey], contexts: Contexts
) -> ReadEvent:
    """The read, or the gap, in a message. One that is forged names no table and nobody; what it claimed is kept. Of one that
    can't be read the text is kept, as an invalid context.
    """
    said = read_context.read(content, kind="read", xid=xid, keys=keys)
    read = said.fields.get("read")
    data: dict[str, Any] = {**_MARKS}
    if said.trust is Trust.FORGED:
        text = _json({"claimed": said.fields})
        if text:
            return ReadEvent(ApplicationEvent(ACTION, "", "", text, ""), Context(Trust.FORGED), Trust.FORGED)
    elif isinstance(read, dict):
        is_gap = "gap" in read
        if not is_gap:
            data["rolled_back"] = "unknown"
        data.update((key, value) for key, value in read.items() if key not in _COLUMNS)
        text = _json(data)
        if text:
            event = ApplicationEvent(
                GAP if is_gap else ACTION, _text(read.get("table")), "", text, _text(read.get("schema"))
            )
            return ReadEvent(event, _context(read, said.trust, contexts), said.trust)
    invalid = read_context.to_context(read_context.Said(Trust.INVALID, {}, content))
    return ReadEvent(ApplicationEvent(ACTION, "", "", b"", ""), invalid, Trust.INVALID)


def _context(read: Mapping[str, Any], trust: Trust, contexts: Contexts) -> Context:
    """Who read: database user and application as logged, and who the application said it was."""
    xid = read.get("xid")
    found = contexts.of(xid, _text(read.get("at"))) if isinstance(xid, int) else None
    context = found or Context(trust)
    return context._replace(
        trust=max(context.trust, trust, key=WEAKNESS.__getitem__),
        ip_address=context.ip_address or read_context.inet(_text(read.get("address"))),
        db_user=_text(read.get("user")),
        application_name=_text(read.get("application")),
    )


def _json(data: Mapping[str, Any]) -> bytes:
    try:
        return canonical(orjson.dumps(data))
    except NotJsonbError:
        return b""


def _text(value: object) -> str:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else ""


def _moment(at: str) -> str:
    """A time as PostgreSQL prints it in UTC, so that text order is time's."""
    seconds, _, fraction = at.removesuffix("+00").partition(".")
    return f"{seconds}.{fraction:0<6}"
