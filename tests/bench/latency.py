"""Commit on the source to durable in the audit database, at fixed rates.

``pgbench --rate`` commits at times drawn beforehand (a Poisson schedule that goes on whatever is late), so nothing slow makes the
load wait for it. A latency begins with the commit time that the source's server put into its WAL, before it synced it. It ends
when an observer hears of the block: a trigger of ours on the ledger does NOTIFY, which the server sends after the block's COMMIT
is on disk. Both clocks are this machine's. The observer hears late, never early; by how much is measured too ("observer's
delay"). The reference is a row that pgbench inserts into the audit server itself at the same rates, from its statement's
beginning: what is slow there is the machine's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg

from cdc_audit.postgres import named_sql
from tests.bench.figures import Report, percentile
from tests.bench.stage import Stage
from tests.support.daemon import DaemonProcess, initialised, until

SQL = named_sql("tests.bench", "latency.sql")
_RATES = (100, 500, 2000)
_INTERVALS = {"0": "0", "default": ""}
_CLIENTS = 16
_CALIBRATIONS = 300


class Heard(NamedTuple):
    """A block's notification: when it came, in seconds of the wall clock, and the last row's id that is durable by it."""

    at: float
    last_id: int


def run(stage: Stage) -> Report:
    """p50 and p99 in milliseconds for each rate and flush_interval."""
    report = Report(
        f"commit to durable, one row a transaction, {stage.options.seconds} s a rate; {stage.daemon}"
    )
    for label, interval in _INTERVALS.items():
        for rate in _RATES:
            what = f"flush_interval {label}, {rate:,} tps"
            rounds = [_round(stage, rate, interval) for _ in stage.rounds(what)]
            for percent in (50, 99):
                values = [percentile(latencies, percent) * 1e3 for latencies, _ in rounds]
                report.add(f"{what}: p{percent}", "ms", values)
            report.add(f"{what}: achieved", "tps", [achieved for _, achieved in rounds])
    for rate in _RATES:
        what = f"a plain INSERT, {rate:,} tps"
        plain = [_plain(stage, rate) for _ in stage.rounds(what)]
        for percent in (50, 99):
            report.add(f"{what}: p{percent}", "ms", [percentile(one, percent) * 1e3 for one in plain])
    with stage.databases() as databases:
        delays = _observers_delays(databases.audit_dsn)
    for percent in (50, 99):
        report.add(f"observer's delay: p{percent}", "ms", [percentile(delays, percent) * 1e3])
    report.notes.append("a latency contains the observer's delay, and the source's own sync of the commit")
    return report


def latencies(committed_at: Sequence[float], heard: Sequence[Heard]) -> list[float]:
    """Seconds for each row, of ids 1, 2, ...; ``heard`` in order. Raises ValueError if rows were never heard of."""
    found: list[float] = []
    blocks = iter(heard)
    block = Heard(0.0, 0)
    for row_id, began in enumerate(committed_at, 1):
        while block.last_id < row_id:
            following = next(blocks, None)
            if following is None:
                raise ValueError(f"row {row_id} and those after it were never heard of")
            block = following
        found.append(block.at - began)
    return found


class Observer(threading.Thread):
    """Listens on a connection of its own until ``stop``."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.heard: list[Heard] = []
        self._stopped = threading.Event()
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute("listen durable")

    def run(self) -> None:
        while not self._stopped.is_set():
            for notify in self._connection.notifies(timeout=0.2):
                self.heard.append(Heard(time.time(), int(notify.payload)))

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        self._connection.close()

    @property
    def last_id(self) -> int:
        return self.heard[-1].last_id if self.heard else 0


def _round(stage: Stage, rate: int, interval: str) -> tuple[list[float], float]:
    """Latencies in seconds, and the transactions a second that there were."""
    with stage.databases() as databases:
        given = {"BATCH_FLUSH_INTERVAL": interval} if interval else {}
        env = (
            databases.environment(SOURCE_PLUGIN=stage.options.plugin, SOURCE_EXCLUDE="", **given)
            | stage.package
        )
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            source.execute(SQL["source"])
        initialised(env)
        with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
            audit.execute(SQL["notify"])
        observer = Observer(databases.audit_dsn)
        observer.start()
        with DaemonProcess(env, stage.folder / f"{databases.source_name}.log") as daemon:
            daemon.until_ready()
            _load(stage, databases.source_dsn, rate, "visit")
            with psycopg.connect(databases.source_dsn) as source:
                (count,) = source.execute(SQL["count"]).fetchone() or (0,)
            until(lambda: observer.last_id >= count, "all rows are durable")
            assert daemon.stop() == 0, daemon.log_text()
        observer.stop()
        with psycopg.connect(databases.audit_dsn) as audit:
            committed_at = [float(row[0]) for row in audit.execute(SQL["committed_at"])]
    assert len(committed_at) == count
    return latencies(committed_at, observer.heard), count / (committed_at[-1] - min(committed_at))


def _plain(stage: Stage, rate: int) -> list[float]:
    """Seconds from a statement to its row's notification, without the daemon and its source."""
    with stage.databases() as databases, psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
        audit.execute(SQL["plain"])
        observer = Observer(databases.audit_dsn)
        observer.start()
        _load(stage, databases.audit_dsn, rate, "plain_row")
        began = {int(row_id): float(at) for row_id, at in audit.execute(SQL["plain_began_at"])}
        until(lambda: len(observer.heard) >= len(began), "all rows are durable")
        observer.stop()
    return [heard.at - began[heard.last_id] for heard in observer.heard]


def _load(stage: Stage, dsn: str, rate: int, script: str) -> None:
    """Commit at the rate."""
    file = stage.folder / f"{script}.pgbench"
    file.write_text(SQL[script], encoding="utf-8")
    how: list[str | Path] = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-f", file, "-R", str(rate)]
    stage.tool("pgbench", *how, "-T", str(stage.options.seconds), dsn)


def _observers_delays(dsn: str) -> list[float]:
    """Seconds from a commit's return to its notification being in the observer's hands, one commit after another."""
    observer = Observer(dsn)
    observer.start()
    delays: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as audit:
        for number in range(1, _CALIBRATIONS + 1):
            audit.execute("select pg_notify('durable', %s)", (str(number),))
            returned = time.time()
            until(lambda wanted=number: observer.last_id >= wanted, "the notification")  # type: ignore[misc]
            delays.append(max(0.0, observer.heard[-1].at - returned))
    observer.stop()
    return delays
