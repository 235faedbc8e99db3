"""A table's rows as ``COPY (SELECT columns) TO STDOUT`` prints them in text format, into rows of a snapshot.

https://www.postgresql.org/docs/current/sql-copy.html (Text Format). A value is the text of its type's output function, in the
server's encoding: what pgoutput sends too, so the same converters make of it what to_jsonb does.
"""

from __future__ import annotations

import re

from cdc_audit.decode.nested import may_hold_objects
from cdc_audit.decode.sent_values import BytesConverter, Types, from_sent
from cdc_audit.errors import StreamError
from cdc_audit.model.catalog import TableInfo
from cdc_audit.model.event import Row, RowValues, Shape

_NULL = b"\\N"
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_UNESCAPED = {b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


class CopiedRows:
    """Reads the rows of one table. ``types`` holds all user-defined types of its columns; ``encoding`` is Python's name of the
    server's encoding, in which the lines are.
    """

    def __init__(self, table: TableInfo, types: Types, encoding: str) -> None:
        own = (table.schema, table.table)
        self._name = ".".join(own)
        self._oids = [oid for _, oid, _ in table.columns]
        self._types = types
        self._encoding = encoding
        self._converters = self._made(lenient=False)
        self._lenient: list[BytesConverter | None] | None = None
        self.shape = Shape(
            "SNAPSHOT",
            *table.root,
            "" if table.root == own else table.table,
            tuple(name for name, _, _ in table.columns),
            (),
            False,
            table.primary_key,
            (),
            nested=tuple(name for name, oid, _ in table.columns if may_hold_objects(oid, types)),
        )

    def row(self, line: bytes) -> Row:
        """The row of a line without its end. A value that doesn't have its type's form is its text; StreamError if that is not
        to be had either.
        """
        try:
            return self.shape, self._values(line, self._converters), []
        except (ValueError, KeyError):
            pass  # and leave the handler: an error below must not carry this one, which may hold a value
        if self._lenient is None:
            self._lenient = self._made(lenient=True)
        try:
            return self.shape, self._values(line, self._lenient), []
        except (ValueError, KeyError):
            raise StreamError(f"a row of table {self._name} is not built as its columns are") from None

    def _made(self, *, lenient: bool) -> list[BytesConverter | None]:
        return [from_sent(oid, self._types, self._encoding, lenient=lenient) for oid in self._oids]

    def _values(self, line: bytes, converters: list[BytesConverter | None]) -> RowValues:
        if not converters:
            return []
        values = line.split(b"\t")
        is_plain = b"\\" not in line  # neither escapes nor nulls: the usual case
        for position, (raw, convert) in enumerate(zip(values, converters, strict=True)):
            if is_plain:
                if convert is not None:
                    values[position] = convert(raw)
            elif raw == _NULL:
                values[position] = b"null"
            else:
                plain = _ESCAPE.sub(_unescaped, raw)
                values[position] = plain if convert is None else convert(plain)
        return values


def _unescaped(match: re.Match[bytes]) -> bytes:
    return _UNESCAPED.get(match[1], match[1])
