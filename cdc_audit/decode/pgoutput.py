"""pgoutput, protocol version 1 with messages: one binary message into one event, or into a list of Truncates.

PostgreSQL manual: "Logical Replication Message Formats". Expected options: proto_version 1, messages true; the connection's
client_encoding must be SQL_ASCII, so that the server converts nothing and all bytes are in its own encoding.

What differs from wal2json, since the plugin doesn't send it: changes without a usable replica identity (a publication that
never makes an application's statement fail doesn't hold them), generated columns before PostgreSQL 18, the TRUNCATE of a
partitioned table beside those of its partitions, and from PostgreSQL 15 on transactions without changes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cdc_audit.decode.relation import (
    NULL,
    MalformedError,
    Plain,
    RowReader,
    Shapes,
    parse_relation,
    primary_key,
    text_at,
)
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.sent_values import PGOUTPUT_CONVERTERS, decoded, unknown_types
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog
from cdc_audit.model.event import Begin, Commit, Decoded, Event, Message, Row, Truncate
from cdc_audit.model.lsn import format_lsn

_compiled: Callable[[Sequence[object], int, dict[bytes, Plain], list[Decoded]], int] | None = None
try:
    from cdc_audit.decode import _pgoutput
except ImportError:
    pass
else:
    _pgoutput.init_converters(*PGOUTPUT_CONVERTERS, NULL)
    _compiled = _pgoutput.rows

_BEGIN = struct.Struct(">xQqI")
_COMMIT = struct.Struct(">xxQQq")
_MESSAGE = struct.Struct(">xBQ")
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - UTC, printed without asking
_ROWS: dict[int, Callable[[RowReader, bytes], Row]] = {
    ord("I"): RowReader.insert,
    ord("U"): RowReader.update,
    ord("D"): RowReader.delete,
}
# From PostgreSQL 18 on a missing publication is only warned of, and what it would have published is left out.
_NO_PUBLICATION = re.compile(r'skipped loading publication "([^"]*)"')


class PgOutputDecoder:
    """Turns messages into events, one by one, in stream order. Holds the tables described so far and the open transaction.

    ``encoding`` is Python's name of the server's encoding. A new stream needs a new decoder: it describes its tables anew.
    """

    def __init__(self, scope: Scope, *, encoding: str = "utf-8") -> None:
        self._scope = scope
        self._encoding = encoding
        self._catalog = Catalog()
        self._shapes = Shapes()
        self._readers: dict[bytes, RowReader] = {}  # by the table's oid
        self._plain: dict[bytes, Plain] = {}  # of those in scope, for what is compiled
        self._asked = b""  # the Relation message for which the catalog has been looked up
        self._refused = b""  # the row whose values did not fit their types as they were known
        self._commit_lsn = 0  # the start of the open transaction's commit record
        self._in_transaction = False

    def learn(self, catalog: Catalog) -> None:
        """Use what was looked up for an UnknownTypeError; then decode the same message again."""
        self._catalog = catalog

    @property
    def catalog(self) -> Catalog:
        """All that was learned so far."""
        return self._catalog

    def rescope(self, scope: Scope) -> None:
        """Use another selection of tables from here on."""
        self._scope = scope
        for oid, reader in self._readers.items():
            self._use(oid, reader)

    def decode_many(
        self,
        items: Sequence[object],
        position: int,
        events: list[Decoded],
        *,
        through_commits: bool,  # noqa: ARG002 - none is compiled for
    ) -> int:
        """Append a list of the rows from ``position`` on that are compiled for; return the position of what is for ``decode``."""
        return position if _compiled is None else _compiled(items, position, self._plain, events)

    def decode(self, payload: bytes) -> Decoded:
        """The message's event, or None for what is no event or out of scope; for TRUNCATE a list, an event for each table.

        Only the Commit knows where its record ends: a Begin has ``end_lsn`` 0, unless that position was appended to it, in 8
        bytes, by whoever held the transaction back until its end (``pipeline.spool``). Raises UnknownTypeError (look up,
        ``learn``, decode again) and StreamError for anything that pgoutput should not send.
        """
        oid = payload[1:5]
        read = _ROWS.get(payload[0]) if payload else None
        if read is None:
            return self._other(payload)
        try:
            reader = self._readers[oid]
        except KeyError:
            raise self._broken("a row of a table that was not described") from None
        if not reader.is_in_scope:
            return None
        try:
            return read(reader, payload)
        except MalformedError as error:
            raise self._broken(str(error)) from None
        except IndexError:
            raise self._broken("a row is cut short") from None
        except (ValueError, KeyError):
            pass  # and leave the handler: an error below must not carry this one, which may hold a value
        return self._reluctantly(read, reader, oid, payload)

    def decode_notice(self, text: str) -> Event | None:
        """None: pgoutput reports no changes so. Raises StreamError where the server says that it leaves changes out."""
        match = _NO_PUBLICATION.search(text)
        if match is None:
            return None
        raise StreamError(
            f'pgoutput: publication "{match[1]}" does not exist at this point of the stream, so its changes are not sent',
            remedy='cdc-audit init, then: cdc-audit slot recreate --reason "the publication was missing"',
        )

    def _reluctantly(
        self, read: Callable[[RowReader, bytes], Row], reader: RowReader, oid: bytes, payload: bytes
    ) -> Row:
        """A row with a value that doesn't fit its type as it was known (ALTER TYPE ... ADD ATTRIBUTE, say).

        First the types are looked up once more; what still doesn't fit then is its text.
        """
        if reader.user_types and self._refused != payload:
            self._refused = payload
            raise UnknownTypeError(reader.user_types, frozenset())
        self._refused = b""
        described = reader.relation, reader.key, self._catalog, self._shapes, self._encoding
        self._use(oid, RowReader(*described))
        lenient = RowReader(*described, lenient=True)
        try:
            return read(lenient, payload)
        except (ValueError, KeyError):
            raise self._broken("a value does not have its type's form") from None

    def _other(self, payload: bytes) -> Decoded:
        action = payload[:1]
        try:
            if action == b"B":
                return self._begin(payload)
            if action == b"C":
                return self._commit(payload)
            if action == b"M":
                return self._message(payload)
            if action == b"R":
                self._describe(payload)
                return None
            if action == b"T":
                return self._truncate(payload)
        except MalformedError as error:
            raise self._broken(str(error)) from None
        except (struct.error, ValueError, OverflowError):
            raise self._broken(f"a message with action {action!r} is not built as it should be") from None
        if action in (b"Y", b"O"):  # a type's name; where a transaction came from
            return None
        raise self._broken(f"unknown action {action!r}")

    def _begin(self, payload: bytes) -> Begin:
        lsn, at, xid = _BEGIN.unpack_from(payload)
        if len(payload) not in (_BEGIN.size, _BEGIN.size + 8):
            raise MalformedError("a Begin message has another length")
        end_lsn = int.from_bytes(payload[_BEGIN.size :], "big")
        committed_at = (_EPOCH + timedelta(microseconds=at)).isoformat(sep=" ")
        self._commit_lsn, self._in_transaction = lsn, True
        if "." in committed_at:
            committed_at = committed_at.rstrip("0")
        return Begin(xid, end_lsn, committed_at + "+00")

    def _commit(self, payload: bytes) -> Commit:
        lsn, end_lsn, _ = _COMMIT.unpack(payload)
        if not self._in_transaction or lsn != self._commit_lsn:
            raise MalformedError("the COMMIT does not fit its BEGIN")
        self._in_transaction = False
        return Commit(end_lsn)

    def _message(self, payload: bytes) -> Message:
        flags, lsn = _MESSAGE.unpack_from(payload)
        prefix, at = text_at(payload, _MESSAGE.size, self._encoding)
        content = payload[at + 4 :]
        if len(payload) < at + 4 or int.from_bytes(payload[at : at + 4], "big") != len(content):
            raise MalformedError("a logical message has another length")
        # pg_logical_emit_message takes bytea too: what isn't text must not be taken for JSON. wal2json ends at NUL, too.
        content = content.partition(b"\0")[0]
        try:
            text = content.decode(self._encoding)
        except UnicodeDecodeError:
            text = "\ufffd" + decoded(content, self._encoding)
        return Message(flags & 1 == 1, prefix, text, lsn)

    def _describe(self, payload: bytes) -> None:
        """A table may be described again at any time: its key in the catalog may be why."""
        relation = parse_relation(payload, self._encoding)
        missing = unknown_types(relation.types, self._catalog.types)
        if missing or self._asked != payload:
            self._asked = payload
            raise UnknownTypeError(missing, frozenset([(relation.schema, relation.table)]))
        self._asked = b""
        last = self._readers.get(payload[1:5])
        info = self._catalog.tables.get((relation.schema, relation.table))
        key = primary_key(relation, info, last.key if last else ())
        self._use(payload[1:5], RowReader(relation, key, self._catalog, self._shapes, self._encoding))

    def _use(self, oid: bytes, reader: RowReader) -> None:
        """Read a table's rows so from here on."""
        self._readers[oid] = reader
        self._plain.pop(oid, None)
        reader.is_in_scope = self._covers(reader)
        if reader.is_in_scope:
            self._plain[oid] = reader.plain

    def _covers(self, reader: RowReader) -> bool:
        is_table = reader.info is None or reader.info.kind in "rp"
        return is_table and self._scope.covers((reader.relation.schema, reader.relation.table), reader.root)

    def _truncate(self, payload: bytes) -> list[Truncate]:
        count = int.from_bytes(payload[1:5], "big")
        oids = [payload[at : at + 4] for at in range(6, len(payload), 4)]
        if len(payload) != 6 + 4 * count:
            raise MalformedError("a Truncate message has another length")
        events: list[Truncate] = []
        for oid in oids:
            if oid not in self._readers:
                raise MalformedError("TRUNCATE of a table that was not described")
            reader = self._readers[oid]
            if reader.is_in_scope:
                events.append(Truncate(*reader.root, reader.partition))
        return events

    def _broken(self, what: str) -> StreamError:
        where = "between transactions"
        if self._in_transaction:
            where = f"in the transaction whose commit record is at {format_lsn(self._commit_lsn)}"
        return StreamError(f"pgoutput, {where}: {what}")
