"""The source's tables as of one WAL position, read by COPY.

A temporary slot's creation gives both: a position, and an exported snapshot that shows exactly the transactions whose commit
record ends at or before it (PostgreSQL manual, "Replication Slots": Exported Snapshots). No other way does: the order in which
transactions become visible to SQL is not that of their commit records, so a position read beside an ordinary snapshot is a guess.
The slot is gone as soon as a transaction has adopted the snapshot; the WAL from there on is kept by the daemon's own slot, which
is older. So a snapshot for a new slot and one for a slot at work are the same thing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from cdc_audit import failpoint
from cdc_audit.decode.copied import CopiedRows
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.sent_values import unknown_types
from cdc_audit.errors import NotPermittedError, UnavailableError
from cdc_audit.model.catalog import TableInfo, TypeInfo
from cdc_audit.model.event import Row
from cdc_audit.postgres import conninfo, named_sql
from cdc_audit.source import catalog
from cdc_audit.source.plugin import explained
from cdc_audit.source.stream import OPTIONS, Stream
from cdc_audit.source.tables import SQL as TABLES_SQL
from cdc_audit.source.tables import TableRow, in_scope

_SQL = named_sql("cdc_audit.source", "sql/snapshot.sql")
_BATCH_BYTES = 65_536
_SHOWN = 5


class Table(NamedTuple):
    """A table that can be read. ``estimate`` is how many rows the server thinks it has, 0 if it doesn't know."""

    info: TableInfo
    estimate: int

    @property
    def name(self) -> str:
        """``schema.table``, as patterns write it; of a partition its own."""
        return f"{self.info.schema}.{self.info.table}"


class _Readable(NamedTuple):
    may_read: bool
    hides_rows: bool
    estimate: int


class Snapshot:
    """One transaction on the source. ``taken_at`` is the source's clock as PostgreSQL prints it in UTC. ``tables`` are those that
    hold rows: of a partitioned table its partitions.
    """

    def __init__(self, connection: AsyncConnection, lsn: int, encoding: str) -> None:
        self._connection = connection
        self._encoding = encoding
        self._types: dict[int, TypeInfo | None] = {}
        self.lsn = lsn
        self.taken_at = ""
        self.tables: list[Table] = []

    @classmethod
    async def take(
        cls,
        dsn: str,
        *,
        encoding: str,
        tables: Sequence[str],
        exclude: Sequence[str],
        only: Sequence[str],
        done: frozenset[str],
        application_name: str,
    ) -> Snapshot:
        """Take it, and hold the tables that match ``tables``, not ``exclude``, and ``only``; without those in ``done``.

        Waits for the transactions open at that moment to end. From here to ``close`` the tables can't be truncated, altered or
        dropped. Raises NotPermittedError where the role may not read all rows of all of them, UnavailableError where somebody
        else locks, drops or rewrites one.
        """
        stream = await Stream.open(
            dsn, application_name=application_name, slot="a temporary one", plugin="pgoutput"
        )
        try:
            exported = await stream.export_snapshot()
            with explained():
                text = conninfo(dsn, application_name=application_name, settings=OPTIONS)
                connection = await AsyncConnection.connect(text, autocommit=True)
            snapshot = cls(connection, exported.lsn, encoding)
            try:
                with explained():
                    await snapshot._adopt(exported.name)
                    await stream.close()
                    failpoint.reached("snapshot-adopted")
                    await snapshot._find(tables, exclude, only, done)
            except BaseException:
                await connection.close()
                raise
        finally:
            await stream.close()
        return snapshot

    async def close(self) -> None:
        """End the transaction: the tables are free again."""
        await self._connection.close()

    async def rows(self, table: Table) -> AsyncGenerator[list[Row]]:
        """All rows of a table, some at a time. Raises UnavailableError, StreamError."""
        reader = CopiedRows(table.info, self._types, self._encoding)
        statement = sql.SQL(_SQL["copy"]).format(
            columns=sql.SQL(", ").join(sql.Identifier(name) for name, _, _ in table.info.columns),
            table=_identifier(table.info),
        )
        text = statement.as_string().encode(self._encoding)
        rows: list[Row] = []
        size = 0
        with explained():
            async with self._connection.cursor().copy(text) as copy:
                async for line in copy:
                    rows.append(reader.row(bytes(line)[:-1]))
                    size += len(line)
                    if size >= _BATCH_BYTES:
                        yield rows
                        rows, size = [], 0
        if rows:
            yield rows

    async def _adopt(self, name: str) -> None:
        await self._connection.execute(_SQL["settings"])
        await self._connection.execute(_SQL["begin"])
        await self._connection.execute(sql.SQL(_SQL["adopt"]).format(snapshot=sql.Literal(name)))
        row = await (await self._connection.execute(_SQL["taken_at"])).fetchone()
        assert row is not None
        self.taken_at = str(row[0])

    async def _find(
        self, include: Sequence[str], exclude: Sequence[str], only: Sequence[str], done: frozenset[str]
    ) -> None:
        """Fill ``tables``, and lock them."""
        async with self._connection.cursor(row_factory=class_row(TableRow)) as cursor:
            states = in_scope(await (await cursor.execute(TABLES_SQL["tables"])).fetchall(), include, exclude)
        chosen = Scope(only)
        names = [
            (state.schema, state.table)
            for state in states
            if state.kind == "table"
            and state.persistence == "permanent"
            and chosen.covers((state.schema, state.table), *((state.root,) if state.root else ()))
            and state.name not in done
        ]
        given = {"schemas": [schema for schema, _ in names], "tables": [table for _, table in names]}
        async with self._connection.cursor(row_factory=class_row(_Readable)) as cursor:
            readable = await (await cursor.execute(_SQL["readable"], given)).fetchall()
        _check_readable(names, readable, self._connection.info.user)
        for name in names:
            await self._lock(name)
        await self._check_files(given)
        _, infos = await catalog.look_up(self._connection, frozenset(), frozenset(names))
        found = [(infos[name], one.estimate) for name, one in zip(names, readable, strict=True)]
        self.tables = [Table(info, estimate) for info, estimate in found if info is not None]
        missing = unknown_types((oid for table in self.tables for _, oid, _ in table.info.columns), {})
        self._types, _ = await catalog.look_up(self._connection, missing, frozenset())
        await self._connection.execute(_SQL["server_encoding_only"])

    async def _lock(self, name: tuple[str, str]) -> None:
        try:
            await self._connection.execute(sql.SQL(_SQL["lock"]).format(table=sql.Identifier(*name)))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable) as error:
            what = "locked by others for 5 s" if error.sqlstate == "55P03" else "dropped just now"
            raise UnavailableError(
                f"source database: table {'.'.join(name)} was {what}", remedy="repeat the command"
            ) from error

    async def _check_files(self, given: dict[str, list[str]]) -> None:
        """Raises UnavailableError if a table's rows went between the snapshot and the lock."""
        found: list[tuple[Any, ...]] = await (
            await self._connection.execute(_SQL["rewritten"], given)
        ).fetchall()
        if found:
            raise UnavailableError(
                f"source database: tables were truncated or rewritten just now: {_some([row[0] for row in found])}",
                remedy="repeat the command",
            )


def _check_readable(names: Sequence[tuple[str, str]], found: Sequence[_Readable], role: str) -> None:
    pairs = list(zip(names, found, strict=True))
    user = sql.Identifier(role).as_string()
    closed = [name for name, one in pairs if not one.may_read]
    if closed:
        schemas = ", ".join(sorted({sql.Identifier(schema).as_string() for schema, _ in closed}))
        tables = ", ".join(sql.Identifier(*name).as_string() for name in closed)
        raise NotPermittedError(
            f'source database: role "{role}" may not read {_some([".".join(name) for name in closed])}',
            remedy=f"grant usage on schema {schemas} to {user}; grant select on {tables} to {user};",
        )
    hidden = [".".join(name) for name, one in pairs if one.hides_rows]
    if hidden:
        raise NotPermittedError(
            f'source database: row-level security hides rows of {_some(hidden)} from role "{role}"',
            remedy=f"alter role {user} bypassrls;",
        )


def _identifier(info: TableInfo) -> sql.Identifier:
    return sql.Identifier(info.schema, info.table)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
