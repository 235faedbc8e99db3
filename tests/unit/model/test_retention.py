"""No row under a legal hold is ever taken out or purged, and what is under none goes when it is due."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_audit.config import Retention
from cdc_audit.model.retention import (
    PRESETS,
    HeldRow,
    Hold,
    Month,
    Policy,
    Step,
    decide,
    due_at,
    parse_span,
    span_text,
)

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_names = st.sampled_from(["orders", "users", "a.b"])
_records = st.sampled_from(["1", "2", "12"])
_users = st.sampled_from(["u1", "u2", "ann@shop.example"])
_times = st.integers(0, 3 * 365 * 24).map(lambda hours: BEGIN + timedelta(hours=hours))

rows = st.builds(HeldRow, _times, st.sampled_from(["public", "crm"]), _names, st.none() | _records, st.none() | _users,
                 st.none() | _users)  # fmt: skip
holds = st.builds(
    Hold,
    number=st.just(0),
    schema_name=st.none() | st.sampled_from(["public", "crm"]),
    table_name=st.none() | _names,
    record_id=st.none() | _records,
    user=st.none() | _users,
    since=st.none() | _times,
    until=st.none() | _times,
)
policies = st.tuples(st.integers(1, 24), st.integers(0, 36)).map(lambda both: Policy(both[0], sum(both)))
# A hold, the day on which it is added, and how many days later it is released.
lives = st.tuples(holds, st.integers(0, 2500), st.integers(1, 2500))


def is_under(hold: Hold, row: HeldRow) -> bool:
    """The promise in the words of ``hold add --help``, not in those of the product's code."""
    if hold.schema_name is not None and hold.schema_name != row.schema_name:
        return False
    if hold.table_name is not None and hold.table_name != row.table_name:
        return False
    if hold.record_id is not None and hold.record_id != row.record_id:
        return False
    if hold.user is not None and hold.user != row.user_id and hold.user != row.user_email:
        return False
    if hold.since is not None and row.created_at < hold.since:
        return False
    return hold.until is None or row.created_at < hold.until


@settings(deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=20),
    policies,
    st.lists(lives, max_size=4),
    st.lists(st.integers(0, 4000), max_size=30),
)
def test_no_row_under_a_hold_is_ever_taken_out_or_purged(
    trail: list[HeldRow], policy: Policy, held: list[tuple[Hold, int, int]], days: list[int]
) -> None:
    months: dict[date, list[HeldRow]] = {}
    for row in trail:
        months.setdefault(row.created_at.date().replace(day=1), []).append(row)
    archived: set[date] = set()
    purged: set[date] = set()
    for day in [*sorted(days), 9000]:
        now = BEGIN + timedelta(days=day)
        in_force = [hold for hold, begin, length in held if begin <= day < begin + length]
        for first, those in months.items():
            if first in purged:
                continue
            covering = [1 for hold in in_force if any(hold.covers(row) for row in those)]
            step = decide(Month(first, first in archived, covering), policy, now)
            if step in (Step.ARCHIVE, Step.PURGE):
                assert not any(is_under(hold, row) for hold in in_force for row in those)
                assert now >= max(row.created_at for row in those) + timedelta(
                    days=28 * (policy.hot if step is Step.ARCHIVE else policy.keep)
                )
                (archived if step is Step.ARCHIVE else purged).add(first)
            elif step is Step.HELD:
                assert any(is_under(hold, row) for hold in in_force for row in those)
    # On the last day nothing is held any more, and all was due long ago.
    assert archived == set(months)


@settings(deadline=None)
@given(_times, policies, st.booleans(), st.none() | _times, st.booleans(), st.integers(0, 4000))
def test_nothing_is_purged_before_its_time_under_a_hold_or_locked(
    at: datetime, policy: Policy, is_archived: bool, lock: datetime | None, is_held: bool, day: int
) -> None:
    """Neither from an archive nor, where none is wanted, out of the audit database."""
    now, first = BEGIN + timedelta(days=day), at.date().replace(day=1)
    month = Month(first, is_archived, [1] if is_held else [], lock if is_archived else None)
    step = decide(month, policy, now, needs_archive=False)
    assert step is not Step.ARCHIVE
    is_over = (now.year - first.year) * 12 + now.month - first.month > policy.keep
    is_free = not is_held and (not is_archived or lock is None or now >= lock)
    assert (step is Step.PURGE) == (is_over and is_free)
    assert (step is Step.LOCKED) == (is_over and not is_held and not is_free)
    assert is_archived or decide(month, policy, now) in (Step.KEEP, Step.HELD, Step.ARCHIVE)


@settings(deadline=None)
@given(holds, rows)
def test_a_hold_covers_what_its_words_say(hold: Hold, row: HeldRow) -> None:
    assert hold.covers(row) == is_under(hold, row)


def test_a_month_is_due_so_many_months_after_its_own_end() -> None:
    assert due_at(date(2025, 11, 1), 1) == datetime(2026, 1, 1, tzinfo=UTC)
    assert due_at(date(2025, 12, 1), 12) == datetime(2027, 1, 1, tzinfo=UTC)
    assert due_at(date(9999, 12, 1), 84).year == 9999
    month, policy = Month(date(2025, 11, 1), False, []), Policy(1, 12)
    assert decide(month, policy, datetime(2025, 12, 31, 23, 59, tzinfo=UTC)) is Step.KEEP
    assert decide(month, policy, datetime(2026, 1, 1, tzinfo=UTC)) is Step.ARCHIVE


def test_spans_are_read_and_told_as_people_say_them() -> None:
    assert [parse_span(text) for text in ("1 month", "3 months", "1 year", "7 years")] == [1, 3, 12, 84]
    assert [span_text(months) for months in (1, 3, 12, 84)] == ["1 month", "3 months", "1 year", "7 years"]
    for wrong in ("", "3", "0 months", "-1 years", "3 weeks", "3months"):
        with pytest.raises(ValueError, match="months or years"):
            parse_span(wrong)


def test_presets_hold_unless_something_else_is_said() -> None:
    assert Retention(preset="hipaa").policy == PRESETS["hipaa"] == Policy(12, 72)
    assert Retention(preset="pci").policy == Policy(3, 12)
    assert Retention(preset="pci", keep="2 years").policy == Policy(3, 24)
    for wrong in (
        {"hot": "8 years"},
        {"hot": "soon"},
        {"archive": "https://host/path"},
        {"archive": "folder"},
    ):
        with pytest.raises(ValueError, match=r"longer than keep|months or years|an archive is"):
            Retention.model_validate(wrong)
