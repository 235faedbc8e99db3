"""What the daemon says of itself: every name of the design, with true values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

NAMES = [
    "replication_lag_bytes",
    "replication_lag_seconds",
    "slot_retained_bytes",
    "slot_safe_wal_bytes",
    "slot_active",
    "slot_wal_status",
    "rows_total",
    "transactions_total",
    "blocks_total",
    "commit_to_durable_seconds_count",
    "block_write_seconds_count",
    "context_rows_total",
    "suppressed_changes_total",
    "redacted_values_total",
    "tables_without_identity",
    "reconnects_total",
    "last_commit_timestamp_seconds",
    "last_block",
    "build_info",
]


def promtool() -> str | None:
    """Where promtool is: installed, or put there by .ci/setup.sh."""
    return shutil.which("promtool") or next(map(str, Path(".cache/tools").glob("**/promtool")), None)


@pytest.fixture
def busy(databases: Databases, tmp_path: Path) -> tuple[Databases, DaemonProcess]:
    databases.source.execute(
        "create table t (id int primary key, password text)", dbname=databases.source_name
    )
    databases.source.execute("create table loose (id int)", dbname=databases.source_name)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LEDGER_HEARTBEAT_INTERVAL="1")
    initialised(env)
    return databases, DaemonProcess(env, tmp_path / "log")


def test_every_metric_of_the_design_is_there_with_its_true_value(
    busy: tuple[Databases, DaemonProcess],
) -> None:
    databases, daemon = busy
    with daemon:
        daemon.until_ready()
        with psycopg.connect(databases.source_dsn) as source:
            source.execute("""select cdc_audit.set_context('{"user_id":"u1"}')""")
            source.execute("insert into t values (1, 'secret'), (2, null), (3, 'secret')")
            source.execute("update t set password = 'other' where id = 1")
            source.commit()
            source.execute("insert into loose values (1)")
            source.execute("delete from loose")
        until(lambda: daemon.metric("rows_total", action="DELETE") == 1, "all rows are counted")
        text = daemon.get("/metrics")[1]
        missing = [name for name in NAMES if f"cdc_audit_{name}" not in text]
        assert not missing
        assert daemon.metric("rows_total", action="INSERT") == 4
        assert daemon.metric("rows_total", action="UPDATE") == 1
        assert daemon.metric("context_rows_total", trust="signed") == 4
        assert daemon.metric("context_rows_total", trust="none") == 2
        assert daemon.metric("suppressed_changes_total", table="public.loose") == 1
        assert daemon.metric("redacted_values_total") == 3  # a null tells nothing: two inserts, one new image
        assert daemon.metric("tables_without_identity") == 1
        assert daemon.metric("slot_active") == 1
        with psycopg.connect(databases.audit_dsn) as audit:
            last = audit.execute(
                "select block, extract(epoch from last_commit_at)::float8 from audit.ledger order by block desc limit 1"
            ).fetchone()
        assert last is not None
        assert daemon.metric("last_block") >= last[0]
        assert daemon.metric("last_commit_timestamp_seconds") == pytest.approx(last[1], abs=0.001)
        until(lambda: daemon.metric("replication_lag_bytes") == 0, "no lag")
        until(lambda: daemon.metric("replication_lag_seconds") == 0, "no lag in seconds")


def test_promtool_has_no_complaint(busy: tuple[Databases, DaemonProcess]) -> None:
    databases, daemon = busy
    tool = promtool()
    if tool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    with daemon:
        daemon.until_ready()
        databases.source.execute("insert into t values (1, 'x')", dbname=databases.source_name)
        until(lambda: daemon.metric("rows_total", action="INSERT") == 1, "a row is counted")
        checked = subprocess.run(
            [tool, "check", "metrics"], input=daemon.get("/metrics")[1], capture_output=True, text=True
        )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_heartbeats_acknowledge_what_others_wrote_so_that_an_idle_slot_keeps_no_wal(
    busy: tuple[Databases, DaemonProcess],
) -> None:
    """Case 83."""
    databases, daemon = busy
    with daemon:
        daemon.until_ready()
        databases.source.execute("select pg_logical_emit_message(true, 'other', repeat('x', 3000000))")
        written = databases.source.execute("select pg_current_wal_lsn() - '0/0'")[0][0]
        confirmed = f"select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = '{databases.slot}'"
        until(lambda: databases.source.execute(confirmed)[0][0] >= written, "the idle slot moves on")
        assert daemon.metric("blocks_total", kind="heartbeat") >= 1
    kinds = databases.audit.execute("select distinct kind from audit.ledger", dbname=databases.audit_name)
    assert sorted(kinds) == [("genesis",), ("heartbeat",)]
