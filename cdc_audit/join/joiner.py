"""Transactions and their contexts.

A context counts from its place to the end of the transaction or to the next context; changes before the first one take the
first. Changes without any take what a trigger has said of their session, if it has. Neither crosses transactions. For this a
transaction is held back, up to ``hold_rows`` changes or ``hold_bytes`` of messages; a larger one flows on in parts, and a first
context that comes only then counts from its place and is recorded as an event of its own (action ``CONTEXT``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cdc_audit.errors import StreamError
from cdc_audit.join import context as read_context
from cdc_audit.join import ddl, foreign, reading
from cdc_audit.join.event import WEAKNESS, ReadEvent, read_event
from cdc_audit.model.context import NO_CONTEXT, Context, ContextKey, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Commit, Decoded, Message, Stretch

_TIMESTAMP = re.compile(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00")


class Joiner:
    """Takes events in stream order, gives stretches in the same order. ``prefix`` is what our messages' names begin with;
    ``accept`` names packages whose messages are understood, too (``join.foreign``).
    """

    def __init__(
        self,
        *,
        prefix: str = "cdc_audit",
        accept: Iterable[str] = (),
        hold_rows: int = 10_000,
        hold_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._context_prefix = f"{prefix}.context"
        self._event_prefix = f"{prefix}.event"
        self._ddl_prefix = f"{prefix}.ddl"
        self._session_prefix = f"{prefix}.session"
        self._read_prefix = f"{prefix}.read"
        self._contexts = reading.Contexts()
        self._foreign = frozenset(foreign.prefixes(accept))
        self._hold_rows = hold_rows
        self._hold_bytes = hold_bytes
        self._keys: Mapping[str, ContextKey] = {}
        self._transaction: Begin | None = None
        self._context: Context | None = None
        # Stands where there is no context, wherever in the transaction it was said.
        self._session = NO_CONTEXT
        self._held: list[tuple[Context | None, list[Change | ReadEvent]]] = []
        self._changes: list[Change | ReadEvent] = []
        self._held_rows = 0
        self._held_bytes = 0
        self._is_flowing = False  # the transaction was larger than the hold: what came so far has gone on
        self._has_started = False
        self._has_several = False  # contexts, or one that does not count from the transaction's beginning
        self._has_events = False  # among the changes

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._transaction is not None

    @property
    def transaction(self) -> Begin | None:
        """The transaction that has begun and not ended."""
        return self._transaction

    def learn(self, keys: Mapping[str, ContextKey]) -> None:
        """Check signatures with these keys from here on."""
        self._keys = keys

    def unknown_keys(self, events: Iterable[Decoded]) -> set[str]:
        """The ids of keys that these events name and that aren't known: read the keys again before joining them."""
        keys, unknown = self._keys, set()
        for event in events:
            if type(event) is Message:
                key_id = read_context.key_id_of(event.content)
                if key_id and key_id not in keys:
                    unknown.add(key_id)
        return unknown

    def join(self, events: Iterable[Decoded], size: int, sent_at: str) -> list[Stretch]:
        """The stretches that are complete with these events, which took ``size`` bytes on the wire.

        ``sent_at`` is the server's time as PostgreSQL prints it in UTC: the time of an unsigned event outside any transaction.
        Raises StreamError where events stand outside of a transaction or transactions overlap.
        """
        out: list[Stretch] = []
        for event in events:
            kind = type(event)
            if kind is list:
                self._changes += event  # type: ignore[arg-type]
            elif kind is tuple:
                self._changes.append(event)  # type: ignore[arg-type]
            elif kind is Begin:
                self._begin(event)  # type: ignore[arg-type]
            elif kind is Commit:
                self._commit(out, event)  # type: ignore[arg-type]
            elif kind is Message:
                self._message(out, event, sent_at)  # type: ignore[arg-type]
            elif event is not None:
                self._changes.append(event)  # type: ignore[arg-type]
        if self._transaction is None:
            if self._changes:
                raise StreamError("a change stands outside of any transaction")
        else:
            self._held_bytes += size
            if self._is_flowing or self._held_bytes > self._hold_bytes or self._rows() > self._hold_rows:
                self._is_flowing = True
                self._release(out, ends=False)
        return out

    def _rows(self) -> int:
        return self._held_rows + len(self._changes)

    def _begin(self, begin: Begin) -> None:
        if self._transaction is not None or self._changes:
            raise StreamError("a transaction begins inside another one")
        self._transaction = begin
        self._context = None
        self._session = NO_CONTEXT
        self._held_bytes = self._held_rows = 0
        self._is_flowing = self._has_started = self._has_several = self._has_events = False

    def _commit(self, out: list[Stretch], commit: Commit) -> None:
        if self._transaction is None or self._transaction.end_lsn != commit.end_lsn:
            raise StreamError("a COMMIT without its BEGIN")
        self._release(out, ends=True)
        if self._context is not None and not self._has_several:
            self._contexts.remember(self._transaction.xid, self._transaction.committed_at, self._context)
        self._transaction = None

    def _message(self, out: list[Stretch], message: Message, sent_at: str) -> None:
        if not message.transactional:
            if message.prefix == self._event_prefix:
                out.append(self._lone_event(message, sent_at))
            return
        if self._transaction is None:
            raise StreamError("a transactional message stands outside of any transaction")
        xid = self._transaction.xid
        if message.prefix == self._context_prefix:
            self._turn(read_context.context_of(message.content, xid=xid, keys=self._keys))
        elif message.prefix == self._event_prefix:
            self._take(read_event(message.content, xid=xid, keys=self._keys))
        elif message.prefix == self._ddl_prefix:
            self._take(ddl.read_ddl(message.content, xid=xid, keys=self._keys))
        elif message.prefix == self._read_prefix:
            read = reading.read_reading(message.content, xid=xid, keys=self._keys, contexts=self._contexts)
            self._take(read)
        elif message.prefix == self._session_prefix:
            said = read_context.read(message.content, kind="session", xid=xid, keys=self._keys)
            self._session = read_context.of_session(said)
        elif message.prefix in self._foreign:
            if self._context is None and foreign.counts_from_its_place(message.prefix):
                self._held.append((NO_CONTEXT, self._changes))
                self._held_rows += len(self._changes)
                self._changes, self._context = [], NO_CONTEXT
            self._turn(foreign.read(message.prefix, message.content))

    def _take(self, event: ReadEvent) -> None:
        self._changes.append(event)
        self._has_events = True

    def _turn(self, context: Context) -> None:
        """A context counts from here on; what came before the first one takes it too, if it is still held."""
        if context == self._context:
            return
        if self._context is None and not self._is_flowing:
            self._context = context
            return
        is_late = self._context is None
        self._has_several = True
        self._held_rows += len(self._changes)
        self._held.append((self._context, self._changes))
        self._context = context
        self._changes = []
        if is_late:
            self._take(ReadEvent(ApplicationEvent("CONTEXT", "", "", b""), None, context.trust))

    def _or_session(self, context: Context | None) -> Context:
        return self._session if context is None or context == NO_CONTEXT else context

    def _lone_event(self, message: Message, sent_at: str) -> Stretch:
        event = read_event(message.content, xid=None, keys=self._keys, lsn=message.lsn)
        at = event.at if _TIMESTAMP.fullmatch(event.at) else sent_at
        return Stretch(Begin(0, message.lsn, at), _for_event(NO_CONTEXT, event), [event.event], True, True)

    def _release(self, out: list[Stretch], *, ends: bool) -> None:
        """Give away all that is held of the transaction."""
        assert self._transaction is not None
        held = [*self._held, (self._context, self._changes)]
        self._held, self._changes = [], []
        self._held_bytes = self._held_rows = 0
        parts: list[tuple[Context, list[Change]]] = []
        for context, changes in held:
            if self._has_events:
                parts.extend(_split(self._or_session(context), changes))
            elif changes:
                parts.append((self._or_session(context), changes))  # type: ignore[arg-type]
        if not parts and (ends or not self._has_started):
            parts = [(self._or_session(self._context), [])]
        for number, (context, run) in enumerate(parts):
            last = number == len(parts) - 1
            starts = not self._has_started
            out.append(Stretch(self._transaction, context, run, starts, ends and last, not self._is_flowing))
            self._has_started = True


def _split(context: Context, changes: list[Change | ReadEvent]) -> list[tuple[Context, list[Change]]]:
    """Changes under one context, with each application event apart: it may carry a context of its own."""
    parts: list[tuple[Context, list[Change]]] = []
    run: list[Change] = []
    for change in changes:
        if isinstance(change, ReadEvent):
            if run:
                parts.append((context, run))
            parts.append((_for_event(context, change), [change.event]))
            run = []
        else:
            run.append(change)
    if run:
        parts.append((context, run))
    return parts


def _for_event(context: Context, event: ReadEvent) -> Context:
    """The context of an event: its own, or the transaction's at its place; believed no further than the event itself.

    Without any context nobody is said to act, however well the event is signed: only its database user is known. Of DDL that
    is all there is to say, and how far to believe it.
    """
    if event.context is not None:
        return event.context
    if context.trust is Trust.NONE:
        counts = event.trust in (Trust.FORGED, Trust.INVALID) or event.event.action == ddl.ACTION
        trust = event.trust if counts else Trust.NONE
        return Context(trust, db_user=event.db_user, application_name=event.application_name)
    return context._replace(trust=max(context.trust, event.trust, key=WEAKNESS.__getitem__))
