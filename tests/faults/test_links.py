"""What a network does: connections that break, hang, crawl, or lose the one answer that matters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.faults.scene import advance, check, prepared, under_load
from tests.faults.test_source_changes import run
from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.oracle import wait_for
from tests.support.proxy import Proxy
from tests.support.servers import Server, new_server

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"  # the server's answer to COMMIT


def behind(dsn: str) -> Proxy:
    """A proxy before the server of a DSN (TCP)."""
    direct = conninfo_to_dict(dsn)
    return Proxy(str(direct["host"]), int(str(direct["port"])))


def through(proxy: Proxy, dsn: str, **more: str) -> str:
    """The same DSN by way of the proxy."""
    return make_conninfo(dsn, host="127.0.0.1", port=proxy.port, sslmode="disable", **more)


@pytest.fixture
def far_audit(
    source_cluster: Server, private_cluster: Callable[..., Server]
) -> Iterator[tuple[Databases, Proxy, str]]:
    """An audit database behind a proxy, and its DSN."""
    databases = new_databases(source_cluster, private_cluster("audit", tcp=True))
    with behind(databases.audit_dsn) as proxy:
        yield databases, proxy, through(proxy, databases.audit_dsn)
    databases.drop()


@pytest.fixture
def far_source(
    private_cluster: Callable[..., Server], audit_cluster: Server
) -> Iterator[tuple[Databases, Proxy, str]]:
    """A source behind a proxy, and its DSN."""
    databases = new_databases(private_cluster("source", tcp=True), audit_cluster)
    with behind(databases.source_dsn) as proxy:
        yield databases, proxy, through(proxy, databases.source_dsn)
    databases.drop()


@pytest.mark.parametrize("ends", ["cut", "sigkill"])
def test_a_commit_whose_answer_is_lost_counts_once(
    ends: str, far_audit: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    """K8: COMMIT was done and nobody was told. The ledger is asked, not memory."""
    databases, proxy, dsn = far_audit
    env, oracle = prepared(databases)
    with (
        under_load(databases) as workload,
        DaemonProcess({**env, "CDC_AUDIT_AUDIT_DSN": dsn}, tmp_path / "log") as daemon,
    ):
        for _ in range(3):
            until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
            advance(workload, 5)
            proxy.held.clear()
            proxy.hold_at = COMMITTED
            assert proxy.held.wait(30), "no COMMIT was withheld"
            if ends == "sigkill":
                daemon.kill()
                daemon.start()
            proxy.cut()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming")
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_an_audit_database_that_hangs_at_the_other_end_of_a_network_holds_neither_slot_nor_source(
    far_audit: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    databases, proxy, dsn = far_audit
    env, oracle = prepared(databases)
    readers = "select active from pg_replication_slots where slot_name = %s"
    with (
        under_load(databases) as workload,
        DaemonProcess({**env, "CDC_AUDIT_AUDIT_DSN": dsn}, tmp_path / "log") as daemon,
    ):
        daemon.until_ready()
        advance(workload, 20)
        proxy.stall()
        until(lambda: "has not answered" in daemon.get("/readyz")[1], "it says what it waits for", 20)
        until(lambda: databases.source.execute(readers, (databases.slot,)) == [(False,)], "the slot is free")
        advance(workload, 20)
        proxy.cut()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_a_source_that_hangs_at_the_other_end_of_a_network_is_given_up_within_half_a_minute(
    far_source: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    databases, proxy, dsn = far_source
    env, oracle = prepared(databases)
    with (
        under_load(databases) as workload,
        DaemonProcess({**env, "CDC_AUDIT_SOURCE_DSN": dsn}, tmp_path / "log") as daemon,
    ):
        daemon.until_ready()
        advance(workload, 20)
        proxy.stall()
        until(lambda: "no answer within" in daemon.get("/readyz")[1], "it notices", 30)
        proxy.cut()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again", 60)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_a_stream_alone_that_hangs_is_given_up_when_the_server_gives_it_up(
    far_source: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    """A firewall that forgets one connection: the server's keepalives and our reports get lost."""
    databases, proxy, dsn = far_source
    dsn = make_conninfo(dsn, options="-c wal_sender_timeout=2000")
    env, oracle = prepared(databases)
    with (
        under_load(databases) as workload,
        DaemonProcess({**env, "CDC_AUDIT_SOURCE_DSN": dsn}, tmp_path / "log") as daemon,
    ):
        daemon.until_ready()
        advance(workload, 20)
        streams = "select pid from pg_stat_replication where application_name like 'cdc-audit%'"
        walsender = databases.source.execute(streams)[0][0]
        proxy.stall_one(
            databases.source.execute(
                "select client_port from pg_stat_replication where pid = %s", (walsender,)
            )[0][0]
        )
        until(lambda: "given the stream up" in daemon.log_text(), "it notices", 20)
        assert "terminating walsender process due to replication timeout" in databases.source.log_text()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again", 60)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_a_slow_audit_database_makes_no_walsender_time_out_in_a_large_transaction(
    far_audit: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    """The reports go out while nothing is read: else the transaction would be read, given up and read again for ever."""
    databases, proxy, dsn = far_audit
    env, oracle = prepared(
        databases, SOURCE_DSN=make_conninfo(databases.source_dsn, options="-c wal_sender_timeout=1000")
    )
    with DaemonProcess({**env, "CDC_AUDIT_AUDIT_DSN": dsn}, tmp_path / "log") as daemon:
        daemon.until_ready()
        proxy.rate = 3_000_000
        databases.source.execute(
            "insert into app.things (name) select repeat('n', 60000) from generate_series(1, 300)",
            dbname=databases.source_name,
        )
        check(databases, oracle, env)
        proxy.rate = 0
        assert daemon.metric("reconnects_total", side="source") == 0
        assert daemon.metric("block_write_seconds_sum") > 4, "it was slow"
        assert daemon.stop() == 0


@pytest.mark.parametrize("side", ["source", "audit"])
def test_a_pooler_that_drops_a_connections_settings_is_refused(
    side: str,
    far_audit: tuple[Databases, Proxy, str],
    far_source: tuple[Databases, Proxy, str],
    tmp_path: Path,
) -> None:
    """pgbouncer with ignore_startup_parameters = options; without it, it refuses them (unit/test_postgres.py)."""
    databases, proxy, dsn = {"source": far_source, "audit": far_audit}[side]
    env = databases.environment()
    initialised(env)
    proxy.replace_asked[b"\0options\0"] = b"\0drop.it\0"
    env[f"CDC_AUDIT_{side.upper()}_DSN"] = dsn
    with DaemonProcess(env, tmp_path / "log") as daemon:
        assert daemon.wait() == 78
        assert f"let [{side}] dsn name the server itself" in daemon.log_text()


def test_a_commit_that_was_answered_with_rollback_is_not_believed(
    far_audit: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    """An aborted transaction answers COMMIT with ROLLBACK, and no error: only the tag says so. The ledger is asked then."""
    databases, proxy, dsn = far_audit
    env, oracle = prepared(databases)
    with (
        under_load(databases) as workload,
        DaemonProcess({**env, "CDC_AUDIT_AUDIT_DSN": dsn}, tmp_path / "log") as daemon,
    ):
        daemon.until_ready()
        proxy.replace[COMMITTED] = COMMITTED.replace(b"COMMIT", b"ROLLBK")
        until(lambda: "was rolled back" in daemon.log_text(), "it isn't believed")
        proxy.replace.clear()
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        advance(workload, 5)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_a_daemon_that_has_nothing_to_confirm_yet_makes_no_storm_of_keepalives(
    far_source: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    """What was received is reported beside what is stored: else server and client answer each other for ever."""
    databases, proxy, dsn = far_source
    env = databases.environment(SOURCE_DSN=dsn, BATCH_FLUSH_INTERVAL="60")
    initialised(env)
    run(databases, "create table t (id int primary key)")
    received = "select write_lsn >= %s::pg_lsn from pg_stat_replication where application_name like 'cdc-audit%%stream'"
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(databases, "insert into t values (1)")
        ((at,),) = databases.source.execute("select pg_current_wal_lsn()::text")
        until(lambda: databases.source.execute(received, (at,)) == [(True,)], "received, and not stored")
        before = proxy.answers
        time.sleep(3)  # a storm is thousands of messages a second
        assert proxy.answers - before < 100
        ((confirmed,),) = databases.source.execute(
            "select confirmed_flush_lsn < %s::pg_lsn from pg_replication_slots where slot_name = %s",
            (at, databases.slot),
        )
        assert confirmed, "nothing is confirmed"
        assert daemon.stop() == 0


@pytest.fixture(scope="module")
def far_servers() -> Iterator[tuple[Server, Server]]:
    """A source and an audit server that are reached by TCP."""
    source, audit = new_server("source", tcp=True), new_server("audit", tcp=True)
    try:
        source.start()
        audit.start()
        yield source, audit
    finally:
        source.remove()
        audit.remove()


@pytest.fixture
def far_both(far_servers: tuple[Server, Server]) -> Iterator[tuple[Databases, Proxy, Proxy]]:
    """Source and audit database, each behind a proxy."""
    databases = new_databases(*far_servers)
    with behind(databases.source_dsn) as source, behind(databases.audit_dsn) as audit:
        yield databases, source, audit
    databases.drop()


def fall_silent(server: Server, link: Proxy) -> None:
    """Nothing gets through any more on the daemon's present connections, none is closed, and new ones get through."""
    sessions = "select client_port from pg_stat_activity where application_name like 'cdc-audit%' and client_port > 0"
    for (port,) in server.execute(sessions):
        link.stall_one(port)


@pytest.mark.parametrize("moment", ["while a commit is in flight", "while nothing happens"])
def test_both_sides_half_open_at_once_are_noticed_within_15_s_and_the_trail_goes_on_though_no_server_has_noticed(
    moment: str, far_both: tuple[Databases, Proxy, Proxy], tmp_path: Path
) -> None:
    """Their backends live on, with the ledger's lock, an open transaction and the slot."""
    databases, source, audit = far_both
    env, oracle = prepared(databases)
    dsns = {
        "CDC_AUDIT_SOURCE_DSN": through(source, databases.source_dsn),
        "CDC_AUDIT_AUDIT_DSN": through(audit, databases.audit_dsn),
    }
    with DaemonProcess(env | dsns, tmp_path / "log") as daemon:
        daemon.until_ready()
        with under_load(databases) as workload:
            advance(workload, 5)
            if "commit" in moment:
                audit.hold_at = COMMITTED
                assert audit.held.wait(30), "no COMMIT was withheld"
        if "nothing" in moment:
            wait_for(databases.audit_dsn, oracle.mark())
        begun = time.monotonic()
        fall_silent(databases.source, source)
        fall_silent(databases.audit, audit)
        until(lambda: daemon.reconnects() > 0, "the session is over", 15)
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again", 20 - (time.monotonic() - begun))
        with under_load(databases, seed=12) as workload:
            advance(workload, 5)
        check(databases, oracle, env)
        assert daemon.stop() == 0
