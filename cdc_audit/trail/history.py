"""``cdc-audit history``: the rows of one record's life, also under the keys that it had before and after."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cdc_audit.model.lsn import parse_lsn
from cdc_audit.trail.image import Keys
from cdc_audit.trail.query import Filters, LogRow, Reader

_SAMPLE = 200
_PAGE = 50
_MOST_KEYS = 100
_FAR = 1 << 62


def history(read: Reader, table: tuple[str | None, str], record: str) -> list[LogRow]:
    """All rows of the record, oldest first. Raises as ``read`` does.

    Under ``record`` itself all rows count, whoever had that key; under another key those between taking it and leaving it.
    """
    every = Filters(schema_name=table[0], table_name=table[1], limit=None, oldest_first=True)

    def rows(key: str, above: int = 0, up_to: int = _FAR) -> list[LogRow]:
        return list(read(replace(every, record=key, above_id=above, up_to_id=up_to)))

    own = rows(record)
    sample = replace(every, limit=_SAMPLE, oldest_first=False)
    keys = Keys([*read(sample), *own[-_SAMPLE:]])
    found = {row.id: row for row in own}

    def follow(row: LogRow) -> None:
        """The life under the keys that came after this row, if it changed the key."""
        for _ in range(_MOST_KEYS):
            key = keys.after(row)
            if row.action != "UPDATE" or key is None or key == row.record_id:
                return
            for following in rows(key, above=row.id):
                found[following.id] = row = following
                if row.action == "DELETE" or (row.action == "UPDATE" and keys.after(row) != key):
                    break

    def trace(key: str, first: LogRow | None) -> None:
        """The life under the keys that came before, if it does not begin with this row."""
        for _ in range(_MOST_KEYS):
            if first is not None and first.action == "INSERT":
                return
            moved = _moved_to(read, replace(every, after=keys.columns_of(key) or ()), key, first)
            if moved is None or moved.record_id is None:
                return
            key = moved.record_id
            for first in reversed(rows(key, up_to=moved.id)):
                found[first.id] = first
                if first.action == "INSERT":
                    break

    for row in own:
        follow(row)
    trace(record, own[0] if own else None)
    return [found[number] for number in sorted(found)]


def _moved_to(read: Reader, having: Filters, key: str, first: LogRow | None) -> LogRow | None:
    """The last UPDATE that gave a record this key (``having.after``) before ``first``, its first row under it.

    Behind a snapshot's row, by id, changes from before it may stand: of those the position tells.
    """
    if not having.after:
        return None
    copied = first is not None and first.action == "SNAPSHOT"
    change = replace(
        having,
        action="UPDATE",
        field=having.after[0][0],
        up_to_id=first.id - 1 if first and not copied else _FAR,
        limit=_PAGE,
        oldest_first=False,
    )
    until = parse_lsn(first.commit_lsn) if first and copied else _FAR
    while page := list(read(change)):
        for row in page:
            if row.record_id != key and parse_lsn(row.commit_lsn) <= until:
                return row
        if len(page) < _PAGE:
            break
        last = page[-1]
        change = replace(change, before_at=datetime.fromisoformat(last.created_at), before_id=last.id)
    return None
