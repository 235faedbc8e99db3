"""What the ledger says of archives: which rows are in them, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.postgres import explain, named_sql

_SQL = named_sql("cdc_audit.trail", "sql/archive.sql")


class Archived(NamedTuple):
    """One archived month, as its ``retention`` block says; ``ids`` are inclusive ranges, ``hot`` and ``keep`` months."""

    block: int
    at: datetime
    month: date
    rows: int
    ids: list[list[int]]
    manifest: str
    sha256: str
    archive: str
    by: str


def archived(connection: Connection, schema: str) -> list[Archived]:
    """All archives whose rows were taken out, in the order in which that was done. Raises our errors."""
    query = sql.SQL(_SQL["retirements"]).format(schema=sql.Identifier(schema))
    try:
        return list(_parsed(connection.execute(query)))
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def _parsed(rows: psycopg.Cursor) -> Iterator[Archived]:
    for block, at, said in rows:
        yield Archived(
            block, at, date.fromisoformat(f"{said['month']}-01"), said["rows"], said["ids"],
            said["manifest"]["name"], said["manifest"]["sha256"], said["archive"], said["by"],
        )  # fmt: skip


def now(connection: Connection) -> datetime:
    """The audit database's clock."""
    row = connection.execute(_SQL["now"]).fetchone()
    assert row and isinstance(row[0], datetime)
    return row[0]
