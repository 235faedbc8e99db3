"""How long rows stay where, and what forbids that they go: policies, legal holds, and what may be done with a month. Pure.

Rows are kept and let go by whole months (UTC) of ``created_at``, since a month is a partition and blocks never cross one. A month
may be archived, which takes its rows out of the audit database, when it ended ``hot`` months ago; it may be purged when it ended
``keep`` months ago: its archive, or, if that is asked for, its rows without any archive. A month with a row under a legal hold
stays where it is: it is neither taken out nor purged. Nor is an archive purged that the object store still locks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import NamedTuple

_SPAN = re.compile(r"([1-9]\d{0,3}) (month|year)s?")


class Policy(NamedTuple):
    """Months (hot: in the audit database; keep: there or in an archive) after the end of the month that a row is of."""

    hot: int
    keep: int


PRESETS = {
    "default": Policy(12, 84),
    "hipaa": Policy(12, 72),  # documentation is kept for six years: 45 CFR 164.316(b)(2)(i)
    "pci": Policy(3, 12),  # a year, three months of it at hand: PCI DSS v4, 10.5.1
}


def parse_span(text: str) -> int:
    """Months of ``3 months`` or ``7 years``. Raises ValueError for anything else."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError("say how many months or years: 3 months, 7 years")
    return int(found[1]) * (12 if found[2] == "year" else 1)


def span_text(months: int) -> str:
    """Months as people say them."""
    number, unit = (months // 12, "year") if months % 12 == 0 else (months, "month")
    return f"{number} {unit}{'s' if number > 1 else ''}"


class Hold(NamedTuple):
    """A legal hold: all that is not None must be so of a row that is under it. ``number`` is the ledger block that says so.

    ``user`` is a user id or an e-mail address; ``record_id`` is as it stands in the rows; ``until`` is exclusive.
    """

    number: int
    schema_name: str | None = None
    table_name: str | None = None
    record_id: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""

    def covers(self, row: HeldRow) -> bool:
        """Whether a row is under it. The same rule as the SQL's, where a month's rows are looked through."""
        wanted = (
            (self.schema_name, row.schema_name),
            (self.table_name, row.table_name),
            (self.record_id, row.record_id),
        )
        return (
            all(value in (None, has) for value, has in wanted)
            and (self.user is None or self.user in (row.user_id, row.user_email))
            and (self.since is None or self.since <= row.created_at)
            and (self.until is None or row.created_at < self.until)
        )


class HeldRow(NamedTuple):
    """What of a row decides whether it is under a hold."""

    created_at: datetime
    schema_name: str
    table_name: str
    record_id: str | None
    user_id: str | None
    user_email: str | None


class Step(StrEnum):
    """What may be done with a month."""

    KEEP = "keep"
    HELD = "held"  # it would be due, but has rows under a hold
    LOCKED = "locked"  # it would be purged, but Object Lock keeps its archive
    ARCHIVE = "archive"  # its rows may be archived, and then dropped from the audit database
    PURGE = "purge"  # its rows may be deleted: those in the archive or, where none is wanted, those in the audit database


class Month(NamedTuple):
    """A month, by its first day. ``holds`` are the numbers of holds that are in force and cover any of its rows.

    ``locked_until``: the last moment of its archive's Object Lock.
    """

    first: date
    is_archived: bool
    holds: Sequence[int]
    locked_until: datetime | None = None


def decide(month: Month, policy: Policy, now: datetime, *, needs_archive: bool = True) -> Step:
    """What may be done with a month now. Without ``needs_archive`` one in the audit database isn't archived, but may be purged."""
    goes_for_good = month.is_archived or not needs_archive
    if now < due_at(month.first, policy.keep if goes_for_good else policy.hot):
        return Step.KEEP
    if month.holds:
        return Step.HELD
    if month.locked_until is not None and now < month.locked_until:
        return Step.LOCKED
    return Step.PURGE if goes_for_good else Step.ARCHIVE


def due_at(first: date, months: int) -> datetime:
    """When the month that begins with ``first`` ended so many months ago; what lies beyond all calendars is never."""
    year, month = divmod(first.year * 12 + first.month + months, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC) if year <= 9999 else datetime.max.replace(tzinfo=UTC)
