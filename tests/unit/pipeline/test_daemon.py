"""How soon a daemon begins again: its sessions fail by plan, and its clock is simulated."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
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


class Cyclic:
    """What a session leaves behind, as the real one does, refers to itself: counting references doesn't free it."""

    def __init__(self, **facts: Any) -> None:
        self.__dict__.update(facts, itself=self)


class Failing(Daemon):
    """Its sessions stream and fail at once, as often as ``stored`` has entries; each says whether anything was stored before.

    ``remaining`` says how many of the earlier ones were still there when one began.
    """

    def __init__(self, observer: Warnings, stored: list[bool]) -> None:
        super().__init__(Config(), cast("Any", observer))
        self._stored = iter(stored)
        self._made: weakref.WeakSet[Cyclic] = weakref.WeakSet()
        self.remaining: list[int] = []

    def _new_session(self) -> Session:
        self.remaining.append(len(self._made))
        stored = next(self._stored, None)
        if stored is None:
            self.stop()

        async def run() -> None:
            if stored is not None:
                raise UnavailableError("audit database: gone")

        session = Cyclic(run=run, has_streamed=True, has_stored=bool(stored), is_superseded=False)
        self._made.add(session)
        return cast("Session", session)


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


def test_a_session_is_gone_from_memory_before_the_next_one_begins(clock: Clock) -> None:
    daemon = Failing(Warnings(), [True, False, True])
    gc.disable()  # by itself the collector comes late: changes of rows make no cycles that would call for it
    try:
        clock.run_until_complete(daemon.run())
    finally:
        gc.enable()
    assert daemon.remaining == [0, 0, 0, 0]
