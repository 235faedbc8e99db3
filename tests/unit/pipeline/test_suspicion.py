"""Rules on facts: each finding once, at its beginning, as a plain definition of it says; and never more memory than allowed."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from cdc_audit.config import Config
from cdc_audit.model.alert import Fact, SuspiciousAlert
from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.pipeline.suspicion import Suspicion

START = datetime(2026, 11, 23, 10, tzinfo=UTC)  # a Monday


def fact(
    seconds: float = 0,
    user: str = "u1",
    address: str = "10.0.0.1",
    has_context: bool = True,
    table: str = "shop.orders",
    action: str = "UPDATE",
) -> Fact:
    at = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    return at, user, address, has_context, table, action


def rule(kind: str, **keys: object) -> SuspiciousRule:
    return SuspiciousRule.model_validate({"kind": kind, **keys})


def looked(rules: list[SuspiciousRule], *facts: tuple[Fact, int]) -> list[SuspiciousAlert]:
    suspicion = Suspicion(rules)
    return [
        alert for number, (one, rows) in enumerate(facts) for alert in suspicion.look({one: rows}, number)
    ]


def test_many_rows_of_a_user_table_and_action_are_told_once_until_a_quiet_window() -> None:
    found = looked(
        [rule("bulk", threshold=10, window=60)],
        (fact(0), 6),
        (fact(1, user="u2"), 6),
        (fact(2, table="shop.items"), 6),
        (fact(3, action="DELETE"), 6),
        (fact(30), 5),  # 11 in 30 s
        (fact(50), 50),
        (fact(110), 1),  # within a minute of the last excess, and one itself
        (fact(171), 10),
        (fact(172), 1),
        (fact(173, action="SNAPSHOT"), 1000),
    )
    assert [(alert.at[-8:], alert.rows, alert.block) for alert in found] == [
        ("10:00:30", 11, 4),
        ("10:02:52", 11, 8),
    ]
    assert found[0] == SuspiciousAlert(
        "bulk", "bulk", "u1", "", "shop.orders", "UPDATE", 11, "2026-11-23 10:00:30", 4
    )


def test_deletions_and_reads_are_counted_over_all_tables_of_the_rule() -> None:
    facts = [
        (fact(0, action="DELETE"), 60),
        (fact(1, table="shop.items", action="TRUNCATE"), 41),
        (fact(2, table="other.t", action="DELETE"), 500),
        (fact(3, table="hr.people", action="READ"), 100),
        (fact(4, table="hr.people", action="SELECT"), 1),
    ]
    found = looked([rule("deletions", table="shop.*"), rule("reads")], *facts)
    assert [(alert.kind, alert.rows, alert.table) for alert in found] == [
        ("deletions", 101, ""),
        ("reads", 101, ""),
    ]


def test_what_nobody_is_named_for_and_ddl_are_told_at_the_first_row() -> None:
    facts = [
        (fact(0), 5),
        (fact(1, user="", has_context=False), 1),
        (fact(2, user="", has_context=False), 1),
        (fact(3, user="", has_context=False, table="shop.items"), 1),
        (fact(4, user="", has_context=False, action="DDL"), 1),
    ]
    found = looked([rule("no_context"), rule("ddl")], *facts)
    assert [(alert.kind, alert.table) for alert in found] == [
        ("no_context", "shop.orders"),
        ("no_context", "shop.items"),
        ("ddl", "shop.orders"),
    ]


def test_an_address_is_new_to_a_user_who_was_seen_elsewhere_within_the_window() -> None:
    day = 86_400
    found = looked(
        [rule("new_address", window=10 * day)],
        (fact(0), 1),
        (fact(1, address="10.0.0.2"), 3),
        (fact(2), 1),
        (fact(3, address=""), 1),
        (fact(4, user="u2", address="10.0.0.9"), 1),
        (fact(5, user="", address="10.0.0.9"), 1),
        (fact(11 * day), 1),  # not seen for long: known again from here on
        (fact(11 * day + 1, address="10.0.0.2"), 1),
    )
    assert [(alert.user, alert.address, alert.block) for alert in found] == [
        ("u1", "10.0.0.2", 1),
        ("u1", "10.0.0.2", 7),
    ]


def test_hours_are_those_of_the_rules_time_zone() -> None:
    berlin = rule("outside_hours", hours="07:00-11:30", time_zone="Europe/Berlin", window=60)
    facts = [(fact(minute * 60), 1) for minute in (0, 29, 30)]  # 11:00, 11:29 and 11:30 there
    facts += [
        (fact(-4 * 3600 - 60), 1),
        (fact(5 * 86_400), 1),
        (fact(9 * 86_400), 1),
    ]  # 06:59; Saturday; Wednesday
    assert [alert.block for alert in looked([berlin], *facts)] == [2, 3, 4]


def test_ignored_users_do_not_count() -> None:
    night = rule("outside_hours", hours="00:00-00:01", ignore_users=["cron"])
    assert [a.user for a in looked([night], (fact(user="cron"), 1), (fact(user="u1"), 1))] == ["u1"]


def test_a_clock_set_back_does_not_silence_a_rule() -> None:
    rules = [rule("bulk", threshold=1, window=60)]
    found = looked(rules, (fact(10_000_000), 5), (fact(0), 1), (fact(1), 1))
    assert [alert.block for alert in found] == [0, 2]


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_those_of_a_plain_definition_whatever_the_blocks(seed: int) -> None:
    dice = random.Random(seed)
    limit, window = dice.randrange(6), dice.randrange(1, 8)
    seconds, facts = 0, []
    for _ in range(300):
        seconds += dice.choice((0, 0, 1, 1, 2, 9))
        facts.append((fact(seconds, user=dice.choice("ab")), dice.randrange(1, 4)))
    suspicion = Suspicion([rule("bulk", threshold=limit, window=window)])
    told: list[tuple[str, str]] = []
    position = 0
    while position < len(facts):
        size = dice.randrange(1, 20)
        block: Counter[Fact] = Counter()
        for one, rows in facts[position : position + size]:
            block[one] += rows
        told += [(alert.user, alert.at) for alert in suspicion.look(block, position)]
        position += size
    assert sorted(told) == sorted(runs(facts, limit, window))


def runs(facts: list[tuple[Fact, int]], limit: int, window: int) -> list[tuple[str, str]]:
    """User and second in which each run begins, by adding up all rows again for each."""
    begins = []
    for user in "ab":
        rows = [(datetime.fromisoformat(one[0]), count) for one, count in facts if one[1] == user]
        before = None
        for at, _ in rows:
            total = sum(
                count for time, count in rows if timedelta() <= at - time <= timedelta(seconds=window)
            )
            if total > limit:
                if before is None or at - before > timedelta(seconds=window):
                    begins.append((user, at.strftime("%Y-%m-%d %H:%M:%S")))
                before = at
    return begins


def test_memory_is_bounded_and_what_is_forgotten_too_early_is_counted() -> None:
    suspicion = Suspicion([rule("bulk", threshold=5), rule("new_address")], most_remembered=100)
    for number in range(1000):
        suspicion.look({fact(number, user=f"u{number}"): 3}, number)
    runs_of, addresses = (one.memory for one in suspicion._watched)
    assert runs_of._size == 100  # type: ignore[union-attr]
    assert len(addresses._pairs) == 100  # type: ignore[union-attr]
    assert suspicion.forgotten == 900 + 2 * 900
    for number in range(100_000):
        suspicion.look({fact(number, user="one"): 1}, number)
    assert runs_of._size <= 100  # type: ignore[union-attr]


def test_wrong_rules_are_refused() -> None:
    for keys in (
        {"kind": "bulky"},
        {"kind": "bulk", "table": "orders"},
        {"kind": "outside_hours", "hours": "19:00-07:00"},
        {"kind": "outside_hours", "time_zone": "Mars/Olympus"},
        {"kind": "bulk", "name": "No Label"},
    ):
        with pytest.raises(ValidationError):
            SuspiciousRule.model_validate(keys)
    twice = {"suspicious": {"rules": [{"kind": "ddl"}, {"kind": "ddl"}]}}
    personal = {
        "suspicious": {"rules": [{"kind": "new_address"}]},
        "redact": {"personal_context": ["ip_address"]},
    }
    for given in (
        twice,
        personal,
        {"suspicious": {"webhook": "ftp://x"}},
        {"suspicious": {"webhook": "file:/x"}},
    ):
        with pytest.raises(ValidationError):
            Config.model_validate(given)


def test_other_rules_count_from_now_on_and_those_that_stay_the_same_go_on() -> None:
    stays, goes = rule("bulk", threshold=10, window=60), rule("deletions", threshold=1)
    suspicion = Suspicion([stays, goes])
    assert suspicion.look({fact(0): 6}, 1) == []
    suspicion.use([rule("bulk", threshold=10, window=60), rule("bulk", name="few", threshold=5)])
    found = suspicion.look({fact(1): 5, fact(1, action="DELETE"): 2}, 2)
    assert [(alert.rule, alert.rows) for alert in found] == [("bulk", 11)]
    assert [alert.rule for alert in suspicion.look({fact(2): 1}, 3)] == ["few"]
    suspicion.use([])
    assert suspicion.look({fact(3): 1000}, 4) == []
