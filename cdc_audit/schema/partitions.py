"""The monthly partitions of ``audit_logs``. Doesn't remove any: that is retention's work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError
from cdc_audit.postgres import explain, named_sql


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition. The default one has no ``lower`` (inclusive) and ``upper``; ``rows`` is an estimate."""

    name: str
    lower: datetime | None
    upper: datetime | None
    rows: int
    bytes: int


_SQL = named_sql("cdc_audit.schema", "sql/schema.sql")


def ensure_ahead(connection: Connection, schema: str, months_ahead: int = 3) -> list[str]:
    """Make the partitions of this month (UTC) and of ``months_ahead`` after it, where they are missing.

    Returns the months (``2026-11``) that could not have one, because rows of theirs are in the default
    partition already or because its lock was busy; nothing is lost by that. Needs a member of audit_writer or
    audit_owner.
    """
    query = sql.SQL(_SQL["ensure_ahead"]).format(schema=sql.Identifier(schema))
    try:
        return [str(month) for (month,) in connection.execute(query, (months_ahead,)).fetchall()]
    except psycopg.errors.InsufficientPrivilege as error:
        remedy = "let [audit] admin_dsn name a superuser or a member of audit_owner or audit_writer"
        raise NotPermittedError(explain(error, side="audit").message, remedy=remedy) from error
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def partitions(connection: Connection, schema: str) -> list[Partition]:
    """All partitions, oldest first, the default one last; none if there is no schema. Any role may ask."""
    try:
        return [Partition(*row) for row in connection.execute(_SQL["partitions"], (schema,)).fetchall()]
    except psycopg.Error as error:
        raise explain(error, side="audit") from error
