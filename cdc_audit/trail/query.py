"""The question behind ``cdc-audit log``: which rows, newest first. How they look is ``trail.render``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError, SettingError, UsageError
from cdc_audit.postgres import explain, named_sql

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_IDENTIFIER = r'(?:"(?P<{0}_quoted>(?:[^"]|"")+)"|(?P<{0}>[^".]+))'
_TABLE = re.compile(rf"(?:{_IDENTIFIER.format('schema')}\.)?{_IDENTIFIER.format('table')}", re.DOTALL)
_BATCH_ROWS = 500


class LogRow(NamedTuple):
    """One row of ``audit_logs``, all its columns in table order; personal values are shown, or ``[erased]``, where they may be.

    ``created_at`` is ISO 8601 in UTC with microseconds; jsonb columns are the text that PostgreSQL prints;
    ``row_hash`` is hexadecimal, as PostgreSQL prints bytea.
    """

    id: int
    created_at: str
    schema_name: str
    table_name: str
    record_id: str | None
    action: str
    old_data: str | None
    new_data: str | None
    changed_fields: list[str] | None
    user_id: str | None
    user_email: str | None
    ip_address: str | None
    user_agent: str | None
    context: str | None
    context_trust: str
    db_user: str | None
    application_name: str | None
    capture: str
    unchanged_toast: list[str] | None
    partition_name: str | None
    xid: int | None
    commit_lsn: str
    seq: int
    row_hash: str


@dataclass(frozen=True, slots=True)
class Filters:
    """What is asked for; None: anything. All that are given must hold.

    ``user`` is a user id or an e-mail address, ``field`` a changed column; ``until`` is exclusive.
    """

    schema_name: str | None = None
    table_name: str | None = None
    record: str | None = None
    user: str | None = None
    action: str | None = None
    field: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    xid: int | None = None
    limit: int = 50


def parse_time(text: str, now: datetime) -> datetime:
    """A moment, in UTC, from what people type: ISO 8601, ``24h``, ``7d`` (ago), ``today``, ``yesterday``.

    Without an offset, times are UTC. A date, ``today`` and ``yesterday`` mean their first moment. ``now`` is
    aware. Raises UsageError for anything else.
    """
    word = text.strip().lower()
    midnight = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    named = {"now": now.astimezone(UTC), "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if word in named:
        return named[word]
    try:
        if ago := _AGO.fullmatch(word):
            return now.astimezone(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"not a time: {text[:40]!r}",
            remedy="say 2026-11-22, 2026-11-22T19:00, 2026-11-22T19:00+01:00, 24h, 7d, or yesterday",
        ) from None


def parse_table(text: str) -> tuple[str | None, str]:
    """Schema (None: any) and table of ``table`` or ``schema.table``; names with a dot are in double quotes.

    Names are taken as they are: nothing is folded to lower case. Raises UsageError for anything else.
    """
    found = _TABLE.fullmatch(text)
    if not found:
        raise UsageError(f"not a table: {text[:80]!r}", remedy='say orders, shop.orders, or shop."a.table"')
    schema, table = (_unquoted(found, part) for part in ("schema", "table"))
    assert table is not None
    return schema, table


def read_log(connection: Connection, schema: str, filters: Filters) -> Iterator[LogRow]:
    """The rows that match, newest first, at most ``filters.limit``. They are fetched as they are consumed.

    Raises NotPermittedError if the role may not read the trail, SettingError if there is none.
    """
    try:
        with connection.transaction(), connection.cursor(name="cdc_audit_log") as cursor:
            may_open = connection.execute(_SQL["may_open"], {"schema": schema}).fetchone() == (True,)
            query, values = compose(schema, filters, opened=may_open)
            connection.execute(_SQL["prefer_indexes"])
            cursor.itersize = _BATCH_ROWS
            cursor.execute(query, values)
            for row in cursor:
                yield LogRow(*row)
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user.replace('"', '""')
        raise NotPermittedError(
            explain(error, side="audit").message,
            remedy=f'grant audit_admin to "{role}"; or give --dsn of a role that has it',
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SettingError(
            f"audit database: there is no trail in schema {schema}",
            remedy="correct [audit] dsn and schema, or: cdc-audit init",
        ) from error
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def compose(schema: str, filters: Filters, *, opened: bool = True) -> tuple[sql.Composed, dict[str, Any]]:
    """The query for these filters, and the values that it binds. ``opened``: with personal values. Pure."""
    values = {
        name: getattr(filters, name) for name in Filters.__slots__ if getattr(filters, name) is not None
    }
    conditions = [sql.SQL(_SQL[name]) for name in values if name != "limit"] or [sql.SQL(_SQL["all"])]
    rows = sql.SQL(_SQL["rows"]).format(
        schema=sql.Identifier(schema), conditions=sql.SQL("\n   and ").join(conditions)
    )
    if opened:
        rows = sql.SQL(_SQL["opened_rows"]).format(schema=sql.Identifier(schema), rows=rows)
    return sql.SQL(_SQL["select"]).format(rows=rows), values


def _unquoted(found: re.Match[str], part: str) -> str | None:
    quoted: str | None = found[f"{part}_quoted"]
    return found[part] if quoted is None else quoted.replace('""', '"')


_SQL = named_sql("cdc_audit.trail", "sql/log.sql")
