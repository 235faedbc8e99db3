"""Readings of the trail, recorded where readers can't change them: ``[audit] record_reads``.

Who reads, from where and when is what the server says; a function of the schema's owner writes it, which is the one thing besides
SELECT that a reader may do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import CdcAuditError, NotPermittedError, SettingError
from cdc_audit.postgres import explain, named_sql

_SQL = named_sql("cdc_audit.trail", "sql/reads.sql")


def record_read(
    connection: Connection, schema: str, command: str, filters: Mapping[str, object], row_count: int | None
) -> None:
    """Record, and commit, that ``command`` was asked for this; ``row_count`` None: it isn't known before it is shown.

    Raises what says how to mend it: then nothing of the answer may be shown.
    """
    asked = json.dumps(filters, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
    values = {"command": command, "filters": asked, "row_count": row_count}
    query = sql.SQL(_SQL["record_read"]).format(schema=sql.Identifier(schema))
    try:
        connection.execute(query, values)
    except psycopg.Error as error:
        raise _refusal(error, connection.info.user, schema) from error


def _refusal(error: psycopg.Error, user: str, schema: str) -> CdcAuditError:
    text = "this reading can't be recorded ([audit] record_reads), so nothing is shown"
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return SettingError(
            f"{text}: the audit schema is older than this program", remedy="cdc-audit schema migrate"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        role = user.replace('"', '""')
        return NotPermittedError(
            f"{text}: the role lacks the right",
            remedy=f'grant audit_admin to "{role}"; if it has that: grant execute on function '
            f"{schema}.record_read(text, jsonb, bigint) to audit_admin",
        )
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return SettingError(
            f"{text}: the server takes no writes", remedy="let --dsn name the primary, not a standby"
        )
    known = explain(error, side="audit")
    return type(known)(f"{text}: {known.message}", remedy=known.remedy)
