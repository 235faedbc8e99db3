"""Readiness and liveness as pure functions of a state."""

from __future__ import annotations

import pytest

from cdc_audit.ops.health import State, not_live, not_ready


def state(name: str = "streaming", reason: str | None = None, **more: float) -> State:
    given = {"ticked_at": 1000.0, "progressed_at": 1000.0, **more}
    return State(name, reason, given["ticked_at"], given["progressed_at"], int(given.get("lag_bytes", 0)))


@pytest.mark.parametrize(
    ("name", "reason", "expected"),
    [
        ("starting", None, "starting"),
        ("standby", "the slot is active for PID 7", "standby: the slot is active for PID 7"),
        ("waiting", "source database: connection refused", "waiting: source database: connection refused"),
        ("waiting", "audit database: connection refused", "waiting: audit database: connection refused"),
        ("stopped", None, "stopped"),
    ],
)
def test_a_daemon_that_is_not_streaming_says_why(name: str, reason: str | None, expected: str) -> None:
    assert not_ready(state(name, reason), 1000.0) == expected


def test_a_streaming_daemon_is_ready() -> None:
    assert not_ready(state(), 1010.0) is None


def test_a_daemon_without_anything_to_read_stays_ready_however_long_it_is_idle() -> None:
    assert not_ready(state(ticked_at=9000.0, progressed_at=1000.0, lag_bytes=0), 9001.0) is None


def test_a_daemon_that_is_behind_and_writes_no_block_is_not_ready() -> None:
    reason = not_ready(state(ticked_at=1400.0, lag_bytes=4096), 1400.0)
    assert reason == "not progressing: no block for 400 s, 4096 bytes behind"


def test_a_daemon_that_is_behind_but_wrote_a_block_a_minute_ago_is_ready() -> None:
    assert not_ready(state(ticked_at=1060.0, lag_bytes=4096), 1060.0) is None


@pytest.mark.parametrize("name", ["starting", "standby", "waiting", "streaming"])
def test_a_loop_that_has_not_gone_round_for_a_minute_is_not_alive(name: str) -> None:
    assert not_live(state(name), 1060.0) is None
    assert not_live(state(name), 1061.0) == "the loop has not gone round for 61 s"


def test_a_stuck_loop_is_not_ready_either() -> None:
    assert not_ready(state(), 1061.0) == "the loop has not gone round for 61 s"
