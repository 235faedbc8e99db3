"""The daemon is never why a source can't stop, and an audit database that is away loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server


@pytest.fixture
def own(private_cluster: Callable[..., Server]) -> Databases:
    databases = new_databases(private_cluster("source"), private_cluster("audit"))
    databases.source.execute("create table t (id int primary key, v text)", dbname=databases.source_name)
    return databases


def count(databases: Databases) -> int:
    try:
        with psycopg.connect(databases.audit_dsn) as audit:
            row = audit.execute("select count(*) from audit.audit_logs").fetchone()
            assert row is not None
            return int(row[0])
    except psycopg.OperationalError:
        return -1


def insert(databases: Databases, first: int, last: int) -> None:
    databases.source.execute(
        "insert into t select n, repeat('x', 1000) from generate_series(%s::int, %s::int) n",
        (first, last),
        dbname=databases.source_name,
    )


def test_the_source_stops_within_five_seconds_while_the_audit_database_is_down(
    own: Databases, tmp_path: Path
) -> None:
    initialised(own.environment())
    with DaemonProcess(own.environment(BATCH_FLUSH_INTERVAL="0"), tmp_path / "log") as daemon:
        daemon.until_ready()
        own.audit.stop("immediate")
        insert(own, 1, 2000)
        until(lambda: daemon.get("/readyz")[0] == 503, "not ready")
        assert "audit database" in daemon.get("/readyz")[1]
        began = time.monotonic()
        own.source.stop("fast", timeout=10)
        took = time.monotonic() - began
        print(f"pg_ctl stop -m fast took {took:.1f} s")
        assert took < 5
        own.source.start()
        own.audit.start()
        until(lambda: count(own) == 2000, "all rows are there", 60)
        assert daemon.stop() == 0


def test_the_source_stops_within_five_seconds_while_the_audit_database_hangs(
    own: Databases, tmp_path: Path
) -> None:
    """A lock on the trail stands for every audit database that takes connections and does not answer."""
    initialised(own.environment())
    with DaemonProcess(own.environment(BATCH_FLUSH_INTERVAL="0"), tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(own.audit_dsn) as blocker:
            blocker.execute("lock table audit.audit_logs in access exclusive mode")
            insert(own, 1, 2000)
            until(lambda: daemon.metric("replication_lag_bytes") > 1_000_000, "lag")
            began = time.monotonic()
            own.source.stop("fast", timeout=10)
            assert time.monotonic() - began < 5
            blocker.rollback()
        own.source.start()
        until(lambda: count(own) == 2000, "all rows are there", 60)
        assert daemon.stop() == 0


def test_a_stall_drops_the_stream_and_what_was_handed_over_is_not_written_twice(
    own: Databases, tmp_path: Path
) -> None:
    initialised(own.environment())
    with DaemonProcess(own.environment(BATCH_FLUSH_INTERVAL="0"), tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(own.audit_dsn) as blocker:
            blocker.execute("lock table audit.audit_logs in access exclusive mode")
            insert(own, 1, 100)
            until(lambda: "has not answered" in daemon.get("/readyz")[1], "the stream is dropped", 20)
            until(
                lambda: own.source.execute("select not active from pg_replication_slots")[0][0],
                "the slot is free",
            )
            blocker.rollback()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        until(lambda: count(own) == 100, "all rows are there")
        assert daemon.stop() == 0


def test_lag_rises_while_the_audit_database_is_away_and_falls_again(own: Databases, tmp_path: Path) -> None:
    initialised(own.environment())
    env = own.environment(BATCH_FLUSH_INTERVAL="0", LEDGER_HEARTBEAT_INTERVAL="1")
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(own.audit_dsn) as blocker:
            blocker.execute("lock table audit.audit_logs in access exclusive mode")
            insert(own, 1, 3000)
            until(lambda: daemon.metric("replication_lag_bytes") > 2_000_000, "lag in bytes")
            until(lambda: daemon.metric("replication_lag_seconds") > 1, "lag in seconds")
            blocker.rollback()
        until(lambda: count(own) == 3000, "all rows are there", 60)
        until(lambda: daemon.metric("replication_lag_bytes") < 100_000, "no lag in bytes")
        until(lambda: daemon.metric("replication_lag_seconds") == 0, "no lag in seconds")


def test_the_daemon_waits_for_an_audit_database_that_is_away_at_its_start(
    own: Databases, tmp_path: Path
) -> None:
    initialised(own.environment())
    own.audit.stop("fast")
    with DaemonProcess(own.environment(), tmp_path / "log") as daemon:
        until(lambda: "audit database" in daemon.get("/readyz")[1], "it says what it waits for")
        assert daemon.get("/healthz")[0] == 200
        insert(own, 1, 10)
        own.audit.start()
        until(lambda: count(own) == 10, "all rows are there")
        assert daemon.stop() == 0


def test_sigterm_finishes_and_acknowledges_the_open_block(own: Databases, tmp_path: Path) -> None:
    initialised(own.environment())
    with DaemonProcess(own.environment(BATCH_FLUSH_INTERVAL="3600"), tmp_path / "log") as daemon:
        daemon.until_ready()
        insert(own, 1, 10)
        until(lambda: daemon.metric("replication_lag_bytes") > 0, "the rows have been written to the WAL")
        committed = own.source.execute("select pg_current_wal_lsn() - '0/0'")[0][0]
        received = "select sent_lsn - '0/0' from pg_stat_replication where application_name like 'cdc-audit%'"
        until(lambda: (own.source.execute(received) or [(0,)])[0][0] >= committed, "sent")
        assert daemon.stop() == 0
    assert count(own) == 10
    with psycopg.connect(own.audit_dsn) as audit:
        ledger = audit.execute("select max(end_lsn) from audit.ledger").fetchone()
    slot = own.source.execute("select confirmed_flush_lsn from pg_replication_slots")[0][0]
    assert ledger == (slot,)
