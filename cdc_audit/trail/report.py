"""``cdc-audit report``: what an auditor asks of a time, counted. How it looks is ``trail.render_report``.

Rows in archives are counted where they are (``tiers.Tiers.counted``), and here added to those of the database by the same queries.
A month of that time which has left the database and is not counted is named, with its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, sql

from cdc_audit.postgres import named_sql
from cdc_audit.trail.archived import Archived, archived, stay
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
_GONE = "months of this time that have left the database"
_GONE_COLUMNS = ("month", "rows of the month", "here", "retention block", "manifest")


class Section(NamedTuple):
    """A table of the report: its title, its columns' names, and rows of texts; null is ""."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Counted(NamedTuple):
    """So many rows of one kind, which are not in the database; when the first and the last were committed, and their ids."""

    action: str
    context_trust: str
    capture: str
    who: str | None
    db_user: str | None
    schema_name: str
    table_name: str
    times: int
    first_at: str
    last_at: str
    first_id: int
    last_id: int


def sections(
    connection: Connection,
    schema: str,
    since: datetime,
    until: datetime,
    away: Sequence[Counted] | None = None,
) -> list[Section]:
    """The report's tables on the rows committed from ``since`` to before ``until``; with ``away`` on those in archives, too.

    Whoever gives ``away`` keeps months from leaving in between. Raises as ``query.reading`` does.
    """
    with reading(connection, schema):
        stay(connection, schema)
        months = [one for one in archived(connection, schema) if one.overlaps(since, until)]
        ask = _Asking(connection, schema, since, until, away or ())
        scope = ask("scope")[0]
        found = {name: ask(name) for name in _SECTIONS}
    about = [
        ("since", since.isoformat()),
        ("until", until.isoformat()),
        ("schema", schema),
        ("rows", str(sum(int(row[-1]) for row in found["actions"]))),
        *_not_counted(months, away),
        *zip(_SCOPE, scope, strict=True),
    ]
    tables = [Section(title, columns, found[name]) for name, (title, columns) in _SECTIONS.items()]
    return [
        Section("scope", ("what", "value"), about),
        *tables,
        Section(_GONE, _GONE_COLUMNS, [_told(one, away) for one in months]),
    ]


def _not_counted(months: Sequence[Archived], away: Sequence[Counted] | None) -> list[tuple[str, str]]:
    """What the number of rows lacks, as lines of the scope."""
    kept, purged = [one for one in months if not one.purged], [one for one in months if one.purged]
    lacks = []
    for what, some, remedy in (
        ("archived", kept if away is None else [], " (--tier all counts them)"),
        ("purged", purged, ""),
    ):
        if some:
            names = ", ".join(sorted({one.name for one in some}))
            lacks.append(("not counted", f"{sum(one.rows for one in some)} {what} rows of {names}{remedy}"))
    return lacks


def _told(one: Archived, away: Sequence[Counted] | None) -> tuple[str, ...]:
    fate = "archived, counted" if away is not None else "archived, not counted"
    if one.purged:
        fate = f"purged by block {one.purged}, not counted"
    return one.name, str(one.rows), fate, str(one.block), one.manifest and f"{one.archive}/{one.manifest}"


class _Asking:
    """Asks one query after another about the same time."""

    def __init__(
        self, connection: Connection, schema: str, since: datetime, until: datetime, away: Sequence[Counted]
    ) -> None:
        self._connection = connection
        self._names = {
            "schema": sql.Identifier(schema),
            "since": sql.Literal(since),
            "until": sql.Literal(until),
        }
        self._names |= {"iso": sql.SQL(_SQL["iso"]), "rows": sql.SQL(_SQL["rows"]).format(**self._names)}
        self._away = {name: [one[at] for one in away] for at, name in enumerate(Counted._fields)}

    def __call__(self, name: str) -> list[tuple[str, ...]]:
        query = sql.SQL(_SQL[name]).format(**self._names)
        return [tuple(map(_text, row)) for row in self._connection.execute(query, self._away).fetchall()]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
