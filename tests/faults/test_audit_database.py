"""The audit database's bad days: full, read-only, a standby, slow to commit, forgetful, partly gone, or locked."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_audit.cli.demo.cluster import Cluster
from tests.faults.scene import advance, check, local, prepared, under_load
from tests.faults.test_source_changes import run, stored, twin
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

END_SESSIONS = (
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'cdc-audit%'"
)


@pytest.fixture
def own(source_cluster: Server, private_cluster: Callable[..., Server]) -> Iterator[Databases]:
    """An audit server that a test may ruin."""
    databases = new_databases(source_cluster, private_cluster("audit"))
    yield databases
    databases.drop()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 64 MB, which only root can make; not in pytest's folder: any other pytest closes that to the server."""
    with tempfile.TemporaryDirectory(prefix="cdc-audit-disk-") as place:
        folder = Path(place, "small")
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True
        )
        if done.returncode:
            pytest.skip("a full disk needs a file system of its own, and so root")
        for one in (folder, folder.parent):
            one.chmod(0o755)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, left: int) -> Path:
    """A file that takes all room but so many bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)
    return ballast


def given_to(server: Cluster, folder: Path) -> None:
    """The folder belongs to the account that the server runs as."""
    owner = server.data.stat()
    shutil.chown(folder, owner.st_uid, owner.st_gid)


def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    own: Databases, small_disk: Path, tmp_path: Path
) -> None:
    folder = small_disk / "space"
    folder.mkdir()
    given_to(local(own.audit), folder)
    own.audit.execute(f"create tablespace small location '{folder}'")
    own.audit.execute(f'alter database "{own.audit_name}" set tablespace small')
    env, oracle = prepared(own)
    ballast = fill(small_disk, 2_000_000)
    with under_load(own) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        run(
            own,
            "insert into app.things (name) select md5(random()::text || n) from generate_series(1, 8000) n",
        )
        until(lambda: "(53100)" in daemon.get("/readyz")[1], "it says that the disk is full", 60)
        assert daemon.get("/healthz")[0] == 200
        ballast.unlink()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        workload.stop()
        workload.join()
        check(own, oracle, env)
        assert daemon.stop() == 0
    own.audit.execute(f'alter database "{own.audit_name}" set tablespace pg_default')
    own.audit.execute("drop tablespace small")


def test_a_full_disk_under_the_audit_databases_wal_is_a_crash_and_nothing_is_lost(
    source_cluster: Server, small_disk: Path, tmp_path: Path
) -> None:
    """PostgreSQL panics, and can't even recover before there is room."""
    # No checkpoint may make room meanwhile, nor leave files for what comes.
    settings = {
        "min_wal_size": "2MB",
        "max_wal_size": "1GB",
        "checkpoint_timeout": "1h",
        "wal_recycle": "off",
    }
    with Cluster("audit", settings=settings, initdb_options=["--wal-segsize=1"], fsync=True) as audit:
        audit.stop("fast")
        wal = small_disk / "wal"
        shutil.move(audit.data / "pg_wal", wal)
        (audit.data / "pg_wal").symlink_to(wal)
        for path in (wal, *wal.rglob("*")):
            given_to(audit, path)
        audit.start()
        databases = new_databases(source_cluster, audit)
        env, oracle = prepared(databases)
        with under_load(databases) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
            daemon.until_ready()
            ballast = fill(small_disk, 1_500_000)
            body = "select md5(random()::text || n) from generate_series(1, 10000) n"
            run(databases, f"insert into app.things (name) {body}")
            until(lambda: "PANIC" in audit.log_text(), "the server panics", 60)
            assert "No space left on device" in audit.log_text()
            until(lambda: "audit database" in daemon.get("/readyz")[1], "it says whom it waits for")
            ballast.unlink()
            audit.kill()
            audit.start()
            until(lambda: daemon.get("/readyz")[0] == 200, "streaming again", 60)
            workload.stop()
            workload.join()
            check(databases, oracle, env)
            assert daemon.stop() == 0
        databases.drop()


def test_a_read_only_audit_database_is_waited_for(own: Databases, tmp_path: Path) -> None:
    env, oracle = prepared(own)
    with under_load(own) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        own.audit.execute(f'alter database "{own.audit_name}" set default_transaction_read_only = on')
        own.audit.execute(END_SESSIONS)
        until(lambda: "(25006)" in daemon.get("/readyz")[1], "it says that it may only read")
        own.audit.execute(f'alter database "{own.audit_name}" reset default_transaction_read_only')
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        advance(workload, 5)
        workload.stop()
        workload.join()
        check(own, oracle, env)
        assert daemon.stop() == 0


def test_a_standby_takes_no_writes_until_it_is_promoted(own: Databases, tmp_path: Path) -> None:
    run(own, "create table t (id int primary key)")
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    own.audit.stop("fast")
    with twin(own.audit) as standby:
        standby.stop()
        (standby.data / "standby.signal").touch()
        standby.start()
        run(own, "insert into t values (1)")
        new = {**env, "CDC_AUDIT_AUDIT_DSN": standby.dsn(own.audit_name)}
        with DaemonProcess(new, tmp_path / "log") as daemon:
            until(lambda: "is a standby" in daemon.get("/readyz")[1], "it says why it waits")
            standby.execute("select pg_promote()")
            until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
            rows = "select record_id from audit.audit_logs"
            until(lambda: standby.execute(rows, dbname=own.audit_name) == [("1",)], "stored")
            assert daemon.stop() == 0
    own.audit.start()


def test_a_commit_that_takes_for_ever_is_neither_repeated_nor_forgotten_when_the_daemon_is_killed_in_it(
    own: Databases, tmp_path: Path
) -> None:
    """A synchronous standby that is away stands for every slow fsync: COMMIT was done and is not answered."""
    env, oracle = prepared(own)
    with under_load(own) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        advance(workload, 5)
        own.audit.execute("alter system set synchronous_standby_names = 'nobody'")
        own.audit.execute("select pg_reload_conf()")
        waiting = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'"
        until(lambda: own.audit.execute(waiting) == [(True,)], "COMMIT hangs")
        daemon.kill()
        daemon.start()
        until(lambda: "another daemon" in daemon.get("/readyz")[1], "the first one's session still lives")
        own.audit.execute("alter system reset synchronous_standby_names")
        own.audit.execute("select pg_reload_conf()")
        until(lambda: daemon.get("/readyz")[0] == 200, "it takes over")
        workload.stop()
        workload.join()
        check(own, oracle, env)
        assert daemon.stop() == 0


def test_an_audit_database_told_to_commit_lazily_loses_nothing_in_a_crash(
    source_cluster: Server, private_cluster: Callable[..., Server], tmp_path: Path
) -> None:
    """The daemon's session asks for a durable COMMIT itself."""
    databases = new_databases(source_cluster, private_cluster("audit", fsync=True))
    databases.audit.execute(f'alter database "{databases.audit_name}" set synchronous_commit = off')
    env, oracle = prepared(databases)
    with under_load(databases) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        for _ in range(3):
            until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
            advance(workload, 20)
            databases.audit.restart("immediate")
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0
    databases.drop()


def test_a_partition_that_somebody_dropped_takes_its_rows_along_and_verify_says_which(
    own: Databases, tmp_path: Path
) -> None:
    run(own, "create table t (id int primary key)")
    env = own.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(own, "insert into t values (1)")
        until(lambda: stored(own) == [1], "the first row")
        own.audit.execute(
            "do $$ begin execute 'drop table audit.audit_logs_' || to_char(now() at time zone 'UTC', 'YYYY_MM'); end $$",
            dbname=own.audit_name,
        )
        run(own, "insert into t values (2)")
        until(lambda: stored(own) == [2], "the daemon goes on")
        assert daemon.stop() == 0
    verified = cdc_audit("verify", env=env)
    assert verified.returncode == 1 and "removed" in verified.stdout, verified.stdout


def test_a_changed_password_stops_the_daemon_with_the_place_to_correct(
    own: Databases, tmp_path: Path
) -> None:
    hba = local(own.audit).data / "pg_hba.conf"
    hba.write_text("local all auditor scram-sha-256\n" + hba.read_text())
    own.audit.execute("create role auditor superuser login password 'old'; select pg_reload_conf()")
    dsn = make_conninfo(own.audit_dsn, user="auditor")
    run(own, "create table t (id int primary key)")
    env = own.environment(AUDIT_DSN=make_conninfo(dsn, password="old"), BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        own.audit.execute("alter role auditor password 'new'")
        own.audit.execute(END_SESSIONS)
        assert daemon.wait(30) == 77
        assert "correct user or password of [audit] dsn" in daemon.log_text()
        assert "'old'" not in daemon.log_text() and "password=" not in daemon.log_text()
    env["CDC_AUDIT_AUDIT_DSN"] = make_conninfo(dsn, password="new")
    run(own, "insert into t values (1)")
    with DaemonProcess(env, tmp_path / "log") as daemon:
        until(lambda: stored(own) == [1], "with the new one it goes on")
        daemon.until_ready()
        assert daemon.stop() == 0


def test_a_lock_that_ends_in_a_cancelled_statement_is_only_a_delay(own: Databases, tmp_path: Path) -> None:
    """An administrator who cancels what hangs (57014) is no reason to stop."""
    env, oracle = prepared(own)
    hanging = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
    with under_load(own) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(own.audit_dsn) as blocker:
            blocker.execute("lock table audit.audit_logs in access exclusive mode")
            until(lambda: own.audit.execute(hanging) == [(True,)], "cancelled")
            until(lambda: daemon.metric("reconnects_total", side="audit") >= 1, "it tries again")
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        advance(workload, 5)
        workload.stop()
        workload.join()
        check(own, oracle, env)
        assert daemon.stop() == 0
