"""What people type into ``cdc-audit log``, as filters; and the query that asks for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cdc_audit.errors import UsageError
from cdc_audit.trail.query import Filters, compose, parse_table, parse_time

NOW = datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=2)))  # 2026-11-21 23:30 UTC


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T10:05", "2026-11-20T10:05:00+00:00"),
        ("2026-11-20 10:05:06.789", "2026-11-20T10:05:06.789000+00:00"),
        ("2026-11-20T10:05:06Z", "2026-11-20T10:05:06+00:00"),
        ("2026-11-20T10:05:06+05:30", "2026-11-20T04:35:06+00:00"),
        ("24h", "2026-11-20T23:30:00+00:00"),
        ("90m", "2026-11-21T22:00:00+00:00"),
        ("7d", "2026-11-14T23:30:00+00:00"),
        ("2w", "2026-11-07T23:30:00+00:00"),
        ("45s", "2026-11-21T23:29:15+00:00"),
        ("now", "2026-11-21T23:30:00+00:00"),
        ("today", "2026-11-21T00:00:00+00:00"),
        (" Yesterday ", "2026-11-20T00:00:00+00:00"),
    ],
)
def test_a_time_means_the_same_moment_wherever_it_is_typed(text: str, meant: str) -> None:
    moment = parse_time(text, NOW)
    assert moment.isoformat() == meant
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow-ish", "7", "d", "-7d", "7y", "2026-13-01", "0001-01-01T00:00+14:00", "999999w", "\u0667d"],
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_time(text, NOW)
    assert caught.value.remedy is not None
    assert "24h" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("orders", (None, "orders")),
        ("shop.orders", ("shop", "orders")),
        ("Shop.Orders", ("Shop", "Orders")),
        ('"a.b"', (None, "a.b")),
        ('shop."a.b"', ("shop", "a.b")),
        ('"s""x".t', ('s"x', "t")),
        ("with space.tä", ("with space", "tä")),
    ],
)
def test_a_table_is_a_name_or_a_schema_and_a_name(text: str, meant: tuple[str | None, str]) -> None:
    assert parse_table(text) == meant


@pytest.mark.parametrize("text", ["", ".", "a.", ".b", "a.b.c", '"a', 'a"b'])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_table(text)


def test_values_are_bound_and_never_stand_in_the_query() -> None:
    hostile = "x'; drop schema audit cascade; --%s"
    filters = Filters(hostile, hostile, hostile, hostile, hostile, hostile, NOW, NOW, 7, 3)
    query, values = compose('au"dit', filters)
    text = query.as_string()
    assert "drop schema" not in text
    assert 'from "au""dit".audit_logs' in text
    assert values["record"] == hostile
    assert values["limit"] == 3


def test_only_what_is_asked_for_is_a_condition() -> None:
    assert "where true" in compose("audit", Filters())[0].as_string()
    query, values = compose("audit", Filters(record="1", xid=0))
    assert "where record_id = %(record)s\n   and xid = %(xid)s\n" in query.as_string()
    assert set(values) == {"record", "xid", "limit"}
