"""One row in full, and one record's life, as lines for people. Pure. Nothing in them can move a terminal's cursor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cdc_audit.trail.query import LogRow
from cdc_audit.trail.render import actor, differences, notes, shown, values

_LONGEST = 10_000
_IMAGES = {"old_data", "new_data", "changed_fields"}


def life(rows: Iterable[LogRow], field: str | None = None) -> Iterator[str]:
    """For each row a line that says who, what and when, and a line for each field; with ``field`` only rows that tell of it."""
    for row in rows:
        lines = [line for name, line in _fields(row) if field is None or name == field]
        if field is not None and not lines:
            continue
        said = notes(row)
        parts = [
            row.created_at[:19].replace("T", " "),
            row.action,
            row.record_id if row.record_id is not None else "-",
            f"by {actor(row)}" + (f" ({said})" if said else ""),
            f"#{row.id}",
        ]
        yield "  ".join(shown(part[:_LONGEST]) for part in parts)
        yield from lines


def full(row: LogRow) -> Iterator[str]:
    """Every column that has a value, then the fields."""
    given = [
        (name, value) for name, value in row._asdict().items() if value is not None and name not in _IMAGES
    ]
    width = max(len(name) for name, _ in given)
    for name, value in given:
        text = ", ".join(value) if isinstance(value, list) else str(value)
        yield f"{name:{width}}  {shown(text[:_LONGEST])}"
    yield from (line for _, line in _fields(row))


def _fields(row: LogRow) -> Iterator[tuple[str, str]]:
    if row.action == "UPDATE" and row.changed_fields is not None:
        for name, old, new in differences(row):
            yield name, f"    {shown(name)}: {shown(old[:_LONGEST])} → {shown(new[:_LONGEST])}"
    else:
        for name, value in values(row):
            yield name, f"    {shown(name)}: {shown(value[:_LONGEST])}"
