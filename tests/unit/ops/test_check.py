"""Running checks: each on its own, and what depends on a failed one is skipped."""

from __future__ import annotations

import psycopg

from cdc_audit.config import Config
from cdc_audit.errors import SettingError
from cdc_audit.ops.check import Check, Outcome, Result, Session, run_checks


def fine(_: Session) -> Outcome:
    return Outcome("ok", "fine")


def warning(_: Session) -> Outcome:
    return Outcome("warn", "hm", "do this")


def our_error(_: Session) -> Outcome:
    raise SettingError("wrong", remedy="set it right")


def drivers_error(_: Session) -> Outcome:
    raise psycopg.errors.UniqueViolation("Key (email)=(canary@example.org) already exists")


def results(*checks: Check) -> list[Result]:
    return list(run_checks(checks, Session(Config())))


def test_what_needs_a_failed_check_is_skipped_and_so_is_what_needs_that() -> None:
    found = results(
        Check("a", "source", our_error),
        Check("b", "source", fine, ("a",)),
        Check("c", "source", fine, ("b",)),
        Check("d", "source", fine),
    )
    assert found == [
        Result("a", "source", "fail", "wrong", "set it right"),
        Result("b", "source", "skip", "not checked, because a failed", ""),
        Result("c", "source", "skip", "not checked, because b was skipped", ""),
        Result("d", "source", "ok", "fine", ""),
    ]


def test_a_warning_stops_nothing() -> None:
    found = results(Check("a", "source", warning), Check("b", "source", fine, ("a",)))
    assert [result.status for result in found] == ["warn", "ok"]


def test_a_drivers_error_is_a_failed_check_that_names_its_side_and_no_row_values() -> None:
    found = results(Check("a", "audit", drivers_error), Check("b", "audit", fine))
    assert found[0].status == "fail"
    assert found[0].message.startswith("audit database: ")
    assert "canary" not in found[0].message
    assert found[1].status == "ok"
