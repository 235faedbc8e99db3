"""A trail in Iceberg tables keeps the promise that one in PostgreSQL keeps."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases
from tests.support.lake import Lake
from tests.support.oracle import Oracle
from tests.support.workload import SCHEMAS, Workload

POINTS = ("lake-file-begun", "lake-file-ended", "lake-rows-kept")
KILLS = int(os.environ.get("CDC_AUDIT_TEST_KILLS", "5"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def prepared(databases: Databases, lake: Lake) -> tuple[dict[str, str], Oracle]:
    """Tables, daemon's slot and oracle, in this order."""
    env = lake.environment(databases, BATCH_FLUSH_INTERVAL="0.2")
    Workload.install(databases.source_dsn)
    initialised(env)
    return env, Oracle.install(databases.source_dsn, SCHEMAS)


def with_table(databases: Databases, lake: Lake) -> dict[str, str]:
    """A table of one column, and all that the daemon needs."""
    env = lake.environment(databases)
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    return env


def verified(env: dict[str, str]) -> dict[str, Any]:
    done = cdc_audit("verify", "--json", env=env)
    report: dict[str, Any] = json.loads(done.stdout or "{}")
    assert done.returncode == report.get("exit_code"), done.stderr
    return report


def let_store(daemon: DaemonProcess, blocks: int) -> None:
    """Wait until it has stored so many blocks of rows since it began."""
    until(lambda: daemon.metric("blocks_total", kind="data") >= blocks, "blocks")


def let_acknowledge(databases: Databases) -> None:
    """Wait until the slot's reader has acknowledged all that is committed by now."""
    (position,) = databases.source.execute(
        "select pg_current_wal_insert_lsn()::text", dbname=databases.source_name
    )[0]
    asked = f"select confirmed_flush_lsn >= '{position}' from pg_replication_slots where slot_name = '{databases.slot}'"
    until(lambda: databases.source.execute(asked, dbname=databases.source_name) == [(True,)], "all", 120)


def advance(workload: Workload, transactions: int) -> None:
    """Wait until so many more are committed."""
    at = workload.committed + transactions
    until(lambda: workload.committed >= at, "more transactions")


def test_sigkills_lose_and_repeat_nothing_in_a_lake(databases: Databases, lake: Lake, tmp_path: Path) -> None:
    env, oracle = prepared(databases, lake)
    moments = random.Random(7)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        workload = Workload(databases.source_dsn, seed=5, transactions=10**6, events=True, pause=0.01)
        workload.start()
        for kill in range(KILLS):
            if kill % 4:  # every fourth one may hit it while it still begins
                daemon.until_ready()
                let_store(daemon, moments.randrange(1, 4))
            advance(workload, moments.randrange(1, 100))
            daemon.kill()
            daemon.start()
        workload.stop()
        workload.join()
        oracle.mark()
        let_acknowledge(databases)
        assert len(daemon.events("streaming")) >= KILLS * 3 // 4, "killed before it ever streamed"
        assert daemon.stop() == 0
    report = verified(env)
    assert (report["verdict"], report["rows"]) == ("verified", len(lake.rows(("id",))))
    lake.copy_into(databases)
    difference = oracle.compare(databases.audit_dsn, schema="lake")
    print(
        f"{workload.committed} transactions, {report['rows']} rows, {report['blocks']} blocks, {KILLS} kills: {difference}"
    )
    assert difference.is_none, difference


@pytest.mark.parametrize("failpoint", [*POINTS, "acknowledged:2"])
def test_a_daemon_that_dies_at_any_step_of_a_block_leaves_it_whole_or_not_at_all(
    failpoint: str, databases: Databases, lake: Lake, tmp_path: Path
) -> None:
    env = with_table(databases, lake)
    with DaemonProcess({**env, "CDC_AUDIT_FAILPOINT": failpoint}, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute("insert into t select generate_series(1, 50)", dbname=databases.source_name)
        until(lambda: not daemon.is_running, "the failpoint")
    assert verified(env)["verdict"] == "verified"  # also of what it has left
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        until(lambda: len(lake.rows(("id",))) == 50, "the rows")
        until(lambda: sum(block["row_count"] for block in lake.blocks()) == 50, "their header")
        assert daemon.stop() == 0
    assert [row["record_id"] for row in lake.rows()] == [str(number) for number in range(1, 51)]
    assert verified(env)["verdict"] == "verified"


def test_of_two_daemons_that_both_believe_themselves_alone_one_is_refused(
    databases: Databases, lake: Lake, tmp_path: Path
) -> None:
    env = with_table(databases, lake)
    end_reader = f"select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{databases.slot}'"
    with DaemonProcess(env, tmp_path / "one") as one:
        one.until_ready()
        with DaemonProcess(env, tmp_path / "other") as other:
            until(lambda: '"standby"' in other.log_text(), "a daemon in waiting")
            one.signal(signal.SIGSTOP)
            databases.source.execute("insert into t values (1)", dbname=databases.source_name)
            databases.source.execute(end_reader, dbname="postgres")
            until(lambda: len(lake.rows(("id",))) == 1, "the row, by the other one")
            one.signal(signal.SIGCONT)
            databases.source.execute("insert into t values (2)", dbname=databases.source_name)
            until(lambda: len(lake.rows(("id",))) == 2, "the next row")
            assert [row["record_id"] for row in lake.rows()] == ["1", "2"]
            assert other.stop() == one.stop() == 0
    assert verified(env)["verdict"] == "verified"


def test_a_table_that_others_compact_meanwhile_is_written_on_and_verified(
    databases: Databases, lake: Lake, tmp_path: Path
) -> None:
    env = with_table(databases, lake)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        for number in range(4):
            databases.source.execute(f"insert into t values ({number})", dbname=databases.source_name)
            let_store(daemon, number + 1)
            if number == 2:
                with lake.table("audit_logs") as rows, lake.table("ledger") as ledger:
                    for table in (rows, ledger):
                        table.overwrite(table.scan().to_arrow())
        assert daemon.stop() == 0
    assert [row["record_id"] for row in lake.rows()] == ["0", "1", "2", "3"]
    report = verified(env)
    assert (report["verdict"], report["rows"]) == ("verified", 4), report["findings"]


def test_what_is_changed_in_a_lake_is_named(databases: Databases, lake: Lake, tmp_path: Path) -> None:
    env = with_table(databases, lake)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        for number in range(3):
            databases.source.execute(f"insert into t values ({number})", dbname=databases.source_name)
            let_store(daemon, number + 1)
        assert daemon.stop() == 0
    assert verified(env)["verdict"] == "verified"
    with lake.table("audit_logs") as table:
        table.delete("id == 2")
    report = verified(env)
    assert report["verdict"] == "tampered"
    assert [(one["kind"], one["first"]) for one in report["findings"]] == [("removed", 2)]


def test_a_header_in_a_lake_that_can_not_be_read_is_a_finding(
    databases: Databases, lake: Lake, tmp_path: Path
) -> None:
    env = with_table(databases, lake)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute("insert into t values (1)", dbname=databases.source_name)
        let_store(daemon, 1)
        assert daemon.stop() == 0
    with lake.table("ledger") as table:
        rows = table.scan().to_arrow()
        blank = rows.set_column(
            rows.schema.get_field_index("start_lsn"), "start_lsn", [[None] * rows.num_rows]
        )
        table.overwrite(blank.cast(rows.schema))
    report = verified(env)
    assert report["verdict"] == "tampered"
    assert {one["unit"] for one in report["findings"]} >= {"block"}


def test_commands_that_ask_a_database_say_where_to_ask_instead(databases: Databases, lake: Lake) -> None:
    env = lake.environment(databases)
    for arguments in (("log",), ("who", "ann"), ("schema", "migrate"), ("archive", "plan"), ("hold", "list")):
        done = cdc_audit(*arguments, env=env)
        assert done.returncode == 78, (arguments, done.stderr)
        assert "Iceberg" in done.stderr
    done = cdc_audit("verify", "--archive", "file:/nowhere", env=env)
    assert (done.returncode, "no archives" in done.stderr) == (2, True)
    done = cdc_audit("run", "--check", env=env | {"CDC_AUDIT_AUDIT_RECORD_READS": "true"})
    assert (done.returncode, "record_reads" in done.stderr) == (78, True)
