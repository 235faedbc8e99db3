"""``cdc-audit report``: what an auditor asks of a time, counted. How it looks is ``trail.render_report``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, sql

from cdc_audit.postgres import named_sql
from cdc_audit.trail.query import reading

_SQL = named_sql("cdc_audit.trail", "sql/report.sql")
_SECTIONS = {
    "actions": ("rows by action", ("action", "context", "capture", "rows")),
    "actors": ("actors", ("user", "database user", "rows", "deletions", "first", "last")),
    "deletions": ("deletions", ("schema", "table", "action", "user", "rows", "first", "last")),
    "unattributed": (
        "changes that nobody can be believed to have made",
        ("schema", "table", "context", "rows", "first id", "last id"),
    ),
    "suppressed": (
        "changes without whole row images",
        ("schema", "table", "action", "capture", "rows", "first id", "last id"),
    ),
    "gaps": ("gaps of the whole trail", ("block", "kind", "from", "to", "written", "detail")),
}
_SCOPE = ("first block", "last block", "blocks", "slot", "system identifier", "from position", "to position")


class Section(NamedTuple):
    """A table of the report: its title, its columns' names, and rows of texts; null is ""."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sections(connection: Connection, schema: str, since: datetime, until: datetime) -> list[Section]:
    """The report's tables on the rows committed from ``since`` to before ``until``.

    Raises as ``query.reading`` does.
    """
    with reading(connection, schema):
        scope = _asked(connection, "scope", schema, since, until)[0]
        found = {name: _asked(connection, name, schema, since, until) for name in _SECTIONS}
    rows = sum(int(row[-1]) for row in found["actions"])
    about = [
        ("since", since.isoformat()),
        ("until", until.isoformat()),
        ("schema", schema),
        ("rows", str(rows)),
        *zip(_SCOPE, scope, strict=True),
    ]
    tables = [Section(title, columns, found[name]) for name, (title, columns) in _SECTIONS.items()]
    return [Section("scope", ("what", "value"), about), *tables]


def _asked(
    connection: Connection, name: str, schema: str, since: datetime, until: datetime
) -> list[tuple[str, ...]]:
    query = sql.SQL(_SQL[name]).format(
        schema=sql.Identifier(schema),
        iso=sql.SQL(_SQL["iso"]),
        since=sql.Literal(since),
        until=sql.Literal(until),
    )
    return [tuple(map(_text, row)) for row in connection.execute(query).fetchall()]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
