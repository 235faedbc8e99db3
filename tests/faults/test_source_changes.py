"""The source is not what it was: crashed, restored, promoted, another one, or with another slot. Nothing is skipped in silence."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cdc_audit.cli.demo.cluster import Cluster
from tests.faults.scene import advance, check, eighteen, kinds, local, prepared, under_load
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server


@pytest.fixture
def own(private_cluster: Callable[..., Server], audit_cluster: Server) -> Iterator[Databases]:
    """A source that a test may ruin, with a table."""
    databases = new_databases(private_cluster("source", settings={"max_wal_senders": 10}), audit_cluster)
    run(databases, "create table t (id int primary key)")
    yield databases
    databases.drop()


def run(databases: Databases, statements: str) -> None:
    databases.source.execute(statements, dbname=databases.source_name)


def stored(databases: Databases) -> list[int]:
    rows = databases.audit.execute(
        "select record_id::int from audit.audit_logs order by id", dbname=databases.audit_name
    )
    return [row[0] for row in rows]


def outcome(env: dict[str, str], log: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and last words of a daemon that ends by itself."""
    with DaemonProcess(env, log, *arguments) as daemon:
        return daemon.wait(30), daemon.log_text()


def streams_until(env: dict[str, str], log: Path, condition: Callable[[], object], what: str) -> None:
    with DaemonProcess(env, log) as daemon:
        daemon.until_ready()
        until(condition, what)
        assert daemon.stop() == 0


def twin(cluster: Server) -> Cluster:
    """A copy of a stopped server, slots included: a standby as far as it has come, or a backup."""
    original = local(cluster)
    copy = Cluster("twin", binaries=original.binaries)
    shutil.copytree(original.data, copy.data)
    with (copy.data / "postgresql.conf").open("a") as file:
        file.write(f"unix_socket_directories = '{copy.folder}'\n")
    if (owner := original.data.stat()).st_uid:
        for path in (copy.data, *copy.data.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
    return copy


def promote(standby: Cluster) -> None:
    """Start it as a standby and make a primary of it: on a timeline of its own."""
    (standby.data / "standby.signal").touch()
    standby.start()
    standby.execute("select pg_promote()")


def test_clean_restarts_under_load_lose_and_repeat_nothing(
    private_cluster: Callable[..., Server], audit_cluster: Server, tmp_path: Path
) -> None:
    """Before PostgreSQL 17 even these move the slot back: what the server then sends again is not stored again."""
    databases = new_databases(private_cluster("source"), audit_cluster)
    env, oracle = prepared(databases)
    with under_load(databases) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        for _ in range(3):
            until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
            advance(workload, 30)
            databases.source.restart("fast")
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.metric("reconnects_total", side="source") >= 3
        assert daemon.stop() == 0
    databases.drop()


def test_a_promoted_standby_that_has_all_is_followed(own: Databases, tmp_path: Path) -> None:
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    run(own, "insert into t values (1)")
    streams_until(env, tmp_path / "log", lambda: stored(own) == [1], "the first row")
    own.source.stop("fast")
    with twin(own.source) as standby:
        standby.stop()
        promote(standby)
        standby.execute("insert into t values (2)", dbname=own.source_name)
        new = {**env, "CDC_AUDIT_SOURCE_DSN": standby.dsn(own.source_name)}
        streams_until(new, tmp_path / "log", lambda: stored(own) == [1, 2], "the new primary's row")
        assert kinds(own) == ["genesis", "timeline"]
        assert cdc_audit("verify", env=env).returncode == 0
        own.source.start()
        code, said = outcome(env, tmp_path / "old")
        assert (code, "a former primary" in said) == (78, True), said
        assert stored(own) == [1, 2]


def test_what_a_promoted_standby_never_had_is_named_and_its_own_transactions_are_not_skipped(
    own: Databases, tmp_path: Path
) -> None:
    """Positions and transaction ids repeat on the new timeline. A backup that is restored and promoted is the same."""
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    run(own, "insert into t values (1)")
    streams_until(env, tmp_path / "log", lambda: stored(own) == [1], "the first row")
    own.source.stop("fast")
    with twin(own.source) as standby:
        standby.stop()
        own.source.start()
        run(own, "insert into t select generate_series(100, 600)")
        streams_until(env, tmp_path / "log", lambda: len(stored(own)) == 502, "rows that the standby lacks")
        own.source.stop("immediate")
        promote(standby)
        standby.execute("insert into t values (2); insert into t values (3)", dbname=own.source_name)
        new = {**env, "CDC_AUDIT_SOURCE_DSN": standby.dsn(own.source_name)}
        streams_until(new, tmp_path / "log", lambda: stored(own)[-2:] == [2, 3], "the new primary's rows")
        phantoms = own.audit.execute(
            "select array_agg(a.record_id::int order by a.id) from audit.ledger l join audit.audit_logs a"
            " on a.commit_lsn > (l.detail ->> 'phantoms_from')::pg_lsn and a.commit_lsn <= (l.detail ->> 'phantoms_to')::pg_lsn"
            " and a.id < l.first_id where l.kind = 'divergence'",
            dbname=own.audit_name,
        )
        assert phantoms == [(list(range(100, 601)),)], "exactly those that only the old primary had"
        assert cdc_audit("verify", env=env).returncode == 0
    own.source.start()


def test_another_cluster_behind_the_same_name_is_refused(own: Databases, tmp_path: Path) -> None:
    """Restored from a dump, or a DSN that points elsewhere."""
    env = own.environment()
    initialised(env)
    with Cluster("other") as other:
        other.create_database(own.source_name)
        other.execute(
            f"select pg_create_logical_replication_slot('{own.slot}', 'wal2json')", dbname=own.source_name
        )
        code, said = outcome(
            {**env, "CDC_AUDIT_SOURCE_DSN": other.dsn(own.source_name)},
            tmp_path / "log",
            "--accept-gap",
            "no",
        )
        assert (code, "another cluster" in said) == (78, True), said
    assert kinds(own) == ["genesis"] and stored(own) == []


def test_a_source_whose_wal_was_reset_stops_the_daemon(own: Databases, tmp_path: Path) -> None:
    """pg_resetwal keeps system identifier and timeline, and throws away what the slot needs."""
    source = local(own.source)
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    run(own, "insert into t values (1)")
    source.stop("fast")
    owner = source.data.stat().st_uid
    subprocess.run(
        [source.binaries.program("pg_resetwal"), "-f", source.data], check=True, user=owner or None
    )
    own.source.start()
    code, said = outcome(env, tmp_path / "log")
    assert code == 78, said
    assert "cdc-audit slot recreate" in said


def test_a_slot_that_somebody_advanced_is_a_gap_of_exactly_that_range(own: Databases, tmp_path: Path) -> None:
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    run(own, "insert into t values (1)")
    advanced = own.source.execute(
        "select (pg_replication_slot_advance(%s, pg_current_wal_lsn())).end_lsn::text",
        (own.slot,),
        dbname=own.source_name,
    )
    code, said = outcome(env, tmp_path / "log")
    assert (code, "ahead of the ledger" in said) == (78, True), said
    with DaemonProcess(env, tmp_path / "log", "--accept-gap", "advanced by hand") as daemon:
        daemon.until_ready()
        run(own, "insert into t values (2)")
        until(lambda: stored(own) == [2], "what came after")
        assert daemon.stop() == 0
    gap = own.audit.execute(
        "select g.end_lsn::text, g.start_lsn = b.end_lsn from audit.ledger g join audit.ledger b on b.block = g.block - 1"
        " where g.kind = 'gap'",
        dbname=own.audit_name,
    )
    assert gap == [(advanced[0][0], True)]


def test_an_audit_database_restored_from_a_backup_is_a_gap_not_a_silence(
    private_cluster: Callable[..., Server], source_cluster: Server, tmp_path: Path
) -> None:
    """Its ledger ends before what the source was told is durable; an asynchronous standby that took over is the same."""
    databases = new_databases(source_cluster, private_cluster("audit"))
    run(databases, "create table t (id int primary key)")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    run(databases, "insert into t values (1)")
    streams_until(env, tmp_path / "log", lambda: stored(databases) == [1], "the first row")
    databases.audit.stop("fast")
    with twin(databases.audit) as backup:
        databases.audit.start()
        run(databases, "insert into t values (2)")
        streams_until(env, tmp_path / "log", lambda: stored(databases) == [1, 2], "the second row")
        restored = {**env, "CDC_AUDIT_AUDIT_DSN": backup.dsn(databases.audit_name)}
        code, said = outcome(restored, tmp_path / "log")
        assert (code, "ahead of the ledger" in said) == (78, True), said
        of_backup = Databases(
            databases.source, backup, databases.source_name, databases.audit_name, databases.slot
        )
        ends = "select end_lsn::text from audit.ledger order by block desc limit 1"
        last, lost = (of.audit.execute(ends, dbname=of.audit_name) for of in (of_backup, databases))
        with DaemonProcess(restored, tmp_path / "log", "--accept-gap", "restored") as daemon:
            daemon.until_ready()
            run(databases, "insert into t values (3)")
            until(lambda: stored(of_backup) == [1, 3], "what came after the loss")
            assert daemon.stop() == 0
        gap = "select start_lsn::text, end_lsn::text from audit.ledger where kind = 'gap'"
        assert backup.execute(gap, dbname=databases.audit_name) == [(last[0][0], lost[0][0])]
        assert cdc_audit("verify", env=restored).returncode == 0
    databases.drop()


def test_a_slot_lost_while_the_daemon_slept_stops_it_with_the_way_on(
    private_cluster: Callable[..., Server], audit_cluster: Server, tmp_path: Path
) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    databases = new_databases(private_cluster("small", settings=settings), audit_cluster)
    run(databases, "create table t (id int)")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        daemon.signal(signal.SIGSTOP)
        for _ in range(4):
            run(databases, "insert into t values (1)")
            run(databases, "select pg_switch_wal()")
        run(databases, "checkpoint")
        assert databases.source.execute("select wal_status from pg_replication_slots") == [("lost",)]
        daemon.signal(signal.SIGCONT)
        assert daemon.wait(30) == 78
        assert "invalidated" in daemon.log_text() and "cdc-audit slot recreate" in daemon.log_text()
    databases.drop()


def test_a_server_whose_wal_level_was_lowered_does_not_start_with_the_slot_and_is_waited_for(
    own: Databases, tmp_path: Path
) -> None:
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(own, "alter system set wal_level = replica")
        own.source.stop("fast")
        with pytest.raises(Exception, match="wal_level"):
            own.source.start(timeout=10)
        until(lambda: "source database" in daemon.get("/readyz")[1], "it says whom it waits for")
        (local(own.source).data / "postgresql.auto.conf").write_text("")
        own.source.start()
        run(own, "insert into t values (1)")
        until(lambda: stored(own) == [1], "it goes on")
        assert daemon.stop() == 0


def test_a_plugin_that_is_refused_after_a_reload_stops_the_daemon_at_its_next_connection(
    audit_cluster: Server, tmp_path: Path
) -> None:
    """On 18, whose minor knows output_plugin_libraries whatever the system's server does."""
    with Cluster("eighteen", binaries=eighteen()) as source:
        databases = new_databases(source, audit_cluster)
        run(databases, "create table t (id int primary key)")
        env = databases.environment(SOURCE_PLUGIN="pgoutput", BATCH_FLUSH_INTERVAL="0")
        initialised(env)
        with DaemonProcess(env, tmp_path / "log") as daemon:
            daemon.until_ready()
            source.execute("alter system set output_plugin_libraries = test_decoding")
            source.execute("select pg_reload_conf()")
            setting = "select setting from pg_settings where name = 'output_plugin_libraries'"
            until(lambda: source.execute(setting) == [("test_decoding",)], "reloaded")
            source.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
            assert daemon.wait(30) == 78
            assert "output_plugin_libraries" in daemon.log_text() and "alter role" in daemon.log_text()
        source.execute("alter system reset output_plugin_libraries")
        source.execute("select pg_reload_conf()")
        until(lambda: "pgoutput" in source.execute(setting)[0][0], "allowed again")
        run(databases, "insert into t values (1)")
        streams_until(env, tmp_path / "log", lambda: stored(databases) == [1], "it goes on")
        databases.drop()


def test_a_slot_dropped_while_the_daemon_is_away_from_it_stops_it(own: Databases, tmp_path: Path) -> None:
    env = own.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(own.source_dsn, autocommit=True) as source:
            source.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
            dropping = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"
            until(lambda: source.execute(dropping).fetchall(), "dropped between two of its sessions")
        assert daemon.wait(30) == 78
        assert "does not exist" in daemon.log_text() and "cdc-audit slot" in daemon.log_text()


def test_a_slot_that_was_idle_for_too_long_is_lost_like_any_other(
    audit_cluster: Server, tmp_path: Path
) -> None:
    """PostgreSQL 18: idle_replication_slot_timeout, looked at by checkpoints."""
    settings = {"idle_replication_slot_timeout": "1s"}
    with Cluster("eighteen", binaries=eighteen(), settings=settings) as source:
        databases = new_databases(source, audit_cluster)
        run(databases, "create table t (id int primary key)")
        env = databases.environment(SOURCE_PLUGIN="pgoutput")
        initialised(env)
        slots = "select invalidation_reason from pg_replication_slots"
        until(lambda: source.execute("checkpoint; " + slots) == [("idle_timeout",)], "invalidated")
        code, said = outcome(env, tmp_path / "log")
        assert code == 78, said
        assert "invalidated" in said and "cdc-audit slot recreate" in said
        databases.drop()
