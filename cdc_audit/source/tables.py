"""The source's tables: what their WAL tells about a changed row, and how to let it tell all.

Without a usable replica identity the server logs an UPDATE or DELETE without saying which row it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import class_row

from cdc_audit.decode.scope import Scope
from cdc_audit.errors import UnavailableError
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import explained

SQL = named_sql("cdc_audit.source", "sql/tables.sql")


class TableRow(NamedTuple):
    """A row of ``tables`` in sql/tables.sql; ``root`` is None for a table that is no partition."""

    schema: str
    table: str
    kind: Literal["table", "partitioned"]
    persistence: Literal["permanent", "unlogged"]
    root: list[str] | None
    primary_key: list[str]
    replica_identity: Literal["default", "full", "index", "nothing"]
    has_identity: bool


@dataclass(frozen=True, slots=True)
class TableState:
    """One table and what can be captured of it; ``root`` is a partition's topmost parent, else None.

    ``primary_key`` is in column order. ``can_capture_changes``: UPDATE and DELETE name their row;
    ``can_capture_old``: they give all of its old values. ``reason`` says why not the former, else None. A
    partitioned table holds no rows itself: its partitions, each a table of its own here, decide.
    """

    schema: str
    table: str
    kind: Literal["table", "partitioned"]
    persistence: Literal["permanent", "unlogged"]
    primary_key: tuple[str, ...]
    replica_identity: Literal["default", "full", "index", "nothing"]
    can_capture_changes: bool
    can_capture_old: bool
    reason: str | None
    root: tuple[str, str] | None

    @property
    def name(self) -> str:
        """``schema.table``, as patterns write it."""
        return f"{self.schema}.{self.table}"


def tables(connection: Connection, include: Sequence[str], exclude: Sequence[str] = ()) -> list[TableState]:
    """The tables in scope, by name. Patterns are ``schema.table`` with ``*``; a root's takes its partitions.

    Temporary tables, the system's schemas and cdc_audit's own never are.
    """
    with explained(), connection.cursor(row_factory=class_row(TableRow)) as cursor:
        return in_scope(cursor.execute(SQL["tables"]), include, exclude)


def in_scope(rows: Iterable[TableRow], include: Sequence[str], exclude: Sequence[str]) -> list[TableState]:
    """The states of those rows that the patterns select."""
    scope = Scope(include, exclude)
    states = [_state(row) for row in rows]
    return [
        state
        for state in states
        if scope.covers((state.schema, state.table), *((state.root,) if state.root else ()))
    ]


def without_identity(states: Iterable[TableState]) -> list[TableState]:
    """Those whose UPDATE or DELETE can't be captured. Partitioned tables don't count, their partitions do."""
    return [state for state in states if state.kind == "table" and not state.can_capture_changes]


def set_full(connection: Connection, pattern: str) -> list[str]:
    """Give the matching permanent tables REPLICA IDENTITY FULL; returns those that did not have it.

    Each table in a transaction of its own: it needs an exclusive lock, for which others would queue up behind
    us, so it is waited for 5 s at most. Raises UnavailableError that names the table which was busy; what was
    done before stays.
    """
    changed: list[str] = []
    for state in tables(connection, [pattern]):
        if state.replica_identity == "full" or state.persistence != "permanent":
            continue
        statement = sql.SQL(SQL["set_full"]).format(table=sql.Identifier(state.schema, state.table))
        alter(connection, state.name, statement, changed)
        changed.append(state.name)
    return changed


def alter(connection: Connection, name: str, statement: sql.Composed, done: Sequence[str]) -> None:
    """Run a statement that locks a table, waiting 5 s at most; ``done`` is named if that was too short."""
    with explained():
        try:
            with connection.transaction():
                connection.execute(SQL["lock_timeout"])
                connection.execute(statement)
        except psycopg.errors.LockNotAvailable as error:
            before = f"; done before it: {', '.join(done)}" if done else ""
            raise UnavailableError(
                f"source database: table {name} was locked by others for 5 s{before}",
                remedy="repeat the command",
            ) from error


def _state(row: TableRow) -> TableState:
    permanent = row.persistence == "permanent"
    return TableState(
        schema=row.schema,
        table=row.table,
        kind=row.kind,
        persistence=row.persistence,
        primary_key=tuple(row.primary_key),
        replica_identity=row.replica_identity,
        can_capture_changes=permanent and (row.has_identity or row.kind == "partitioned"),
        can_capture_old=permanent and (row.replica_identity == "full" or row.kind == "partitioned"),
        reason=_reason(row),
        root=(row.root[0], row.root[1]) if row.root else None,
    )


def _reason(row: TableRow) -> str | None:
    if row.persistence == "unlogged":
        return "unlogged: nothing of it is in the WAL"
    if row.has_identity or row.kind == "partitioned":
        return None
    if row.replica_identity == "nothing":
        return "REPLICA IDENTITY NOTHING"
    if row.replica_identity == "index":
        return "the index of REPLICA IDENTITY USING INDEX is gone or invalid"
    return "the primary key is deferrable" if row.primary_key else "no primary key"
