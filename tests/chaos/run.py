"""One chaos run: rounds of load and faults, each of which ends with the oracle's comparison, so that nothing grows with the run."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from tests.chaos import faults
from tests.chaos.plan import WEIGHTS, Fault, plan
from tests.chaos.report import DRAIN, PART, Report
from tests.chaos.stage import Load, Stage
from tests.chaos.watch import Watch, retained_bytes
from tests.support.oracle import wait_for

ROUND = 300.0  # seconds
_CHECKPOINT_EVERY = 5.0
_LINE_EVERY = 10.0
_QUIET = 75.0  # seconds at the start of a run that is about memory
_CATCH_UP = 180.0  # seconds that the trail may take after a round's load has ended


class Run:
    """``say`` gets a line now and then. ``rate`` is in transactions a second, ``without`` names kinds of faults to leave out."""

    def __init__(
        self,
        *,
        seed: int,
        seconds: float,
        rate: float,
        say: Callable[[str], None],
        without: Sequence[str] = (),
    ) -> None:
        self._seconds = seconds
        self._rate = rate
        self._say = say
        self._without = tuple(without)
        self._report = Report(seed)
        self._compared = 0  # the trail's id up to which all is compared

    def run(self) -> Report:
        """All of it, on servers made for it."""
        with tempfile.TemporaryDirectory(prefix="cdc-audit-chaos-") as folder, Stage(Path(folder)) as stage:
            watch = Watch(stage.databases.audit_dsn, stage.daemon_pid)
            impossible = () if stage.disk else ("full disk",)
            for kind in impossible:
                self._say(f"{kind}: can't be done here, the other faults share its {WEIGHTS[kind]} %")
            self._report.left_out = (*self._without, *impossible)
            watch.start()
            try:
                for number in range(max(1, round(self._seconds / ROUND))):
                    self._round(number, stage, watch)
                self._end(stage, watch)
            finally:
                watch.stop()
        return self._report

    def _round(self, number: int, stage: Stage, watch: Watch) -> None:
        """Load and faults, then the comparison."""
        seconds = self._seconds / max(1, round(self._seconds / ROUND))
        seed = f"{self._report.seed}/{number}"
        faults_to_do = plan(seed, seconds, without=self._report.left_out)
        if number == 0 and "kill" in self._report.left_out:
            # The daemon remembers up to 20,000 contexts. They come at once, else the longest time between two faults, which
            # grows with the run, would say how many it has ever remembered.
            faults_to_do = [fault for fault in faults_to_do if fault.at >= _QUIET]
        load = Load(stage.databases.source_dsn, seed=seed, rate=self._rate)
        try:
            begun = time.monotonic()
            self._under_load(faults_to_do, begun + seconds, load, stage, watch)
            stage.heal()
            load.stop()
            self._report.seconds += time.monotonic() - begun
        except BaseException:
            load.kill()
            raise
        self._report.transactions += load.committed
        self._compare(stage)

    def _under_load(self, todo: list[Fault], end: float, load: Load, stage: Stage, watch: Watch) -> None:
        """Each fault at its time, in a thread of its own; those of one part of the stage wait for each other."""
        begun = time.monotonic()
        line_at, checkpoint_at, threads = begun + _LINE_EVERY, begun + _CHECKPOINT_EVERY, []
        while (now := time.monotonic()) < end:
            while todo and todo[0].at <= now - begun:
                threads.append(threading.Thread(target=self._do, args=(todo.pop(0), stage, watch)))
                threads[-1].start()
            self._look_after(stage, load)
            self._report.retention.note(now, retained_bytes(stage.databases.source_dsn, stage.databases.slot))
            if now >= checkpoint_at:
                checkpoint_at += _CHECKPOINT_EVERY
                stage.offer_restart_point()
            if now >= line_at:
                line_at += _LINE_EVERY
                self._say(self._line(load, stage, watch))
            next_at = begun + todo[0].at if todo else end
            time.sleep(max(0.0, min(next_at, line_at, end, now + 1) - time.monotonic()))
        for thread in threads:
            thread.join()

    def _do(self, fault: Fault, stage: Stage, watch: Watch) -> None:
        report = self._report
        try:
            seen = faults.do(fault, stage, watch)
        except Exception as error:
            report.problems.append(f"fault {fault} could not be done: {type(error).__name__}: {error}")
            return
        report.done[fault.kind] += 1
        if faults.is_seen(seen):
            report.seen[fault.kind] += 1
        else:
            report.unseen.append(str(fault))

    def _look_after(self, stage: Stage, load: Load) -> None:
        ended = stage.exit_unasked()
        if ended is not None:
            self._report.problems.append(f"the daemon stopped by itself: {ended}")
        if not load.is_working:
            raise RuntimeError("the load's process ended by itself")

    def _compare(self, stage: Stage) -> None:
        dsn = stage.databases.audit_dsn
        try:
            wait_for(dsn, stage.oracle.mark(), timeout=_CATCH_UP)
        except TimeoutError as error:
            self._report.problems.append(str(error))
        with psycopg.connect(dsn) as audit:
            row = audit.execute("select coalesce(max(id), 0) from audit.audit_logs").fetchone()
        assert row is not None
        difference = stage.oracle.compare(dsn, after_id=self._compared)
        self._say(f"compared: {difference}")
        self._report.add(difference)
        self._compared = row[0]
        stage.oracle.forget()

    def _end(self, stage: Stage, watch: Watch) -> None:
        """WAL must go, the daemon must stop when told, and ``verify`` must be green."""
        report, begun = self._report, time.monotonic()
        while not report.retention.is_under and time.monotonic() - begun < DRAIN:
            report.retention.note(
                time.monotonic(), retained_bytes(stage.databases.source_dsn, stage.databases.slot)
            )
            time.sleep(0.2)
        code = stage.daemon.stop(60)
        if code:
            report.problems.append(f"the daemon ended with {code} when it was told to stop")
        report.is_verified, report.verified = stage.verify()
        report.recoveries = [(one.fault, one.seconds) for one in watch.recoveries if one.seconds is not None]
        missed = len(watch.recoveries) - len(report.recoveries)
        if missed:
            report.problems.append(f"after {missed} faults the trail did not go on")
        report.peak_memory = max((size for _, size in watch.memory), default=0.0)
        report.memory_floors = watch.memory_floors(PART, report.seconds)
        report.noticed = watch.noticed

    def _line(self, load: Load, stage: Stage, watch: Watch) -> str:
        report = self._report
        memory = watch.memory[-1][1] if watch.memory else 0.0
        return (
            f"{report.transactions + load.committed:9,} transactions  {report.done.total():4} faults"
            f" ({report.seen.total()} seen)  block {watch.block}  {max(0.0, time.time() - watch.committed_at):5.1f} s behind"
            f"  daemon {memory:.0f} MB  {report.retention.last / 2**20:.0f} MB of WAL kept"
        )
