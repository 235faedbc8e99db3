"""From slot to Iceberg tables in a folder (``[audit] kind = "iceberg"``), beside PostgreSQL as the store, in one run.

The catalog is SQLite, as in the tests. What its bytes a row are is told by the data files; verify reads these again.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.bench.drain import drain, stopped_daemon
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET
from tests.support.daemon import cdc_audit, initialised, until
from tests.support.databases import Databases
from tests.support.lake import Lake

_LONGEST = 900.0


def run(stage: Stage) -> Report:
    """Rows a second of both stores; the lake's CPU and bytes a row, peak memory, and how fast verify reads it."""
    rows = BUDGET.rows(stage.options.rows)
    rounds = [_round(stage, rows, number) for number in stage.rounds("lake")]
    report = Report(f"lake: {rows:,} rows, {BUDGET.about}; {stage.options.plugin}; {stage.daemon}")
    for name, unit in (
        ("into Iceberg tables", "rows/s"),
        ("into PostgreSQL", "rows/s"),
        ("daemon CPU, Iceberg", "us/row"),
        ("daemon peak memory, Iceberg", "MiB"),
        ("data files", "bytes/row"),
        ("verify of them", "rows/s"),
    ):
        report.add(name, unit, [one[name] for one in rounds])
    ours, database = ([one[f"into {name}"] for one in rounds] for name in ("Iceberg tables", "PostgreSQL"))
    report.add("Iceberg tables / PostgreSQL", "", ratios(ours, database))
    return report


def _round(stage: Stage, rows: int, number: int) -> dict[str, float]:
    figures = {}
    with stage.databases() as databases:
        env = databases.environment(SOURCE_EXCLUDE="", SOURCE_PLUGIN=stage.options.plugin) | stage.package
        BUDGET.prepare(stage, databases.source_dsn)
        initialised(env)
        with stopped_daemon(env, stage.folder / f"{databases.source_name}.log") as daemon:
            BUDGET.load(stage, databases.source_dsn, rows)
            figures["into PostgreSQL"] = drain(daemon, databases.audit_dsn, rows).rows_per_s
    with stage.databases() as databases:
        figures |= _into_lake(stage, databases, rows, stage.folder / f"lake-{number}")
    return figures


def _into_lake(stage: Stage, databases: Databases, rows: int, folder: Path) -> dict[str, float]:
    folder.mkdir()
    lake = Lake(folder)
    given = {"SOURCE_EXCLUDE": "", "SOURCE_PLUGIN": stage.options.plugin, "BATCH_FLUSH_INTERVAL": "10"}
    env = lake.environment(databases, **given) | stage.package
    BUDGET.prepare(stage, databases.source_dsn)
    initialised(env)
    with stopped_daemon(env, folder / "log") as daemon:
        BUDGET.load(stage, databases.source_dsn, rows)
        cpu, began = daemon.cpu_seconds(), time.monotonic()
        daemon.signal(signal.SIGCONT)
        stored = ("INSERT", "UPDATE")
        until(
            lambda: sum(daemon.metric("rows_total", action=action) for action in stored) >= rows,
            "all rows",
            _LONGEST,
        )
        seconds = time.monotonic() - began
        cpu = daemon.cpu_seconds() - cpu
        peak = daemon.resident_bytes() / 1048576
    verified = cdc_audit("verify", "--json", env=env, timeout=_LONGEST)
    report = json.loads(verified.stdout)
    assert (report["rows"], report["findings"]) == (rows, []), verified.stderr
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet") if "audit_logs" in str(file))
    return {
        "into Iceberg tables": rows / seconds,
        "daemon CPU, Iceberg": cpu / rows * 1e6,
        "daemon peak memory, Iceberg": peak,
        "data files": size / rows,
        "verify of them": rows / report["seconds"],
    }
