"""Sums over the trail: what a user did, and what nobody is named for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg import Connection, sql

from cdc_audit.postgres import named_sql
from cdc_audit.trail.query import Filters, reading, where

_SQL = named_sql("cdc_audit.trail", "sql/activity.sql")


class Share(NamedTuple):
    """A user's rows of one table and action; times are ISO 8601 in UTC, to the second."""

    schema_name: str
    table_name: str
    action: str
    rows: int
    first: str
    last: str


class Nobody(NamedTuple):
    """Rows of one table and action for which nobody is named; ``xids``: the newest three of their transactions."""

    schema_name: str
    table_name: str
    action: str
    db_user: str | None
    application_name: str | None
    rows: int
    first: str
    last: str
    xids: list[int]


class Arrived(NamedTuple):
    """What a row says of who wrote it."""

    user_id: str | None
    context_trust: str
    db_user: str | None
    application_name: str | None


def shares(connection: Connection, schema: str, filters: Filters) -> list[Share]:
    """The rows that match, summed by table and action, most first. Raises as ``query.reading`` does."""
    return [Share(*row) for row in _asked(connection, schema, "who", filters, {})]


def by_time(connection: Connection, schema: str, filters: Filters, unit: str) -> list[tuple[str, int]]:
    """The rows that match, summed by ``unit`` ("hour" or "day", in UTC); units without rows aren't there."""
    rows = _asked(connection, schema, "who_when", filters, {"unit": unit})
    return [(moment, count) for moment, count in rows]


def nobody(connection: Connection, schema: str, filters: Filters) -> list[Nobody]:
    """The rows of which nobody said who acted, summed by table, action, database user and application, most first.

    Database user and application are known only of what came through the signing functions, or the sessions' triggers.
    """
    return [Nobody(*row) for row in _asked(connection, schema, "nobody", filters, {})]


def arrived(connection: Connection, schema: str, filters: Filters) -> Arrived | None:
    """What one of the rows that match says of who wrote it; None: there is none."""
    rows = _asked(connection, schema, "arrived", filters, {})
    return Arrived(*rows[0]) if rows else None


def _asked(
    connection: Connection, schema: str, name: str, filters: Filters, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    with reading(connection, schema) as may_open:
        conditions, bound = where(schema, filters, opened=may_open)
        query = sql.SQL(_SQL[name]).format(
            schema=sql.Identifier(schema), conditions=conditions, iso=sql.SQL(_SQL["iso"])
        )
        return connection.execute(query, {**bound, **values}).fetchall()
