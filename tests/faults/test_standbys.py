"""Sources of PostgreSQL 17 and newer: failover slots, a standby that takes over by itself, and one that is the source."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from cdc_audit.cli.demo.cluster import Cluster
from tests.faults.scene import eighteen, kinds
from tests.faults.test_source_changes import run, stored, twin
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

# What sync_replication_slots does by itself, in its own good time.
SYNCHRONISE = "select pg_sync_replication_slots()"
SYNCHRONISED = (
    "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots"
    " where slot_name = %s and synced and not temporary"
)
WAITS_FOR_STANDBY = "select 1 from pg_stat_activity where wait_event = 'WaitForStandbyConfirmation'"


@pytest.fixture
def own(audit_cluster: Server) -> Iterator[Databases]:
    """A source of PostgreSQL 18 with a table."""
    with Cluster("eighteen", binaries=eighteen()) as source:
        databases = new_databases(source, audit_cluster)
        run(databases, "create table t (id int primary key)")
        yield databases
        source.start()
        databases.drop()


@pytest.fixture
def standby(own: Databases) -> Iterator[Cluster]:
    """A streaming standby of it, without which nothing is sent."""
    own.source.execute("select pg_create_physical_replication_slot('standby', true)")
    own.source.execute("alter system set synchronized_standby_slots = 'standby'")
    own.source.stop("fast")
    copy = twin(own.source)
    settings = {
        "primary_conninfo": own.source.dsn().replace("'", "''"),
        "primary_slot_name": "standby",
        "hot_standby_feedback": "on",
        "wal_retrieve_retry_interval": "100ms",
        "synchronized_standby_slots": "",
    }
    lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
    (copy.data / "postgresql.auto.conf").write_text("".join(lines))
    (copy.data / "standby.signal").touch()
    own.source.start()
    with copy:
        yield copy


def either(one: Server, other: Server, database: str) -> str:
    """A connection string of both servers, for whichever takes writes."""
    assert isinstance(one, Cluster) and isinstance(other, Cluster)
    return make_conninfo(
        host=f"{one.host},{other.host}",
        port=f"{one.port},{other.port}",
        dbname=database,
        user="postgres",
        target_session_attrs="read-write",
    )


def test_a_daemon_with_both_servers_in_its_dsn_follows_a_failover_by_itself(
    own: Databases, standby: Cluster, tmp_path: Path
) -> None:
    """The slot is made so that the standby keeps it in step, and nothing is read that the standby lacks: no divergence."""
    env = own.environment(
        SOURCE_PLUGIN="pgoutput",
        SOURCE_DSN=either(own.source, standby, own.source_name),
        BATCH_FLUSH_INTERVAL="0",
        LEDGER_HEARTBEAT_INTERVAL="1",
    )
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(own, "insert into t values (1)")
        until(lambda: stored(own) == [1], "the first row")
        ((at,),) = own.source.execute(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", (own.slot,)
        )

        def has_the_slot() -> bool:
            own.source.execute("select pg_log_standby_snapshot()")  # by itself it does so every 15 s
            standby.execute(SYNCHRONISE)
            return standby.execute(SYNCHRONISED, (at, own.slot)) == [(True,)]

        until(has_the_slot, "the standby has the slot", 60)
        standby.stop("fast")
        run(own, "insert into t values (2)")
        until(lambda: own.source.execute(WAITS_FOR_STANDBY), "what the standby lacks isn't sent")
        assert stored(own) == [1]
        own.source.kill()
        standby.start()
        standby.execute("select pg_promote()")
        standby.execute("insert into t values (3)", dbname=own.source_name)
        until(lambda: stored(own) == [1, 3], "the new primary's row", 60)
        assert daemon.get("/readyz")[0] == 200
        assert daemon.stop() == 0
    assert kinds(own) == ["genesis", "timeline"]
    assert cdc_audit("verify", env=env).returncode == 0


@contextlib.contextmanager
def logged_snapshots(primary: Server) -> Iterator[None]:
    """A standby waits for the primary's word on its running transactions; by itself it gives one every 15 s."""
    stopping = threading.Event()

    def log() -> None:
        while not stopping.wait(0.2):
            primary.execute("select pg_log_standby_snapshot()")

    thread = threading.Thread(target=log)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_a_standby_may_be_the_source_and_be_promoted_under_the_daemon(
    own: Databases, standby: Cluster, tmp_path: Path
) -> None:
    """Its positions after that are another timeline's, which the stream doesn't say: nothing is stored as the old one's."""
    env = own.environment(
        SOURCE_PLUGIN="pgoutput", SOURCE_DSN=standby.dsn(own.source_name), BATCH_FLUSH_INTERVAL="0"
    )
    refused = cdc_audit("source", "install", env=env)
    assert refused.returncode == 78 and "admin_dsn naming the primary" in refused.stderr
    on_primary = {**env, "CDC_AUDIT_SOURCE_ADMIN_DSN": own.source_dsn}
    for command, given in (
        (("source", "install"), on_primary),
        (("source", "tables"), on_primary),
        (("schema", "migrate"), env),
        (("slot", "create"), env),
    ):
        with logged_snapshots(own.source):
            done = cdc_audit(*command, env=given)
        assert done.returncode == 0, done.stderr
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(own, "insert into t values (1)")
        until(lambda: stored(own) == [1], "the standby's row")
        own.source.stop("fast")
        standby.execute("select pg_promote()")
        standby.execute("insert into t values (2); insert into t values (3)", dbname=own.source_name)
        until(lambda: stored(own) == [1, 2, 3], "what came after its promotion")
        assert "turned from timeline 1 to 2" in daemon.log_text()
        assert daemon.stop() == 0
    standby.execute("insert into t values (4)", dbname=own.source_name)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        until(lambda: stored(own)[-1] == 4, "what came while no daemon ran")
        daemon.until_ready()
        assert daemon.stop() == 0
    assert stored(own) == [1, 2, 3, 4]
    assert kinds(own) == ["genesis", "timeline"]
    assert cdc_audit("verify", env=env).returncode == 0
