"""What auditing costs the source: pgbench's transactions a second (TPC-B) with nothing, with audit triggers, with the slot being
read by somebody who throws it away, and with the daemon and its audit database on the same machine, also where both let the
source go first (as with ``CPUWeight=1`` in their units). What is behind then is told by the seconds that it takes to store
the rest.

"Nothing" has wal_level logical as well. Where slots are read, the tables have REPLICA IDENTITY FULL. Two loads: one that leaves no
processor idle, whose commits don't wait for the disk, so that all work counts; and pgbench as it comes, with one client.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg

from cdc_audit.postgres import named_sql
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import SQL as WORKLOADS
from tests.bench.workloads import UNSYNCED
from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

SQL = named_sql("tests.bench", "source_cost.sql")
_NICE = 19
_YIELDING = "cdc-audit and audit server yield"
_WAYS = ("nothing", "audit triggers", "slot read", "cdc-audit", _YIELDING)
_ROWS = 4  # of a transaction of TPC-B: three are changed, one comes in
_LONGEST = 300.0

Settle = Callable[[int], float]  # seconds until so many rows are stored


class Load(NamedTuple):
    """What pgbench is told, and its sessions' settings, as they stand in a DSN."""

    about: str
    options: tuple[str, ...]
    settings: str


SATURATING = Load("4 clients, prepared, commits not synced", ("-M", "prepared", "-c", "4"), UNSYNCED)
AS_IT_COMES = Load("as pgbench comes: 1 client", (), "")


class _Cost(NamedTuple):
    tps: float
    behind: float | None


def run(stage: Stage, load: Load) -> Report:
    """Transactions a second each way, and in proportion to nothing."""
    rounds = [{way: _cost(stage, load, way) for way in _WAYS} for _ in stage.rounds("source cost")]
    report = Report(
        f"cost to the source: pgbench TPC-B, {load.about}, {stage.options.seconds} s each; {stage.daemon}"
    )
    for way in _WAYS:
        report.add(way, "tps", [one[way].tps for one in rounds])
    for way in _WAYS[1:]:
        shares = ratios([one[way].tps for one in rounds], [one["nothing"].tps for one in rounds])
        report.add(f"{way} / nothing", "", shares)
    for way in _WAYS:
        behind = [one[way].behind for one in rounds]
        report.add(f"{way}: stored after", "s", [seconds for seconds in behind if seconds is not None])
    return report


def _cost(stage: Stage, load: Load, way: str) -> _Cost:
    with stage.databases() as databases:
        stage.tool("pgbench", "-i", "-q", "-s", "10", databases.source_dsn)
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            if way == "audit triggers":
                source.execute(SQL["triggers"])
            elif way != "nothing":
                source.execute(WORKLOADS["tpcb"])
        with _WORKING.get(way, _nobody)(stage, databases) as settle:
            how = ["-n", *load.options, "-T", str(stage.options.seconds)]
            said = stage.tool("pgbench", *how, f"{databases.source_dsn} {load.settings}").stdout
            done = re.search(r"transactions actually processed: (\d+)", said)
            assert done is not None, said
            behind = settle(int(done[1]) * _ROWS) if settle is not None else None
    return _Cost(float(said.partition("tps = ")[2].split()[0]), behind)


@contextmanager
def _nobody(stage: Stage, databases: Databases) -> Iterator[Settle | None]:
    yield None


@contextmanager
def _slot_read(stage: Stage, databases: Databases) -> Iterator[Settle | None]:
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("select pg_create_logical_replication_slot('reference', 'wal2json')")
    program = stage.source.binaries.program("pg_recvlogical")
    where = ["-d", databases.source_dsn, "-S", "reference", "-f", "/dev/null"]
    options = ["-o", "format-version=2", "-o", "include-types=0", "-o", "include-type-oids=1"]
    with subprocess.Popen([program, *where, "--start", *options], stderr=subprocess.DEVNULL) as reader:
        yield None
        reader.terminate()


@contextmanager
def _daemon(stage: Stage, databases: Databases, nice: int = 0) -> Iterator[Settle | None]:
    env = databases.environment(SOURCE_PLUGIN=stage.options.plugin, SOURCE_EXCLUDE="") | stage.package
    initialised(env)
    log = stage.folder / f"{databases.source_name}.log"
    with DaemonProcess(env, log, own_session=True) as daemon:
        daemon.until_ready()
        assert daemon.process is not None
        if nice:
            with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
                sessions = [pid for (pid,) in audit.execute(SQL["sessions"])]
            assert sessions, "the daemon has no session on the audit server"
            for pid in [daemon.process.pid, *sessions]:  # a session's priority ends with it
                _yield_to_all(pid, nice)
        yield partial(_settled, daemon, databases)


def _yield_to_all(pid: int, nice: int) -> None:
    """Give a process that leads a session a low priority. Where Linux groups processes by session (sched(7), "The autogroup
    feature"), it counts within the group only: then the group gets it, too.
    """
    assert os.getsid(pid) == pid
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text(str(nice), encoding="ascii")


def _settled(daemon: DaemonProcess, databases: Databases, rows: int) -> float:
    began = time.monotonic()
    with psycopg.connect(databases.audit_dsn, autocommit=True, options="-c search_path=audit") as audit:

        def stored() -> int:
            row = audit.execute(WORKLOADS["stored"]).fetchone()
            return int(row[0]) if row else 0

        until(lambda: stored() >= rows or not daemon.is_running, "all rows", _LONGEST)
    assert daemon.is_running, daemon.log_text()
    return time.monotonic() - began


_WORKING: dict[str, Callable[[Stage, Databases], AbstractContextManager[Settle | None]]] = {
    "slot read": _slot_read,
    "cdc-audit": _daemon,
    _YIELDING: partial(_daemon, nice=_NICE),
}
