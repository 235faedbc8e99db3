"""The whole trail: what the audit database holds, and what its archives do, in one order.

DuckDB finds the rows of an archive that may match; the audit database then decides about them by the same query as about its own
(``query.compose``), and shows their personal values, which never leave it. So an answer does not depend on where a row is.

An archive is opened when the answer reaches it: not if its ids, its month or, by its manifest, its tables and positions are not
asked for, nor if the page is full before. Of an opened one, row groups are skipped by statistics and Bloom filters.

Rows are read as they are, here as there: that they are what was written is what ``verify`` and ``archive verify`` say.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson
from psycopg import Connection

from cdc_audit.model.lsn import parse_lsn
from cdc_audit.postgres import named_sql
from cdc_audit.seal.manifest import Manifest
from cdc_audit.trail.archive_files import PROTOCOL, engine, require_duckdb
from cdc_audit.trail.archive_store import Store
from cdc_audit.trail.archived import Archived, archived, manifest_of, stay
from cdc_audit.trail.query import Filters, LogRow, compose, given, read_log, reading
from cdc_audit.trail.report import Counted

_SQL = named_sql("cdc_audit.trail", "sql/tiers.sql")
_BATCH_ROWS = 1_000
_COLUMNS = LogRow._fields
_IMAGES = {"before": "old_data", "after": "new_data"}
_JSONB = {"old_data", "new_data", "context"}
_LEFT_TO_THE_DATABASE = {
    "ip",
    "text",
    "before",
    "after",
}  # may be of personal values, or are PostgreSQL's own
_PAGE = {"limit", "oldest_first"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[int, ...]


@contextmanager
def all_tiers(connection: Connection, schema: str, store: Store) -> Iterator[Tiers]:
    """What reads and counts rows of all tiers. While it is open no month changes its tier.

    Raises as ``query.reading`` and the store do; CheckFailedError if an archive is not here or not the one that the ledger names;
    SettingError where DuckDB isn't installed.
    """
    require_duckdb()
    sizes: dict[str, int] = {}
    with reading(connection, schema) as may_open, engine(store, sizes) as duckdb:
        stay(connection, schema)
        months = [one for one in archived(connection, schema) if not one.purged]
        yield Tiers(connection, schema, store, duckdb, sizes, months, may_open)


@dataclass(slots=True)
class Tiers:
    """Made by ``all_tiers``; its methods raise as that does."""

    connection: Connection
    schema: str
    store: Store
    duckdb: Any
    sizes: dict[str, int]
    months: Sequence[Archived]
    may_open: bool
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    def read(self, filters: Filters) -> Iterator[LogRow]:
        """The rows that match, at most ``filters.limit``, in the order that is asked for, as ``query.read_log`` gives them."""
        due = [
            (_first_key(one, filters), self._rows(one, filters))
            for one in self.months
            if _may_hold(one, filters)
        ]
        with closing(read_log(self.connection, self.schema, filters)) as hot:
            streams = [((), hot), *due]
            yield from islice(_merged(streams, filters), filters.limit)

    def counted(self, since: datetime, until: datetime) -> list[Counted]:
        """The rows in archives committed from ``since`` to before ``until``, by archive and what a report tells apart."""
        filters = Filters(since=since, until=until)
        found: list[Counted] = []
        for manifest in [self._manifest(one) for one in self.months if _may_hold(one, filters)]:
            if _has(manifest, filters):
                conditions, values = _conditions(filters, opened=False)
                query = _SQL["counted"].format(conditions=" and ".join(conditions))
                values["file"] = f"{PROTOCOL}://{manifest.rows_file.name}"
                with self.duckdb.cursor() as cursor:
                    found += map(Counted._make, cursor.execute(query, values).fetchall())
        return found

    def _rows(self, one: Archived, filters: Filters) -> Iterator[LogRow]:
        """The rows of an archive that match, in order."""
        manifest = self._manifest(one)
        if not _has(manifest, filters):
            return
        conditions, values = _conditions(filters, opened=self.may_open)
        query = _SQL["archived"].format(
            conditions=" and ".join(conditions) or "true",
            order=_SQL["oldest_first" if filters.oldest_first else "newest_first"],
            limit=filters.limit if _is_exact(filters, opened=self.may_open) and filters.limit else "all",
        )
        name = f"{PROTOCOL}://{manifest.rows_file.name}"
        with self.duckdb.cursor() as cursor:
            cursor.execute(query, {**values, "file": name})
            while found := cursor.fetchmany(_BATCH_ROWS):
                yield from self._decided(found, filters)

    def _decided(self, found: list[tuple[Any, ...]], filters: Filters) -> list[LogRow]:
        """Those that match, as the database shows them."""
        query, values = compose(self.schema, filters, opened=self.may_open, archived=True)
        values["archived"] = f"[{','.join(map(_document, found))}]"
        return list(map(LogRow._make, self.connection.execute(query, values, prepare=False)))

    def _manifest(self, one: Archived) -> Manifest:
        if one.manifest not in self._manifests:
            known = self._manifests[one.manifest] = manifest_of(self.store, one)
            self.sizes[known.rows_file.name] = known.rows_file.bytes
        return self._manifests[one.manifest]


def _merged(streams: list[tuple[Key, Iterator[LogRow]]], filters: Filters) -> Iterator[LogRow]:
    """The rows of ordered streams, in order. A stream has nothing before its key, and is not begun before that is reached."""
    heap: list[tuple[Key, int, LogRow | None, Iterator[LogRow]]] = [
        (key, number, None, stream) for number, (key, stream) in enumerate(streams)
    ]
    heapq.heapify(heap)
    while heap:
        _, number, row, stream = heap[0]
        if row is not None:
            yield row
        following = next(stream, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (_key(following, filters), number, following, stream))


def _key(row: LogRow, filters: Filters) -> Key:
    if filters.oldest_first:
        return (row.id,)
    return (-_microseconds(datetime.fromisoformat(row.created_at)), -row.id)


def _first_key(one: Archived, filters: Filters) -> Key:
    """No row of an archive comes before this."""
    return (one.ids[0][0],) if filters.oldest_first else (-_microseconds(one.span[1]),)


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _may_hold(one: Archived, filters: Filters) -> bool:
    """Whether rows that match can be in an archive, by what the ledger says of it."""
    return (
        one.overlaps(filters.since, filters.until)
        and (filters.before_at is None or filters.before_at >= one.span[0])
        and (filters.above_id is None or filters.above_id < one.ids[-1][1])
        and (filters.up_to_id is None or filters.up_to_id >= one.ids[0][0])
        and (filters.id is None or any(first <= filters.id <= last for first, last in one.ids))
    )


def _has(manifest: Manifest, filters: Filters) -> bool:
    """The same by its manifest."""
    table, schema = filters.table_name, filters.schema_name
    named = [
        name
        for name in manifest.tables
        if (table is None or name.endswith(f".{table}")) and (schema is None or name.startswith(f"{schema}."))
    ]
    at = filters.commit_lsn and parse_lsn(filters.commit_lsn)
    return (
        bool(named)
        and (not at or parse_lsn(manifest.start_lsn) <= at <= parse_lsn(manifest.end_lsn))
        and manifest.overlaps(filters.since, filters.until)
    )


def _conditions(filters: Filters, *, opened: bool) -> tuple[list[str], dict[str, Any]]:
    """What DuckDB can tell of a row: whoever does not meet it does not match. And the values that are bound."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given(filters):
        if name in _IMAGES:
            for number, (column, _) in enumerate(value):
                bound = f"{name}_{number}"
                conditions.append(_SQL["has_column"].format(part=_IMAGES[name], bound=bound))
                values[bound] = f"{json.dumps(column, ensure_ascii=False)}: "
        elif name not in _PAGE | _LEFT_TO_THE_DATABASE and not (name == "email" and opened):
            conditions.append(_SQL[name])
            values[name] = value
            if name == "action":
                values["capitals"] = value.upper()
            if name == "before_id":
                values["before_at"] = filters.before_at
    used = " ".join(conditions)
    return conditions, {name: value for name, value in values.items() if f"${name}" in used}


def _is_exact(filters: Filters, *, opened: bool) -> bool:
    """Whether whoever meets the conditions matches."""
    names = {name for name, _ in given(filters)}
    return not names & _LEFT_TO_THE_DATABASE and not (opened and "email" in names)


def _document(row: tuple[Any, ...]) -> str:
    """A row as DuckDB gives it, as the JSON object of which PostgreSQL makes it."""
    values = {
        name: orjson.Fragment(value) if name in _JSONB and value is not None else value
        for name, value in zip(_COLUMNS, row, strict=True)
    }
    return orjson.dumps(values).decode()
