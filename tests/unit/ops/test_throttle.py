"""Log lines a minute: held back, counted, never forgotten."""

from __future__ import annotations

from cdc_audit.ops.throttle import Throttle


def test_the_first_is_reported_at_once_and_the_rest_of_the_minute_together() -> None:
    throttle: Throttle[str] = Throttle()
    assert [throttle.add("a", 5, now) for now in (0.0, 10.0, 59.0)] == [5, 0, 0]
    assert throttle.add("a", 1, 60.0) == 11


def test_keys_do_not_silence_each_other() -> None:
    throttle: Throttle[str] = Throttle()
    assert throttle.add("a", 1, 0.0) == 1
    assert throttle.add("b", 2, 0.0) == 2


def test_what_was_held_back_comes_due_without_a_further_event() -> None:
    throttle: Throttle[str] = Throttle()
    throttle.add("a", 1, 0.0)
    throttle.add("a", 4, 1.0)
    assert throttle.due(59.9) == []
    assert throttle.due(60.0) == [("a", 4)]
    assert throttle.due(1000.0) == []


def test_a_key_that_came_due_is_quiet_for_another_minute() -> None:
    throttle: Throttle[str] = Throttle()
    throttle.add("a", 1, 0.0)
    throttle.add("a", 1, 1.0)
    throttle.due(60.0)
    assert throttle.add("a", 1, 61.0) == 0
