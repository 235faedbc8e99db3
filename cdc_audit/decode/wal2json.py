"""wal2json format version 2: one JSON object a message into one event.

Expected options: format-version 2, include-xids, include-timestamp, include-lsn, include-pk, include-types 0 and
include-type-oids 1 (type *names* make invalid JSON on wal2json 2.5 and 2.6; oids don't).

A row's line is not parsed but cut. Inside a JSON string every quotation mark follows a backslash, so the bytes ``,"value":``
stand only where a column's value begins, and what lies between them and the known text that follows a value is the value's
own JSON text. All lines of one form (a table's INSERT, say) have the same text around the values: it is parsed once, and
of each further line only compared. So no number ever passes through a float, and the values go into the images as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, cast

import orjson

from cdc_audit.decode.form import VALUE, Converter, Form, paired
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.sent_values import decoded
from cdc_audit.decode.shape import shape_of
from cdc_audit.decode.values import WAL2JSON_CONVERTERS, ValueFormatError, from_wal2json
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog, TableInfo
from cdc_audit.model.event import (
    Action,
    Begin,
    Commit,
    Decoded,
    Event,
    Message,
    Row,
    RowValues,
    Shape,
    Suppressed,
    Truncate,
)
from cdc_audit.model.lsn import format_lsn, parse_lsn

_compiled: Callable[..., tuple[int, bytes, bool]] | None = None
try:
    from cdc_audit.decode._wal2json import events, init_converters, init_events
except ImportError:  # also where an older version was compiled
    pass
else:
    init_converters(*WAL2JSON_CONVERTERS)
    init_events(Begin, Commit, Message)
    _compiled = events

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[-+.\w]+', re.DOTALL)
_NOTICE = re.compile(
    r'no (?:old )?tuple (?:identifier|data) for (INSERT|UPDATE|DELETE) in table "(.*)"\."(.*)"', re.DOTALL
)
_ACTIONS = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}
# float4, float8, numeric: wal2json 2.5 prints null for their NaN and infinities; domains over them and arrays it prints exactly.
_MAY_BE_LOST = frozenset({700, 701, 1700})
_NEXT_LSN = re.compile(rb'"nextlsn":"([^"]*)"')
_MAX_FORMS = 20_000
_removesuffix = bytes.removesuffix


class Wal2JsonDecoder:
    """Turns lines into events, one by one, in stream order. Holds the forms seen so far and the open transaction.

    ``encoding`` is Python's name of the server's encoding: the stream's bytes are in it, whatever client_encoding says.
    ``quoted_numbers`` says that wal2json took the option numeric-data-types-as-string (2.6 and newer).
    """

    def __init__(self, scope: Scope, *, encoding: str = "utf-8", quoted_numbers: bool = False) -> None:
        self._scope = scope
        self._quoted_numbers = quoted_numbers
        self._encoding = "" if encoding == "utf-8" else encoding
        self._catalog = Catalog()
        self._recent: dict[bytes, Form] = {}  # action and head -> the form last seen with it
        self._forms: dict[bytes, Form] = {}  # the whole text around the values -> its form
        self._asked: set[bytes] = set()  # forms for which the catalog has been looked up
        self._refused = b""  # the line whose values did not fit their types as they were known
        self._doubted: set[bytes] = set()  # forms whose constraints the open transaction has looked up again
        self._shapes: dict[Shape, Shape] = {}  # so that equal shapes are one object
        self._user_typed: list[tuple[bytes, bytes]] = []  # key and form of those with types from the catalog
        self._is_empty = True  # whether the open transaction has shown no row so far
        self._is_stale = False  # whether tables may have changed since they were looked up
        self._refreshed = ""  # the second of commit time in which tables were last forgotten
        self._is_text = True  # whether the last line was of the server's encoding
        self._begin = b""
        self._end_lsn = 0

    def learn(self, catalog: Catalog) -> None:
        """Use what was looked up for an UnknownTypeError; then decode the same line again."""
        self._catalog = catalog

    @property
    def catalog(self) -> Catalog:
        """All that was learned so far."""
        return self._catalog

    def rescope(self, scope: Scope) -> None:
        """Use another selection of tables from here on."""
        self._scope = scope
        self._recent.clear()
        self._forms.clear()

    def decode_many(
        self, items: Sequence[object], position: int, events: list[Decoded], *, through_commits: bool
    ) -> int:
        """Append the events from ``position`` on that are compiled for, rows in lists; return the position of what is for
        ``decode``: also of each COMMIT, unless ``through_commits``.
        """
        if _compiled is None or self._encoding:
            return position
        begin = self._begin
        position, self._begin, self._is_empty = _compiled(
            items, position, self._recent, events, begin, self._is_empty, not self._is_stale, through_commits
        )
        if self._begin is not begin:
            self._doubted.clear()
            if self._begin:
                self._end_lsn = parse_lsn(_NEXT_LSN.findall(self._begin)[-1].decode())
        return position

    def decode(self, line: bytes) -> Event | None:
        """The line's event, or None for what is out of scope.

        Raises UnknownTypeError (look up, ``learn``, decode again) and StreamError for anything that wal2json should not send.
        """
        self._is_text = True
        if self._encoding or not line.isascii():
            line = self._transcode(line)
        action = line[11:12]
        if action in _ACTIONS:
            self._is_empty = False
            return self._row(line)
        if action == b"C":
            if line[12:] != self._begin:
                raise self._broken("the COMMIT does not fit its BEGIN")
            self._begin = b""
            if self._is_empty:
                self._forget_types()
            return Commit(self._end_lsn)
        fields = self._parse(line)
        try:
            return self._other(action, line, fields)
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken(
                f"a message with action {action!r} lacks a field or holds a wrong one"
            ) from error

    def decode_notice(self, text: str) -> Event | None:
        """The event of a WARNING that the walsender sent between two messages, or None if it says nothing about a row."""
        match = _NOTICE.search(text)
        if match is None:
            return None
        action, *name = match.groups()
        root, partition = self._root(name[0], name[1])
        info = self._catalog.tables[name[0], name[1]]
        if not self._scope.covers((name[0], name[1]), root) or (info is not None and info.kind not in "rp"):
            return None
        return Suppressed(cast("Action", action), *root, partition)

    def _row(self, line: bytes) -> Row | None:
        parts = line.split(VALUE)
        head = parts[0]
        key = line[11:12] + head[head.find(b'"schema":') :]
        form = self._recent.get(key)
        if form is not None and len(parts) == len(form.tails):
            values = list(map(_removesuffix, parts, form.tails))
            if len(b"".join(values)) + form.fixed_length != len(line):
                form = None
        else:
            form = None
        if form is None:
            form = self._form(key, line, parts)
            self._recent[key] = form
            values = list(map(_removesuffix, parts, form.tails))
        shape = form.shape
        if shape is None:
            return None
        for position in form.never_null:
            if values[position] == b"null":
                shape = self._lossy_shape(form, key)
                break
        try:
            for position, old, convert in form.converters:
                token = values[position]
                values[position] = value = convert(token)
                if old:  # mostly the column has not changed
                    values[old] = value if values[old] == token else convert(values[old])
        except ValueFormatError:
            values = self._as_text(form, key, line, parts)
        new = form.new
        return shape, values[new] if type(new) is slice else [values[i] for i in new], values[form.old]

    def _lossy_shape(self, form: Form, key: bytes) -> Shape:
        """The shape of a line with null in a NOT NULL column of numbers.

        The constraint may be gone since it was looked up: that is made sure of once a transaction.
        """
        assert form.shape is not None
        if form.around not in self._doubted:
            self._doubted.add(form.around)
            self._recent.pop(key, None)
            self._forms.pop(form.around, None)
            self._asked.add(form.around)
            raise UnknownTypeError(frozenset(), frozenset([form.table]))
        return self._one(form.shape._replace(is_lossy=True))

    def _one(self, shape: Shape) -> Shape:
        """The one object that stands for all equal shapes."""
        if len(self._shapes) >= _MAX_FORMS:
            self._shapes.clear()
        return self._shapes.setdefault(shape, shape)

    def _as_text(self, form: Form, key: bytes, line: bytes, parts: list[bytes]) -> RowValues:
        """The values of a line whose type was altered since (ALTER TYPE ... ADD ATTRIBUTE, say): what doesn't fit is its text.

        First the types are looked up once more.
        """
        if self._refused != line:
            self._refused = line
            self._recent.pop(key, None)
            self._forms.clear()
            self._asked.add(form.around)
            raise UnknownTypeError(form.types, frozenset([form.table]))
        values = list(map(_removesuffix, parts, form.tails))
        for *positions, convert in form.converters:
            for position in filter(None, positions):
                try:
                    values[position] = convert(values[position])
                except ValueFormatError:
                    if values[position][:1] != b'"':
                        raise self._broken("a value does not have its type's form") from None
        return values

    def _forget_types(self) -> None:
        """Look types up again: a transaction without rows is all that wal2json shows of DDL (or of tables out of scope)."""
        self._is_stale = True
        if self._user_typed:
            for key, around in self._user_typed:
                self._recent.pop(key, None)
                self._forms.pop(around, None)
            self._user_typed.clear()
            self._catalog = Catalog({}, self._catalog.tables)

    def _forget_tables(self, second: str) -> None:
        """Look tables up again (a partition may have been attached): at most once a second of commit time."""
        if second != self._refreshed:
            self._is_stale, self._refreshed = False, second
            self._recent.clear()
            self._forms.clear()
            self._catalog = Catalog(self._catalog.types, {})

    def _form(self, key: bytes, line: bytes, parts: list[bytes]) -> Form:
        """The form of a line that does not look like the last one of its kind."""
        tails = [b""]
        for part in parts[1:]:
            token = _TOKEN.match(part)
            if token is None:
                raise self._broken("a row holds a value that is not a JSON scalar")
            tails.append(part[token.end() :])
        around = key + b"\0".join(tails)
        form = self._forms.get(around)
        if form is None:
            skeleton = self._parse(b"".join([parts[0], *(b',"value":null' + tail for tail in tails[1:])]))
            form = self._make_form(around, tuple(tails), skeleton, line)
            if not form.types.isdisjoint(self._catalog.types):
                self._user_typed.append((key, around))
            if len(self._forms) >= _MAX_FORMS:
                self._forms.clear()
                self._recent.clear()
            self._forms[around] = form
        return form

    def _make_form(
        self, around: bytes, tails: tuple[bytes, ...], skeleton: dict[str, Any], line: bytes
    ) -> Form:
        try:
            schema, table = _text(skeleton["schema"]), _text(skeleton["table"])
            new = [_column(column) for column in skeleton.get("columns", ())]
            old = [_column(column) for column in skeleton.get("identity", ())]
            key = tuple(_text(column["name"]) for column in skeleton.get("pk", ()))
        except (KeyError, TypeError) as error:
            raise self._broken("a row lacks a field or holds a wrong one") from error
        if len(new) + len(old) != len(tails) - 1:
            raise self._broken("a row has more or fewer values than columns")
        converters = self._converters(around, (schema, table), [oid for _, oid in new + old])
        self._asked.discard(around)
        info = self._catalog.tables[schema, table]
        types = self._catalog.types
        shape, positions = shape_of(_ACTIONS[line[11:12]], (schema, table), info, new, old, key, types)
        in_scope = self._scope.covers((schema, table), (shape.schema, shape.table)) and (
            info is None or info.kind in "rp"
        )
        return Form(
            tails,
            sum(map(len, tails)) + len(VALUE) * (len(tails) - 1),
            self._one(shape) if in_scope else None,
            paired(converters, new, old) if in_scope else (),
            slice(1, len(new) + 1) if positions is None else [i + 1 for i in positions],
            slice(len(new) + 1, len(tails)),
            frozenset(oid for _, oid in new + old),
            self._never_null(info, new + old) if in_scope else (),
            (schema, table),
            around,
        )

    def _never_null(self, info: TableInfo | None, values: list[tuple[str, int]]) -> tuple[int, ...]:
        if info is None or self._quoted_numbers:
            return ()
        not_null = {column for column, _, is_not_null in info.columns if is_not_null}
        return tuple(
            i for i, (name, oid) in enumerate(values, start=1) if oid in _MAY_BE_LOST and name in not_null
        )

    def _converters(self, around: bytes, name: tuple[str, str], oids: list[int]) -> list[Converter | None]:
        """A converter for each value. A new form asks for the table again: its columns may be why the form is new."""
        missing: set[int] = set()
        converters: list[Converter | None] = []
        for oid in oids:
            try:
                converters.append(
                    from_wal2json(oid, self._catalog.types, quoted_numbers=self._quoted_numbers)
                )
            except UnknownTypeError as error:
                missing |= error.type_oids
        if missing or around not in self._asked or name not in self._catalog.tables:
            self._asked.add(around)
            raise UnknownTypeError(frozenset(missing), frozenset([name]))
        return converters

    def _other(self, action: bytes, line: bytes, fields: dict[str, Any]) -> Event | None:
        if action == b"B":
            self._begin = line[12:]
            self._is_empty = True
            self._doubted.clear()
            self._end_lsn = parse_lsn(_text(fields["nextlsn"]))
            committed_at = _text(fields["timestamp"])
            if self._is_stale:
                self._forget_tables(committed_at[:19])
            return Begin(index(fields["xid"]), self._end_lsn, committed_at)
        if action == b"M":
            prefix, content = _text(fields["prefix"]), _text(fields["content"])
            # pg_logical_emit_message takes bytea too: what isn't text must not be taken for JSON
            if not (self._is_text or content.isascii()):
                content = "\ufffd" + content
            return Message(fields["transactional"], prefix, content, parse_lsn(_text(fields["lsn"])))
        if action == b"T":
            name = _text(fields["schema"]), _text(fields["table"])
            root, partition = self._root(*name)
            return Truncate(*root, partition) if self._scope.covers(name, root) else None
        raise self._broken(f"unknown action {action!r}: this wal2json is newer than this program")

    def _root(self, schema: str, table: str) -> tuple[tuple[str, str], str]:
        """The topmost parent of a table, and the table's own name if it is a partition."""
        if (schema, table) not in self._catalog.tables:
            raise UnknownTypeError(frozenset(), frozenset([(schema, table)]))
        info = self._catalog.tables[schema, table]
        root = info.root if info else (schema, table)
        return root, "" if root == (schema, table) else table

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._broken(f"invalid JSON at byte {error.pos}") from None
        if not isinstance(fields, dict):
            raise self._broken("a message is not a JSON object")
        return fields

    def _transcode(self, line: bytes) -> bytes:
        """The line as UTF-8."""
        encoding = self._encoding or "utf-8"
        try:
            return line.decode(encoding).encode()
        except UnicodeDecodeError:
            self._is_text = False
            return decoded(line, encoding).encode()

    def _broken(self, what: str) -> StreamError:
        where = (
            f"in the transaction that ends at {format_lsn(self._end_lsn)}"
            if self._begin
            else "between transactions"
        )
        return StreamError(f"wal2json, {where}: {what}")


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError("not a string")
    return value


def _column(column: dict[str, Any]) -> tuple[str, int]:
    """Name and type. wal2json before 2.7 prints oids above 2,147,483,647 as negative numbers."""
    return _text(column["name"]), index(column["typeoid"]) & 0xFFFFFFFF
