"""``cdc-audit as-of``: a table as it was at a time, from the images of its rows.

Of a record that has rows up to that time the last one tells. Of one that was there before the trail began, the first row after that
time does, by its old image: nothing happened to it in between. So the trail has to begin before that time, and what it lacks (gaps,
rows without images, records never touched since) is said. Behind a snapshot's rows, by id, changes from before it may stand: of
those ``commit_lsn`` tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from psycopg import Connection, sql

from cdc_audit.errors import UsageError
from cdc_audit.model.lsn import parse_lsn
from cdc_audit.postgres import named_sql
from cdc_audit.trail.archived import archived
from cdc_audit.trail.history import history
from cdc_audit.trail.image import Image, Keys, members
from cdc_audit.trail.query import Filters, LogRow, Reader, reading

_SQL = named_sql("cdc_audit.trail", "sql/as_of.sql")
_SAMPLE = 200


@dataclass(slots=True)
class State:
    """Images by ``record_id`` as of a time, and what isn't known about them, as sentences."""

    rows: dict[str, Image] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class Reach(NamedTuple):
    """When a trail begins (None: there is nothing), and a sentence for each thing that its ledger says is missing."""

    begun: datetime | None
    holes: list[str]


def as_of(
    read: Reader, reach: Reach, table: tuple[str | None, str], at: datetime, record: str | None = None
) -> State:
    """The table, or one record of it. Raises UsageError if the trail begins later, and as ``read`` does."""
    begun, holes = reach
    if begun is None or at < begun:
        when = "nowhere" if begun is None else f"at {begun.astimezone(UTC).isoformat()}"
        raise UsageError(
            f"the trail does not reach back so far: it begins {when}", remedy="give a later --at"
        )
    every = Filters(schema_name=table[0], table_name=table[1], limit=None, oldest_first=True)
    newest = Filters(schema_name=table[0], table_name=table[1], limit=_SAMPLE)
    keys = Keys(read(newest))
    if record is None:
        rows: Iterable[LogRow] = read(every)
    else:
        life = [*history(read, table, record), *read(replace(every, action="TRUNCATE"))]
        rows = sorted(life, key=lambda row: row.id)
    tracer = Tracer(keys, at)
    for row in rows:
        tracer.take(row)
    state = tracer.state
    state.doubts += holes
    if record is None and not tracer.is_whole:
        state.doubts.append(
            "rows that were there before the trail began and were not touched since are not in it: cdc-audit snapshot adds them"
        )
    if record is not None and record in state.rows:
        state.rows = {record: state.rows[record]}
    return state


class Tracer:
    """Takes a table's rows in the order of the trail and keeps the state at one time. Pure."""

    def __init__(self, keys: Keys, at: datetime) -> None:
        self._keys = keys
        self._at = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        self._settled: set[str] = (
            set()
        )  # records whose state at that time is known, if only that they weren't there
        self._assumed: dict[str, int] = {}  # records known only from a snapshot's later row -> its position
        self._emptied = False  # whether all records not settled weren't there
        self._schema: str | None = None
        self.is_whole = False  # whether every record of that time must have been seen
        self.state = State()

    def take(self, row: LogRow) -> None:
        """The next row. Raises UsageError if it is of a table of the same name in another schema."""
        if row.action not in {"INSERT", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"}:
            return
        if self._schema not in {None, row.schema_name}:
            raise UsageError("more than one schema has such a table", remedy="say SCHEMA.TABLE")
        self._schema = row.schema_name
        is_before = row.created_at <= self._at
        if row.action == "TRUNCATE":
            if is_before:
                self.state.rows.clear()
                self._emptied = self.is_whole = True
            elif not self._emptied:
                self._doubt(row, "the table was emptied; what was in it and not touched before isn't known")
                self._emptied = True
        elif row.capture == "suppressed":
            self._doubt(row, f"{row.action} without images, of a record that isn't known")
        elif row.record_id is None:
            self._doubt(row, f"{row.action} of a record without a key")
        elif is_before:
            self._apply(row, row.record_id)
        else:
            self._look_back(row, row.record_id)

    def _apply(self, row: LogRow, record: str) -> None:
        before = self.state.rows.pop(record, None)
        self._settled.add(record)
        if row.action == "DELETE":
            return
        image = members(row.new_data)
        for name in row.unchanged_toast or ():
            if before is not None and name in before:
                image[name] = before[name]
            else:
                self._doubt(row, f"the value of {name!r} was not sent")
        after = self._keys.after(row) if row.action == "UPDATE" else record
        assert after is not None
        self.state.rows[after] = image
        self._settled.add(after)
        self.is_whole = self.is_whole or row.action == "SNAPSHOT"

    def _look_back(self, row: LogRow, record: str) -> None:
        """The first row of a record after that time tells what it was then."""
        after = self._keys.after(row) if row.action == "UPDATE" else record
        self.is_whole = self.is_whole or row.action == "SNAPSHOT"
        if row.action != "SNAPSHOT":
            for key in {record, after or record} & self._assumed.keys():
                if parse_lsn(row.commit_lsn) <= self._assumed.pop(key):  # between that time and the snapshot
                    self._settled.discard(key)
                    self.state.rows.pop(key, None)
        if record not in self._settled and not self._emptied:
            if row.action == "SNAPSHOT":
                self._assumed[record] = parse_lsn(row.commit_lsn)
                self.state.rows[record] = members(row.new_data)
            elif row.action != "INSERT":
                if row.capture == "partial":
                    self._doubt(row, "the trail has no full image of the record before it")
                self.state.rows[record] = members(row.old_data)
        self._settled |= {record, after or record}

    def _doubt(self, row: LogRow, what: str) -> None:
        self.state.doubts.append(f"row {row.id} ({row.created_at}): {what}")


def reach(connection: Connection, schema: str, *, with_archives: bool = False) -> Reach:
    """Of the rows in the audit database, or also of those in archives. Raises as ``query.reading`` does."""
    with reading(connection, schema):
        named = {
            name: sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema)) for name in ("begun", "holes")
        }
        begun = connection.execute(named["begun"]).fetchone()
        holes = connection.execute(named["holes"]).fetchall()
        gone = archived(connection, schema)
    said = [
        (block, f"block {block} ({kind}, {written:%Y-%m-%d %H:%M:%S}): changes are missing")
        for block, kind, written in holes
    ]
    for one in gone:
        if one.purged:
            said.append((one.purged, f"block {one.purged}: changes of {one.name} were purged"))
        elif not with_archives:
            said.append(
                (one.block, f"block {one.block}: changes of {one.name} are in an archive (--tier all)")
            )
    return Reach(begun[0] if begun else None, [text for _, text in sorted(said)])
