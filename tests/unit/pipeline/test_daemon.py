"""How soon a daemon begins again: its sessions fail by plan, and its clock is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cdc_audit.config import Config
from cdc_audit.errors import UnavailableError
from cdc_audit.pipeline import daemon
from cdc_audit.pipeline.daemon import Daemon
from cdc_audit.pipeline.session import Session
from tests.unit.pipeline.simulated import Clock
from tests.unit.pipeline.test_model import Quiet


class Warnings(Quiet):
    """An observer that keeps how long the daemon says that it waits."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def warned(self, event: str, **facts: Any) -> None:
        assert event == "connection_lost"
        self.delays.append(facts["again_in"])


class Failing(Daemon):
    """Its sessions stream and fail at once, as often as ``stored`` has entries; each says whether anything was stored before."""

    def __init__(self, observer: Warnings, stored: list[bool]) -> None:
        super().__init__(Config(), cast("Any", observer))
        self._stored = iter(stored)

    def _new_session(self) -> Session:
        stored = next(self._stored, None)
        if stored is None:
            self.stop()

        async def run() -> None:
            if stored is not None:
                raise UnavailableError("audit database: gone")

        return cast(
            "Session",
            SimpleNamespace(run=run, has_streamed=True, has_stored=bool(stored), is_superseded=False),
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    loop = Clock()
    monkeypatch.setattr(daemon, "time", loop)
    yield loop
    loop.close()


def delays(clock: Clock, stored: list[bool]) -> list[float]:
    observer = Warnings()
    clock.run_until_complete(Failing(observer, stored).run())
    return observer.delays


def test_sessions_that_store_nothing_are_followed_ever_more_slowly(clock: Clock) -> None:
    waited = delays(clock, [False] * 7)
    assert waited[0] <= 0.2 and 2.5 <= waited[-1] <= 5


def test_a_session_that_stored_anything_was_well_however_short_it_was(clock: Clock) -> None:
    """Where everything breaks every few seconds, the trail still keeps up."""
    assert max(delays(clock, [True] * 7)) <= 0.2
    assert delays(clock, [False, False, False, False, True])[-1] <= 0.2
