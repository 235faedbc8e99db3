"""One daemon a slot works; a second one waits and takes over."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases


def rows(databases: Databases) -> int:
    with psycopg.connect(databases.audit_dsn) as audit:
        row = audit.execute("select count(*) from audit.audit_logs").fetchone()
        assert row is not None
        return int(row[0])


def test_the_second_daemon_waits_and_takes_over_within_five_seconds_of_a_sigkill(
    databases: Databases, tmp_path: Path
) -> None:
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    with DaemonProcess(env, tmp_path / "one") as one, DaemonProcess(env, tmp_path / "two") as two:
        until(lambda: 200 in (one.get("/readyz")[0], two.get("/readyz")[0]), "one of them streams")
        active, waiting = (one, two) if one.get("/readyz")[0] == 200 else (two, one)
        until(lambda: "another daemon" in waiting.get("/readyz")[1], "the other one is on standby")
        assert waiting.get("/healthz")[0] == 200
        databases.source.execute("insert into t values (1)", dbname=databases.source_name)
        until(lambda: rows(databases) == 1, "the first row")
        active.kill()
        killed = time.monotonic()
        databases.source.execute("insert into t values (2)", dbname=databases.source_name)
        until(lambda: rows(databases) == 2, "the second row", timeout=5)
        assert time.monotonic() - killed < 5
        assert waiting.get("/readyz")[0] == 200
        assert waiting.stop() == 0


def test_with_no_standby_the_second_one_exits_75_at_once(databases: Databases, tmp_path: Path) -> None:
    env = databases.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "one") as one:
        one.until_ready()
        second = cdc_audit("run", "--no-standby", env=env)
        assert second.returncode == 75
        assert "another daemon" in second.stderr


def test_a_daemon_that_was_stopped_and_woken_up_again_does_not_write_beside_its_successor(
    databases: Databases, tmp_path: Path
) -> None:
    """The lock goes with the connection: while the first one's connection lives, the second one waits."""
    import signal

    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    with DaemonProcess(env, tmp_path / "one") as one, DaemonProcess(env, tmp_path / "two") as two:
        until(lambda: 200 in (one.get("/readyz")[0], two.get("/readyz")[0]), "one of them streams")
        active, successor = (one, two) if one.get("/readyz")[0] == 200 else (two, one)
        active.signal(signal.SIGSTOP)
        # The audit database loses patience with the sleeping one, as a failover or a network would make it.
        databases.audit.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and application_name like 'cdc-audit%%'"
            " and pid in (select pid from pg_locks where locktype = 'advisory' and granted)",
            (databases.audit_name,),
        )
        databases.source.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s",
            (databases.slot,),
        )
        until(lambda: successor.get("/readyz")[0] == 200, "the successor streams")
        databases.source.execute("insert into t select generate_series(1, 50)", dbname=databases.source_name)
        active.signal(signal.SIGCONT)
        until(lambda: rows(databases) == 50, "all rows")
        until(lambda: "another daemon" in active.get("/readyz")[1], "the first one is on standby now")
        assert successor.stop() == 0
        until(lambda: active.get("/readyz")[0] == 200, "the first one takes over again")
        assert rows(databases) == 50
