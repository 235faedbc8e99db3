"""Time cut into the partitions' times: all of it, once, newest first."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.trail.spans import Span, spans


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


MARCH = Span(day(10), day(12), True, "march")
APRIL = Span(day(12), day(14), True, "april")
JUNE = Span(day(20), day(22), False, "june")
DEFAULT = Span(None, None, False, "default")
ALL = [MARCH, DEFAULT, JUNE, APRIL]


def test_all_time_is_there_newest_first_with_what_lies_between_months() -> None:
    assert list(spans(ALL, None, None)) == [
        (day(22), None, False, ""),
        (day(20), day(22), False, "june"),
        (day(14), day(20), False, ""),
        (day(12), day(14), True, "april"),
        (day(10), day(12), True, "march"),
        (None, day(10), False, ""),
    ]


def test_a_time_within_a_month_is_one_of_that_kind() -> None:
    noon = day(11).replace(hour=12)
    assert list(spans(ALL, day(11), noon)) == [(day(11), noon, True, "march")]
    assert list(spans(ALL, day(20), day(21))) == [(day(20), day(21), False, "june")]
    assert list(spans(ALL, day(15), day(16))) == [(day(15), day(16), False, "")]
    assert list(spans([DEFAULT], None, day(3))) == [(None, day(3), False, "")]


_DAYS = st.integers(1, 28).map(day)


@given(st.lists(st.integers(1, 27), unique=True), st.none() | _DAYS, st.none() | _DAYS, _DAYS)
def test_each_moment_is_in_exactly_one_span_which_no_partition_ends_within(
    starts: list[int], since: datetime | None, until: datetime | None, moment: datetime
) -> None:
    partitions = [DEFAULT, *(Span(day(start), day(start + 1), start % 2 == 0) for start in starts)]
    if since and until and since >= until:
        return
    found = list(spans(partitions, since, until))
    inside = (since is None or moment >= since) and (until is None or moment < until)
    holders = [
        one for one in found if (one.since or day(1)) <= moment and (one.until is None or moment < one.until)
    ]
    assert len(holders) == int(inside)
    for one in holders:
        assert one.is_over == (moment.day in starts and moment.day % 2 == 0)
