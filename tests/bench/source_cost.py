"""What auditing costs the source: pgbench's transactions a second (TPC-B) with nothing, with audit triggers, with the slot being
read by somebody who throws it away, and with the daemon and its audit database on the same machine.

"Nothing" has wal_level logical as well. Where slots are read, the tables have REPLICA IDENTITY FULL. Commits don't wait for the
disk, so that it is the work that counts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import psycopg

from cdc_audit.postgres import named_sql
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import SQL as WORKLOADS
from tests.bench.workloads import UNSYNCED
from tests.support.daemon import DaemonProcess, initialised
from tests.support.databases import Databases

SQL = named_sql("tests.bench", "source_cost.sql")
_CLIENTS = 4
_WAYS = ("nothing", "audit triggers", "slot read", "cdc-audit")


def run(stage: Stage) -> Report:
    """Transactions a second each way, and in proportion to nothing."""
    rounds = [{way: _tps(stage, way) for way in _WAYS} for _ in stage.rounds("source cost")]
    report = Report(
        f"cost to the source: pgbench TPC-B, {_CLIENTS} clients, {stage.options.seconds} s each; {stage.daemon}"
    )
    for way in _WAYS:
        report.add(way, "tps", [one[way] for one in rounds])
    for way in _WAYS[1:]:
        report.add(
            f"{way} / nothing", "", ratios([one[way] for one in rounds], [one["nothing"] for one in rounds])
        )
    return report


def _tps(stage: Stage, way: str) -> float:
    with stage.databases() as databases:
        stage.tool("pgbench", "-i", "-q", "-s", "10", databases.source_dsn)
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            if way == "audit triggers":
                source.execute(SQL["triggers"])
            elif way != "nothing":
                source.execute(WORKLOADS["tpcb"])
        working = {"slot read": _slot_read, "cdc-audit": _daemon}.get(way, _nobody)
        with working(stage, databases):
            how = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-T", str(stage.options.seconds)]
            said = stage.tool("pgbench", *how, f"{databases.source_dsn} {UNSYNCED}").stdout
    return float(said.partition("tps = ")[2].split()[0])


def _nobody(stage: Stage, databases: Databases) -> nullcontext[None]:
    return nullcontext()


@contextmanager
def _slot_read(stage: Stage, databases: Databases) -> Iterator[None]:
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("select pg_create_logical_replication_slot('reference', 'wal2json')")
    program = stage.source.binaries.program("pg_recvlogical")
    where = ["-d", databases.source_dsn, "-S", "reference", "-f", "/dev/null"]
    options = ["-o", "format-version=2", "-o", "include-types=0", "-o", "include-type-oids=1"]
    with subprocess.Popen([program, *where, "--start", *options], stderr=subprocess.DEVNULL) as reader:
        yield
        reader.terminate()


@contextmanager
def _daemon(stage: Stage, databases: Databases) -> Iterator[None]:
    env = databases.environment(SOURCE_PLUGIN=stage.options.plugin, SOURCE_EXCLUDE="") | stage.package
    initialised(env)
    with DaemonProcess(env, stage.folder / f"{databases.source_name}.log") as daemon:
        daemon.until_ready()
        yield
