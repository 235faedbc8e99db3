"""Histories of a daemon's life, drawn at random: what is acknowledged is stored, what is stored is the source, once and in order.

The invariants are checked by ``simulated`` at every block and every report; here are the histories and their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdc_audit.config import Batch, Config, Ledger
from cdc_audit.errors import UnavailableError
from cdc_audit.join.joiner import Joiner
from cdc_audit.pipeline import delivery, pump, session
from cdc_audit.pipeline.pump import Pump
from cdc_audit.sink.anchor import Anchors
from tests.chaos import broken
from tests.unit.pipeline.simulated import Clock, FakeStream, SimulatedSession, Source, Store

HISTORIES = 5000
HEARTBEAT = 2.0
_CALM = 30  # rounds without faults after which all must be well
_LONGEST = 3600.0  # simulated seconds: a life that takes longer hangs

# What may happen, and with which numbers; the shares are those of the list.
STEPS = (
    *[("commit", rows) for rows in (0, 1, 1, 2, 3, 5)],
    ("other wal", 0),
    *[("send", messages) for messages in (1, 1, 2, 3, 7, 100, 100)],
    *[("keepalive", wants_reply) for wants_reply in (0, 1)],
    *[("pass", hundredths) for hundredths in (0, 1, 6, 110)],
    ("kill", 0),
    ("kill", 1),  # and a COMMIT under way is carried out
    ("audit crash", 0),
    ("audit crash", 1),
    ("answer lost", 0),
    *[("slow", hundredths) for hundredths in (0, 2, 50, 1200)],
    ("source crash", 0),
    ("slot saved", 0),
    ("stop", 0),
)


class Settings(NamedTuple):
    flush_interval: float
    max_rows: int
    hold_rows: int
    sends_again: bool


SETTINGS = st.builds(
    Settings,
    st.sampled_from((0.0, 0.05, 1.0)),
    st.sampled_from((1, 3, 10_000)),
    st.sampled_from((1, 10_000)),
    st.booleans(),
)
HISTORY = st.lists(st.sampled_from(STEPS), min_size=5, max_size=40)


class Quiet:
    """An observer, and anchors, that let everything pass."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Life:
    """A daemon that is started again and again on one source and one store."""

    def __init__(self, given: Settings) -> None:
        self.source = Source(sends_again=given.sends_again)
        self.store = Store(self.source)
        self._config = Config(
            batch=Batch(flush_interval=given.flush_interval, max_rows=given.max_rows),
            ledger=Ledger(heartbeat_interval=HEARTBEAT),
        )
        self._is_stopping = False
        self.session: SimulatedSession | None = None
        self._running: asyncio.Task[None] | None = None

    async def do(self, step: str, number: int) -> None:
        """One step; a session that has ended is followed by the next."""
        self._reap()
        if self._running is None:
            self._begin()
        match step:
            case "commit":
                self.source.commit(number, f"u{self.source.wal}" if number % 2 else "")
            case "other wal":
                self.source.wal += 10
            case "pass":
                await asyncio.sleep(number / 100)
            case "slow":
                self.store.delay = number / 100
            case "answer lost":
                self.store.loses_answer = True
            case "slot saved":
                self.source.saved_lsn = self.source.confirmed_lsn
            case "source crash":
                self.source.crash()
            case "stop":
                await self._stop()
            case "kill" | "audit crash":
                self.store.counts_broken_off = bool(number)
                await self._break(step)
            case _:
                await self._server(step, number)
        await asyncio.sleep(0)

    async def end(self) -> None:
        """Nothing bad happens any more: all is stored, all of the slot is confirmed, and the daemon stops when told."""
        self.store.delay, self.store.loses_answer = 0.0, False
        for _ in range(_CALM):
            await self.do("send", 1000)
            await self.do("keepalive", 1)
            await self.do("pass", 110)
            if self.source.confirmed_lsn == self.source.wal:
                break
        assert self.source.confirmed_lsn == self.source.wal, "an idle slot keeps WAL"
        assert self.store.rows == self.source.wanted(self.source.wal)
        await self._stop()

    async def close(self) -> None:
        """End it, however it is."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _begin(self) -> None:
        self._is_stopping = False
        quiet: Any = Quiet()
        self.session = SimulatedSession(
            self._config, quiet, cast("Anchors", quiet), lambda: self._is_stopping
        )
        self.session.source, self.session.store = self.source, self.store
        self._running = asyncio.create_task(self.session.run())

    async def _server(self, step: str, number: int) -> None:
        await asyncio.sleep(0.001)
        if (stream := self.source.stream) is None:
            return
        if step == "send":
            stream.send(number)
        else:
            stream.keepalive(wants_reply=bool(number))

    async def _break(self, step: str) -> None:
        assert self.session and self._running
        if step == "audit crash":
            self.session.lose_audit()
            return
        self.session.die()
        self._running.cancel()
        await asyncio.wait([self._running])
        self._reap()

    async def _stop(self) -> None:
        if self._running is not None:
            assert self.session
            self._is_stopping = True
            self.session.wake()
            await asyncio.wait([self._running])
            self._reap()

    def _reap(self) -> None:
        """What ended a session must be one of the things that a daemon goes on after."""
        if self._running is None or not self._running.done():
            return
        error = None if self._running.cancelled() else self._running.exception()
        if error is not None and not isinstance(error, UnavailableError):
            raise error
        self._running = self.session = None


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    """Simulated time for everything that asks what time it is."""
    loop = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (pump, delivery, session):
            patch.setattr(module, "time", loop)
        yield loop
    loop.close()


def play(clock: Clock, given: Settings, history: list[tuple[str, int]]) -> None:
    """A whole history with its end. Raises AssertionError for what must not be."""

    async def whole() -> None:
        life = Life(given)
        try:
            async with asyncio.timeout(_LONGEST):
                for step in history:
                    await life.do(*step)
                await life.end()
        finally:
            await life.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Joiner", partial(Joiner, hold_rows=given.hold_rows))
        clock.run_until_complete(whole())


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(SETTINGS, HISTORY)
def test_whatever_happens_the_trail_is_the_source_and_nothing_is_confirmed_before_it_is_stored(
    clock: Clock, given: Settings, history: list[tuple[str, int]]
) -> None:
    play(clock, given, history)


@pytest.mark.parametrize(
    "rule", ["acknowledges early", "acknowledges wal end", "stores again", "carries contexts"]
)
def test_a_history_is_found_that_shows_each_broken_rule(
    rule: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is checked: with a rule broken, it doesn't hold."""
    BROKEN[rule](monkeypatch.setattr)

    @settings(
        max_examples=HISTORIES,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        report_multiple_bugs=False,
    )
    @given(SETTINGS, HISTORY)
    def all_is_well(given: Settings, history: list[tuple[str, int]]) -> None:
        play(clock, given, history)

    with pytest.raises(AssertionError):
        all_is_well()


def test_reports_end_with_their_session_also_when_a_receipt_comes_in_the_same_moment(clock: Clock) -> None:
    """A session that waits for ever for its reports to end is never followed by another one. Before Python 3.12
    ``asyncio.wait_for`` forgets a cancellation that comes together with what it waits for.
    """
    life = Life(Settings(0.0, 1, 1, False))

    async def ends() -> bool:
        await life.do("pass", 1)
        assert life.session and life.source.stream
        reports = asyncio.create_task(life.session._report(cast("Any", Quiet()), 6.0))
        await asyncio.sleep(0.1)
        life.session._moved.set()
        await asyncio.sleep(0)
        reports.cancel()
        await asyncio.wait([reports], timeout=10)
        is_done = reports.done()
        reports.cancel()
        await life.close()
        return is_done

    assert clock.run_until_complete(ends())


def acknowledges_wal_end(patch: broken.Patch) -> None:
    report = FakeStream.report
    patch(FakeStream, "report", lambda self, flushed: report(self, max(flushed, self._wal_end)))


def stores_again(patch: broken.Patch) -> None:
    """What lies before the position that it resumed at isn't left out."""
    init = Pump.__init__

    def begin_at_zero(self: Pump, *arguments: Any, **facts: Any) -> None:
        init(self, *arguments, **facts)
        self._resume_lsn = 0

    patch(Pump, "__init__", begin_at_zero)


BROKEN: dict[str, Callable[[broken.Patch], None]] = {
    "acknowledges early": broken.acknowledges_early,
    "acknowledges wal end": acknowledges_wal_end,
    "stores again": stores_again,
    "carries contexts": broken.carries_contexts,
}
