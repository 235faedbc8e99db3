"""What a decoder yields, in stream order: plain tuples where rows are many, named ones where they aren't.

``decode`` turns each message of the plugin into at most one event. Everything between a Begin and its Commit belongs to
one transaction; only a non-transactional Message stands outside.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from cdc_audit.model.context import Context

Action: TypeAlias = Literal["INSERT", "UPDATE", "DELETE", "SNAPSHOT"]


class Shape(NamedTuple):
    """What all row events of one form share. Compared by identity: a decoder yields the same object for the same form.

    ``schema``/``table`` name the root of a partitioned table, ``partition`` the leaf ("" where there is none).
    ``new_columns``/``old_columns`` are the names of the images' values, in column order; () where there is no image.
    ``old_is_full`` says that the old image is the whole old row (REPLICA IDENTITY FULL), not just its key.
    ``key`` names the primary key's columns in column order, or, without one, those of a replica identity index; ().
    ``unchanged_toast`` names columns that the server did not send since they did not change.
    ``is_lossy`` says that the plugin has turned a NaN or infinity of this row into null (wal2json 2.5).
    ``nested`` names columns whose values may be JSON objects or hold some: json, jsonb, composites, and arrays of those.
    """

    action: Action
    schema: str
    table: str
    partition: str
    new_columns: tuple[str, ...]
    old_columns: tuple[str, ...]
    old_is_full: bool
    key: tuple[str, ...]
    unchanged_toast: tuple[str, ...]
    is_lossy: bool = False
    nested: tuple[str, ...] = ()


# A row change: its shape, and the values of the new and the old image in the order of the shape's columns. Each value is
# the text that PostgreSQL's jsonb prints for it (UTF-8 bytes): what to_jsonb(NEW) would hold.
RowValues: TypeAlias = list[bytes]
Row: TypeAlias = tuple[Shape, RowValues, RowValues]


class Begin(NamedTuple):
    """A transaction's start. ``end_lsn`` is the end of its commit record: the position to resume after.

    ``committed_at`` is the commit time as PostgreSQL prints it in UTC, e.g. ``2026-11-22 19:19:02.555107+00``.
    """

    xid: int
    end_lsn: int
    committed_at: str


class Commit(NamedTuple):
    """A transaction's end; ``end_lsn`` as in its Begin."""

    end_lsn: int


class Truncate(NamedTuple):
    """TRUNCATE of one table."""

    schema: str
    table: str
    partition: str


class Suppressed(NamedTuple):
    """A change that the plugin reported without its row, for want of a replica identity."""

    action: Action
    schema: str
    table: str
    partition: str


class Message(NamedTuple):
    """A logical message (pg_logical_emit_message). ``lsn`` is the end of its record."""

    transactional: bool
    prefix: str
    content: str
    lsn: int


class ApplicationEvent(NamedTuple):
    """What an application says has happened (``cdc_audit.log_event``), a context that came too late for its rows, or DDL.

    ``table`` is ``name`` or ``schema.name``, of DDL the name alone, with its ``schema``; ``data`` is the text that jsonb prints,
    or "" for none.
    """

    action: str
    table: str
    record_id: str
    data: bytes
    schema: str | None = None


Event: TypeAlias = Begin | Commit | Row | Truncate | Suppressed | Message
Change: TypeAlias = Row | Truncate | Suppressed | ApplicationEvent
# What decoding gives: an event, several in stream order, or None where nothing is in scope.
Decoded: TypeAlias = Event | list[Row] | list[Truncate] | None


class Stretch(NamedTuple):
    """A run of one transaction's changes, in stream order, under one context.

    ``starts``/``ends`` say that it is the transaction's first/last stretch. A transaction without changes is one empty stretch.
    ``is_whole`` says that the transaction was held back until its end, so that all its stretches come at once.
    """

    transaction: Begin
    context: Context
    changes: list[Change]
    starts: bool
    ends: bool
    is_whole: bool = True
