"""Look-ups of types and tables for the decoder, over the daemon's SQL connection: what is there now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import class_row

from cdc_audit.model.catalog import TableInfo, TypeInfo, TypeKind
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import explained
from cdc_audit.source.tables import SQL as TABLES_SQL
from cdc_audit.source.tables import TableRow, in_scope, without_identity

_SQL = named_sql("cdc_audit.source", "sql/catalog.sql")


class _TypeRow(NamedTuple):
    oid: int
    domain_of: int | None
    element: int
    delimiter: str
    is_composite: bool
    field_names: list[str]
    field_types: list[int]


class _TableRow(NamedTuple):
    schema: str
    table: str
    root_schema: str
    root_table: str
    kind: str
    column_names: list[str]
    column_types: list[int]
    column_not_nulls: list[bool]
    primary_key: list[str]


async def look_up(
    connection: AsyncConnection, type_oids: frozenset[int], tables: frozenset[tuple[str, str]]
) -> tuple[dict[int, TypeInfo | None], dict[tuple[str, str], TableInfo | None]]:
    """Types with all that they are made of, and tables by (schema, table); None for what isn't there."""
    with explained():
        types = await _types(connection, type_oids) if type_oids else {}
        return types, await _tables(connection, tables) if tables else {}


async def tables_without_identity(
    connection: AsyncConnection, include: Sequence[str], exclude: Sequence[str] = ()
) -> int:
    """How many tables in scope give no rows for UPDATE and DELETE; the rule of ``source.tables``."""
    with explained():
        async with connection.cursor(row_factory=class_row(TableRow)) as cursor:
            rows = await (await cursor.execute(TABLES_SQL["tables"])).fetchall()
    return len(without_identity(in_scope(rows, include, exclude)))


async def _types(connection: AsyncConnection, oids: Iterable[int]) -> dict[int, TypeInfo | None]:
    async with connection.cursor(row_factory=class_row(_TypeRow)) as cursor:
        found = await (await cursor.execute(_SQL["types"], {"oids": list(oids)})).fetchall()
    rows = {row.oid: row for row in found}
    return {**dict.fromkeys(oids), **{oid: _type_info(row, rows) for oid, row in rows.items()}}


def _type_info(row: _TypeRow, rows: Mapping[int, _TypeRow]) -> TypeInfo:
    base = row
    while base.domain_of is not None:
        base = rows[base.domain_of]
    kind = TypeKind.ARRAY if base.element else TypeKind.COMPOSITE if base.is_composite else TypeKind.SCALAR
    fields = tuple(zip(base.field_names, base.field_types, strict=True))
    return TypeInfo(row.oid, kind, base.oid, base.element, fields, base.delimiter, row is not base)


async def _tables(
    connection: AsyncConnection, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], TableInfo | None]:
    wanted = list(names)
    given = {"schemas": [schema for schema, _ in wanted], "tables": [table for _, table in wanted]}
    async with connection.cursor(row_factory=class_row(_TableRow)) as cursor:
        found = await (await cursor.execute(_SQL["tables"], given)).fetchall()
    return {**dict.fromkeys(wanted), **{(row.schema, row.table): _table_info(row) for row in found}}


def _table_info(row: _TableRow) -> TableInfo:
    columns = tuple(zip(row.column_names, row.column_types, row.column_not_nulls, strict=True))
    return TableInfo(
        row.schema, row.table, (row.root_schema, row.root_table), row.kind, columns, tuple(row.primary_key)
    )
