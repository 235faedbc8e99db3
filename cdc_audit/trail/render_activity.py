"""Sums over the trail as lines for people: columns and a histogram. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc_audit.trail.activity import Nobody, Share
from cdc_audit.trail.render import columns, shown
from cdc_audit.trail.suspicious import Finding

_WIDEST = 40
_LEAST_BAR = 10


def shares(rows: Sequence[Share]) -> Iterator[str]:
    """One line for each table and action, with a heading."""
    cells = [
        (
            f"{row.schema_name}.{row.table_name}",
            row.action,
            f"{row.rows:,}",
            _time(row.first),
            _time(row.last),
        )
        for row in rows
    ]
    yield from _aligned([("table", "action", "rows", "first (UTC)", "last"), *cells], right=2)


def findings(rows: Sequence[Finding]) -> Iterator[str]:
    """One line for each run, with a heading. What a rule does not keep apart is left out."""
    cells = [
        (
            row.rule,
            (row.user if row.user is not None else "-") + (f" from {row.address}" if row.address else ""),
            row.action or "",
            "" if row.table_name is None else f"{row.schema_name}.{row.table_name}",
            f"{row.rows:,}",
            _time(row.first),
            _time(row.last),
        )
        for row in rows
    ]
    heading = ("rule", "user", "action", "table", "rows", "first over (UTC)", "last")
    yield from _aligned([heading, *cells], right=4)


def nobody(rows: Sequence[Nobody]) -> Iterator[str]:
    """One line for each table, action and application, with a heading."""
    cells = [
        (
            f"{row.schema_name}.{row.table_name}",
            row.action,
            f"{row.rows:,}",
            row.application_name or "-",
            row.db_user or "-",
            _time(row.last),
            ", ".join(map(str, row.xids)),
        )
        for row in rows
    ]
    heading = ("table", "action", "rows", "application", "database user", "last (UTC)", "xids")
    yield from _aligned([heading, *cells], right=2)


def histogram(counts: Sequence[tuple[str, int]], unit: str, width: int) -> Iterator[str]:
    """A bar for each hour or day that has rows; the longest is as long as ``width`` allows."""
    length = 10 if unit == "day" else 16
    most = max((count for _, count in counts), default=0)
    digits = len(f"{most:,}")
    room = max(_LEAST_BAR, width - length - digits - 4)
    for moment, count in counts:
        bar = "█" * max(1, round(room * count / most))
        yield f"{moment[:length].replace('T', ' ')}  {count:>{digits},}  {bar}"


def _aligned(rows: Sequence[tuple[str, ...]], *, right: int) -> Iterator[str]:
    safe = [[_cut(shown(cell)) for cell in row] for row in rows]
    widths = [max(columns(row[place]) for row in safe) for place in range(len(rows[0]))]
    for row in safe:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            fill = " " * (width - columns(cell))
            cells.append(fill + cell if place == right else cell + fill)
        yield "  ".join(cells).rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _time(iso: str) -> str:
    return iso[:19].replace("T", " ")
