"""The monthly partitions of ``audit_logs``, the look-up indexes of those that are over, the digests of those that are not. Doesn't
remove partitions: that is retention's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import AsyncConnection, Connection, sql

from cdc_audit.errors import CdcAuditError, NotPermittedError, UnavailableError
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
    except psycopg.Error as error:
        raise _refused(error) from error


def partitions(connection: Connection, schema: str) -> list[Partition]:
    """All partitions, oldest first, the default one last; none if there is no schema. Any role may ask."""
    try:
        return [Partition(*row) for row in connection.execute(_SQL["partitions"], (schema,)).fetchall()]
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def missing_indexes(connection: Connection, schema: str) -> list[str]:
    """The look-up indexes that months lack although they are over, in the order in which they are built."""
    query = sql.SQL(_SQL["missing_indexes"]).format(schema=sql.Identifier(schema))
    try:
        return [str(name) for (name,) in connection.execute(query).fetchall()]
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def build_indexes(connection: Connection, schema: str) -> Iterator[str]:
    """Build them, one after the other; each name when it is there. It ends when none is missing, or when another session is at it.

    Can be stopped and repeated at any time. Needs an autocommit connection of a member of audit_writer or audit_owner. Raises
    UnavailableError if somebody writes to such a month for longer than 3 s.
    """
    query = sql.SQL(_SQL["build_index"]).format(schema=sql.Identifier(schema))
    try:
        connection.execute(_SQL["unhurried"])
        while (row := connection.execute(query).fetchone()) and row[0] is not None:
            yield str(row[0])
    except psycopg.Error as error:
        raise _refused(error) from error


async def build_index(connection: AsyncConnection, schema: str) -> str | None:
    """The same for the next one alone; None: none is missing. If it is cancelled, so is the building."""
    query = sql.SQL(_SQL["build_index"]).format(schema=sql.Identifier(schema))
    try:
        await connection.execute(_SQL["unhurried"])
        row = await (await connection.execute(query)).fetchone()
    except psycopg.Error as error:
        raise _refused(error) from error
    return None if row is None or row[0] is None else str(row[0])


def digest_rows(connection: Connection, schema: str) -> Iterator[int]:
    """Digest the rows of months that are not over, in steps; after each the first id that was not. Else as ``build_indexes``."""
    query = sql.SQL(_SQL["digest_rows"]).format(schema=sql.Identifier(schema))
    try:
        connection.execute(_SQL["unhurried"])
        while (row := connection.execute(query).fetchone()) and row[0] is not None:
            yield int(row[0])
    except psycopg.Error as error:
        raise _refused(error) from error


async def digest_some_rows(connection: AsyncConnection, schema: str) -> bool:
    """One such step; whether there was anything to digest."""
    query = sql.SQL(_SQL["digest_rows"]).format(schema=sql.Identifier(schema))
    try:
        await connection.execute(_SQL["unhurried"])
        row = await (await connection.execute(query)).fetchone()
    except psycopg.Error as error:
        raise _refused(error) from error
    return row is not None and row[0] is not None


def _refused(error: psycopg.Error) -> CdcAuditError:
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return UnavailableError(
            "audit database: a month that is over is being written to; its indexes can wait"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        remedy = "let [audit] admin_dsn name a superuser or a member of audit_owner or audit_writer"
        return NotPermittedError(explain(error, side="audit").message, remedy=remedy)
    return explain(error, side="audit")
