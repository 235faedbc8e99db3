"""How much of the trail is where: what the daemon's own role can see of partitions and ledger."""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, sql

from cdc_audit.postgres import explain, named_sql

_SQL = named_sql("cdc_audit.ops", "sql/tiers.sql")


class Tiers(NamedTuple):
    """Rows and bytes in the audit database (estimated; with indexes) and in archives that were not purged; unix times, 0: none.

    ``due_months`` months with rows in the audit database ended ``hot`` ago.
    """

    hot_rows: int
    hot_bytes: int
    default_rows: int
    oldest_hot_month: float
    due_months: int
    archive_rows: int
    archive_bytes: int
    last_archive: float
    holds: int


async def survey(connection: AsyncConnection, schema: str, hot: int) -> Tiers:
    """Look at them now; ``hot`` in months. Raises our errors."""
    query = sql.SQL(_SQL["survey"]).format(schema=sql.Identifier(schema))
    try:
        row = await (await connection.execute(query, {"schema": schema, "hot": hot})).fetchone()
    except psycopg.Error as error:
        raise explain(error, side="audit") from error
    assert row
    return Tiers(*row)
