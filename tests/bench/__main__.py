"""``make bench``: the whole way from slot to durable blocks, in turn with what bounds it on either side.

Builds its own two servers. Each round measures, one after the other: ``pg_recvlogical`` draining an equal slot (what the server's
decoder gives), ``psql \\copy`` of the very rows into an equal table (what the store takes), and the daemon from the moment it
streams to the last row being durable. Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from cdc_audit.cli.demo.cluster import Cluster
from cdc_audit.postgres import named_sql
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases

SQL = named_sql("tests.bench", "workload.sql")
ROWS_PER_TRANSACTION = 20


def main() -> None:
    """Print a table, and the same figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000, help="of 20 rows each (default 10,000)")
    parser.add_argument("--rounds", type=int, default=5, help="of all three measurements (default 5)")
    arguments = parser.parse_args()
    with (
        Cluster("source", settings=_SETTINGS) as source,
        Cluster("audit", settings=_SETTINGS) as audit,
        _folder() as folder,
    ):
        rounds = [
            _round(new_databases(source, audit), arguments.transactions, Path(folder) / str(number))
            for number in range(arguments.rounds)
        ]
    _report(rounds, arguments.transactions * ROWS_PER_TRANSACTION)


_SETTINGS = {"max_wal_size": "4GB", "shared_buffers": "256MB", "wal_sender_timeout": "60s"}


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cdc-audit-bench-", ignore_cleanup_errors=True)


def _round(databases: Databases, transactions: int, folder: Path) -> dict[str, float]:
    rows = transactions * ROWS_PER_TRANSACTION
    folder.mkdir()
    env = databases.environment()
    initialised(env)
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute(SQL["tables"])
        source.execute("select pg_create_logical_replication_slot('reference', 'wal2json')")
        source.execute(SQL["load"], (transactions,))
        end = source.execute(SQL["position"]).fetchone()
    assert end is not None
    figures = {"pg_recvlogical": rows / _drain(databases, str(end[0]))}
    with DaemonProcess(env, folder / "log") as daemon:
        with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
            until(lambda: audit.execute(SQL["stored"]).fetchone() == (rows,), "all rows", 600)
        ended = datetime.now(UTC)
        began = datetime.fromisoformat(daemon.events("streaming")[0]["timestamp"])
        figures["cdc_audit"] = rows / (ended - began).total_seconds()
        figures["cpu_us_per_row"] = daemon.cpu_seconds() / rows * 1e6
        figures["peak_mib"] = daemon.resident_bytes() / 1048576
        daemon.stop()
    figures["psql_copy"] = rows / _copy(databases, folder / "rows")
    databases.drop()
    return figures


def _drain(databases: Databases, end: str) -> float:
    """Seconds that pg_recvlogical takes for the same slot contents, with the daemon's options."""
    options = [
        "format-version=2",
        "include-xids=1",
        "include-timestamp=1",
        "include-lsn=1",
        "include-pk=1",
        "include-types=0",
    ]
    options += [
        "include-type-oids=1",
        "add-msg-prefixes=cdc_audit.context,cdc_audit.event",
        "filter-tables=cdc_audit.*",
    ]
    command = [
        "pg_recvlogical",
        "-d",
        databases.source_dsn,
        "-S",
        "reference",
        "--start",
        "-f",
        "/dev/null",
        "-E",
        end,
        "--no-loop",
    ]
    began = time.monotonic()
    subprocess.run(
        [*command, *(part for option in options for part in ("-o", option))], check=True, capture_output=True
    )
    return time.monotonic() - began


def _copy(databases: Databases, file: Path) -> float:
    """Seconds that psql takes to copy the very rows into an equal table."""
    done = cdc_audit("schema", "migrate", env=databases.environment(AUDIT_SCHEMA="reference"))
    assert done.returncode == 0, done.stderr
    with psycopg.connect(databases.audit_dsn) as audit:
        columns = audit.execute(SQL["columns"]).fetchone()
    assert columns is not None
    out = f"\\copy (select {columns[0]} from audit.audit_logs) to '{file}'"
    subprocess.run(["psql", "-qXd", databases.audit_dsn, "-c", out], check=True)
    began = time.monotonic()
    subprocess.run(
        [
            "psql",
            "-qXd",
            databases.audit_dsn,
            "-c",
            f"\\copy reference.audit_logs ({columns[0]}) from '{file}'",
        ],
        check=True,
    )
    return time.monotonic() - began


def _report(rounds: list[dict[str, float]], rows: int) -> None:
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    print(
        f"{rows:,} rows in transactions of {ROWS_PER_TRANSACTION}; median of {len(rounds)} rounds (lowest to highest)"
    )
    for name in ("pg_recvlogical", "psql_copy", "cdc_audit"):
        values = sorted(one[name] for one in rounds)
        ratio = statistics.median(one["cdc_audit"] / one[name] for one in rounds)
        print(
            f"  {name:15} {medians[name]:>10,.0f} rows/s  ({values[0]:,.0f} to {values[-1]:,.0f})  cdc-audit is {ratio:.2f} of it"
        )
    print(
        f"  daemon CPU {medians['cpu_us_per_row']:.1f} us a row, "
        f"peak resident memory {max(one['peak_mib'] for one in rounds):.0f} MiB"
    )
    print(json.dumps({"rows": rows, "rounds": rounds, "median": medians}))


if __name__ == "__main__":
    main()
