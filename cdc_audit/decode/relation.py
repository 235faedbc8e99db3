"""One table as pgoutput describes it (a Relation message), and how its rows are read. Knows nothing of transactions.

See the PostgreSQL manual, "Logical Replication Message Formats": Relation, TupleData.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

from cdc_audit.decode.nested import may_hold_objects
from cdc_audit.decode.sent_values import decoded, from_sent
from cdc_audit.model.catalog import Catalog, TableInfo
from cdc_audit.model.event import Action, Row, RowValues, Shape

NULL = b"null"  # stands, itself, for a value that is null
_NEW, _KEY, _OLD = b"NKO"
_IS_NULL, _IS_UNCHANGED, _IS_TEXT = b"nut"
# What stands before a value shorter than 64 kB, but for two bytes of its length. No text holds NUL, so it stands nowhere else
# but within the length of a value of 0x740000 bytes.
_TEXT = b"t\0\0"
_MAX_SPLIT = 0x740000
_AFTER_LENGTH: Callable[[bytes], bytes] = itemgetter(slice(2, None))
# The five bytes before a value that is shorter than this: its kind and its length.
_LENGTHS = {b"t" + length.to_bytes(4, "big"): length for length in range(1024)}
_MAX_SHAPES = 20_000


class MalformedError(Exception):
    """A message is not built as the protocol says. The text never holds a value."""


class Relation(NamedTuple):
    """What a Relation message says. ``identity`` are the positions of the columns that it flags as the replica identity's.

    ``replica_identity`` is pg_class.relreplident: d (default), f (full), i (index), n (nothing).
    """

    schema: str
    table: str
    replica_identity: str
    names: tuple[str, ...]
    types: tuple[int, ...]
    identity: tuple[int, ...]


def parse_relation(payload: bytes, encoding: str) -> Relation:
    """A Relation message. Raises MalformedError."""
    try:
        schema, at = text_at(payload, 5, encoding)
        table, at = text_at(payload, at, encoding)
        replica_identity, count = chr(payload[at]), int.from_bytes(payload[at + 1 : at + 3], "big")
        at += 3
        names, types, identity = [], [], []
        for position in range(count):
            if payload[at] & 1:
                identity.append(position)
            name, at = text_at(payload, at + 1, encoding)
            names.append(name)
            types.append(int.from_bytes(payload[at : at + 4], "big"))
            at += 8  # and the type modifier
    except IndexError:
        raise MalformedError("a Relation message is cut short") from None
    if at != len(payload) or replica_identity not in "dfin":
        raise MalformedError("a Relation message has another length or identity than the protocol knows")
    # pgoutput leaves the name of the system's schema out
    return Relation(
        schema or "pg_catalog", table, replica_identity, tuple(names), tuple(types), tuple(identity)
    )


def text_at(payload: bytes, at: int, encoding: str) -> tuple[str, int]:
    """A text that ends with NUL, and where the next field begins. Raises MalformedError."""
    end = payload.find(0, at)
    if end < 0:
        raise MalformedError("a text does not end")
    return decoded(payload[at:end], encoding), end + 1


class Plain(NamedTuple):
    """What is compiled needs this of a RowReader. Converters stand with their positions, the identity is its columns' positions."""

    width: int
    converters: tuple[tuple[int, Callable[[bytes], bytes]], ...]
    identity: tuple[int, ...]
    inserted: Shape
    updated: Shape
    updated_by_key: Shape
    deleted: Shape
    deleted_by_key: Shape


class RowReader:
    """Reads the rows of one relation: all that does not depend on their values is computed once. ``key`` is its primary key.

    ``insert``, ``update`` and ``delete`` take a whole message and raise MalformedError or IndexError where it is not built as it
    should be, ValueError or KeyError where a value is not written as its type's are.
    """

    def __init__(
        self,
        relation: Relation,
        key: tuple[str, ...],
        catalog: Catalog,
        shapes: Shapes,
        encoding: str,
        *,
        lenient: bool = False,
    ) -> None:
        self.relation = relation
        self.key = key
        self.is_in_scope = True
        self.info = catalog.tables.get((relation.schema, relation.table))
        self.user_types = frozenset(relation.types) & catalog.types.keys()
        self._shapes = shapes
        self._width = len(relation.names)
        self._count = self._width.to_bytes(2, "big")
        self._new_follows = b"N" + self._count
        self._is_plain = True  # whether the last row read step by step had neither nulls nor unchanged values
        converters = [from_sent(oid, catalog.types, encoding, lenient=lenient) for oid in relation.types]
        self._converters = tuple((i, convert) for i, convert in enumerate(converters) if convert is not None)
        self._identity = () if relation.replica_identity == "f" else relation.identity
        columns = zip(relation.names, relation.types, strict=True)
        self._nested = tuple(name for name, oid in columns if may_hold_objects(oid, catalog.types))
        self._inserted = self._shape("INSERT", None)
        self._updated = self._shape("UPDATE", relation.names)
        self._updated_by_key = self._shape("UPDATE", self._identity_names(()))
        self._deleted = self._shape("DELETE", relation.names)
        self._deleted_by_key = self._shape("DELETE", self._identity_names(()))

    @property
    def plain(self) -> Plain:
        """How its usual rows are read."""
        return Plain(
            self._width,
            self._converters,
            self._identity,
            self._inserted,
            self._updated,
            self._updated_by_key,
            self._deleted,
            self._deleted_by_key,
        )

    @property
    def root(self) -> tuple[str, str]:
        """The topmost parent of a partition, else the table itself."""
        return self.info.root if self.info else (self.relation.schema, self.relation.table)

    @property
    def partition(self) -> str:
        """The table's own name if it is a partition, else ""."""
        own = self.relation.schema, self.relation.table
        return "" if self.root == own else self.relation.table

    def insert(self, payload: bytes) -> Row:
        """An Insert message's row."""
        if payload[5] != _NEW:
            raise MalformedError("an Insert message has no new row")
        new = self._texts(payload)
        if new is None:
            new, end, unchanged = self._values(payload, 6)
            if end != len(payload) or unchanged:
                raise MalformedError("an Insert message has another length, or lacks a value")
        self._convert(new)
        return self._inserted, new, []

    def update(self, payload: bytes) -> Row:
        """An Update message's rows."""
        if payload[5] != _OLD:
            return self._update_by_key(payload)
        pair = self._pair_of_texts(payload)
        if pair is None:
            old, at = self._old(payload)
            if payload[at] != _NEW:
                raise MalformedError("an Update message has no new row")
            new, end, unchanged = self._values(payload, at + 1)
            if end != len(payload):
                raise MalformedError("an Update message has another length")
            for position in unchanged:
                new[position] = old[position]
        else:
            old, new = pair
        # Most columns of an UPDATE stay as they were: those are converted once.
        for position, convert in self._converters:
            before, after = old[position], new[position]
            if before is not NULL:
                old[position] = converted = convert(before)
                if before == after and after is not NULL:
                    new[position] = converted
                    continue
            if after is not NULL:
                new[position] = convert(after)
        return self._updated, new, old

    def _update_by_key(self, payload: bytes) -> Row:
        """Without an old row the identity's columns did not change: they are the new row's."""
        old: RowValues | None = None
        at = 5
        if payload[5] != _NEW:
            old, at = self._old(payload)
        if payload[at] != _NEW:
            raise MalformedError("an Update message has no new row")
        new, end, unchanged = self._values(payload, at + 1)
        if end != len(payload):
            raise MalformedError("an Update message has another length")
        self._convert(new)
        if old is not None:
            self._convert(old)
        if unchanged:
            return self._without(unchanged, new, old)
        source = new if old is None else old
        return self._updated_by_key, new, [source[i] for i in self._identity]

    def delete(self, payload: bytes) -> Row:
        """A Delete message's row."""
        old = self._texts(payload) if payload[5] == _OLD else None
        if old is None:
            old, end = self._old(payload)
            if end != len(payload):
                raise MalformedError("a Delete message has another length")
        self._convert(old)
        if payload[5] == _OLD:
            return self._deleted, [], old
        return self._deleted_by_key, [], [old[i] for i in self._identity]

    def _old(self, payload: bytes) -> tuple[RowValues, int]:
        if payload[5] not in (_KEY, _OLD):
            raise MalformedError("an old row is neither a key nor whole")
        old, end, unchanged = self._values(payload, 6)
        if unchanged:
            raise MalformedError("an old row lacks a value")
        return old, end

    def _texts(self, payload: bytes) -> RowValues | None:
        """The texts of a message with one row without nulls, long values and unchanged ones: the usual case, in fewer steps.

        None for any other message, also for one that is not built as it should be.
        """
        if not self._is_plain or len(payload) > _MAX_SPLIT or payload[6:8] != self._count:
            return None
        parts = payload[8:].split(_TEXT)
        if len(parts) != self._width + 1 or parts[0] or not _is_whole(parts[-1]):
            return None
        return list(map(_AFTER_LENGTH, parts))[1:]

    def _pair_of_texts(self, payload: bytes) -> tuple[RowValues, RowValues] | None:
        """The same for a message with an old and a new row."""
        if not self._is_plain or len(payload) > _MAX_SPLIT or payload[6:8] != self._count:
            return None
        width = self._width
        parts = payload[8:].split(_TEXT)
        if len(parts) != 2 * width + 1 or parts[0] or not _is_whole(parts[-1]):
            return None
        last_of_old = parts[width]
        if last_of_old[-3:] != self._new_follows:
            return None
        parts[width] = last_of_old[:-3]
        values = list(map(_AFTER_LENGTH, parts))
        return values[1 : width + 1], values[width + 1 :]

    def _values(self, payload: bytes, at: int) -> tuple[RowValues, int, tuple[int, ...]]:
        """A TupleData's texts, NULL itself for nulls and what is missing; its end; and the positions of what is missing."""
        if payload[at : at + 2] != self._count:
            raise MalformedError("a row has more or fewer values than its table has columns")
        at += 2
        values: RowValues = []
        append, length_of = values.append, _LENGTHS.get
        unchanged: tuple[int, ...] = ()
        self._is_plain = True
        for _ in range(self._width):
            start = at + 5
            length = length_of(payload[at:start])
            if length is None:
                kind = payload[at]
                if kind != _IS_TEXT:
                    self._is_plain = False
                    if kind == _IS_UNCHANGED:
                        unchanged += (len(values),)
                    elif kind != _IS_NULL:
                        raise MalformedError("a value of unknown kind")
                    append(NULL)
                    at += 1
                    continue
                length = int.from_bytes(payload[at + 1 : start], "big")
            at = start + length
            append(payload[start:at])
        return values, at, unchanged

    def _convert(self, values: RowValues) -> None:
        for position, convert in self._converters:
            raw = values[position]
            if raw is not NULL:
                values[position] = convert(raw)

    def _without(self, unchanged: tuple[int, ...], new: RowValues, old: RowValues | None) -> Row:
        """A row whose new image lacks TOASTed values that did not change, and whose old one doesn't hold them."""
        missing = unchanged if old is None else ()
        shape = self._shape("UPDATE", self._identity_names(missing), unchanged)
        source = new if old is None else old
        kept = [value for i, value in enumerate(new) if i not in unchanged]
        return shape, kept, [source[i] for i in self._identity if i not in missing]

    def _identity_names(self, missing: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.relation.names[i] for i in self._identity if i not in missing)

    def _shape(self, action: Action, old: tuple[str, ...] | None, unchanged: tuple[int, ...] = ()) -> Shape:
        names = self.relation.names
        absent = tuple(names[i] for i in unchanged)
        new = () if action == "DELETE" else tuple(name for name in names if name not in absent)
        known = {column for column, _, _ in self.info.columns} if self.info else set(names)
        is_whole = bool(old) and (old is names or set(old or ()) >= {*names, *known})
        key = self.key
        if not key and old and not is_whole:
            key = old
        shape = Shape(action, *self.root, self.partition, new, old or (), is_whole, key, absent)
        return self._shapes.one(shape._replace(nested=self._nested))


def _is_whole(part: bytes) -> bool:
    """Whether a last value is as long as it says; nothing else can be cut off."""
    return not part or (len(part) > 1 and len(part) - 2 == part[0] << 8 | part[1])


class Shapes:
    """One object for equal shapes: what comes after knows a shape by its identity, also when a table is described anew."""

    def __init__(self) -> None:
        self._known: dict[Shape, Shape] = {}

    def one(self, shape: Shape) -> Shape:
        """The object that stands for this shape."""
        if len(self._known) >= _MAX_SHAPES:
            self._known.clear()
        return self._known.setdefault(shape, shape)


def primary_key(relation: Relation, info: TableInfo | None, before: tuple[str, ...]) -> tuple[str, ...]:
    """The primary key's columns, in column order; ``before`` is what they were when the same table was last described.

    Only under the default identity does the message itself tell it. Else the catalog does, as it is now: its names may be newer
    than the message's, then its columns stand at the same places. A table that isn't there any more has the key that it had.
    """
    if relation.replica_identity == "d":
        return tuple(relation.names[i] for i in relation.identity)
    if info is None:
        return before if set(before) <= set(relation.names) else ()
    if set(info.primary_key) <= set(relation.names):
        return tuple(name for name in relation.names if name in info.primary_key)
    if tuple(oid for _, oid, _ in info.columns[: len(relation.types)]) != relation.types:
        return ()
    places = [i for i, (name, _, _) in enumerate(info.columns) if name in info.primary_key]
    return tuple(relation.names[i] for i in places) if max(places) < len(relation.names) else ()
