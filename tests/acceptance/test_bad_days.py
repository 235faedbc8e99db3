"""Bad input and bad days end in one clear message, the right exit code, and the remedy; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases
from tests.support.servers import Server


def outcome(env: dict[str, str], tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and last words of a daemon that ends by itself."""
    with DaemonProcess(env, tmp_path / "log", *arguments) as daemon:
        return daemon.wait(), daemon.log_text()


def replicator(databases: Databases, name: str, options: str = "login replication") -> str:
    """A role's connection string to the source."""
    databases.source.execute(f"create role {name} {options}")
    return databases.source.dsn(databases.source_name, user=name)


def test_a_wrong_database_name_exits_78(databases: Databases, tmp_path: Path) -> None:
    code, said = outcome(databases.environment(AUDIT_DSN=databases.audit.dsn("nowhere")), tmp_path)
    assert code == 78
    assert 'database "nowhere" does not exist' in said and "[audit] dsn" in said


def test_a_host_that_is_not_there_is_waited_for_and_said(databases: Databases, tmp_path: Path) -> None:
    initialised(databases.environment())
    env = databases.environment(SOURCE_DSN="host=127.0.0.1 port=1 dbname=x connect_timeout=2")
    with DaemonProcess(env, tmp_path / "log") as daemon:
        until(lambda: "source database" in daemon.get("/readyz")[1], "it says whom it waits for")
        assert daemon.get("/readyz")[0] == 503
        assert daemon.stop() == 0


def test_readiness_tells_that_the_audit_database_is_gone_while_there_is_nothing_to_write(
    private_cluster: Callable[..., Server], databases: Databases, tmp_path: Path
) -> None:
    audit = private_cluster("audit")
    env = databases.environment(AUDIT_DSN=audit.dsn(), LEDGER_HEARTBEAT_INTERVAL="3600")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        audit.stop("immediate")
        until(lambda: daemon.get("/readyz")[0] == 503, "it is not ready")
        assert "audit database" in daemon.get("/readyz")[1]
        audit.start()
        daemon.until_ready()
        assert daemon.stop() == 0


def test_a_role_without_replication_exits_77_with_the_statement_that_mends_it(
    databases: Databases, tmp_path: Path
) -> None:
    """Case 20."""
    initialised(databases.environment())
    dsn = replicator(databases, f"plain_{databases.slot}", "login")
    code, said = outcome(databases.environment(SOURCE_DSN=dsn), tmp_path)
    assert code == 77
    assert f'alter role "plain_{databases.slot}" replication' in said.replace('\\"', '"')


def test_wal_level_that_is_not_logical_exits_78(
    private_cluster: Callable[..., Server], databases: Databases
) -> None:
    low = private_cluster("low", wal_level="replica")
    done = cdc_audit("init", env=databases.environment(SOURCE_DSN=low.dsn()))
    assert done.returncode == 78
    assert "alter system set wal_level = logical" in done.stderr


def test_a_plugin_that_is_not_installed_exits_78_and_names_the_package(databases: Databases) -> None:
    role = f"nolib_{databases.slot}"
    dsn = replicator(databases, role, "login superuser")
    databases.source.execute(f"alter role {role} set dynamic_library_path = '/nonexistent'")
    done = cdc_audit("init", env=databases.environment(SOURCE_DSN=dsn))
    assert done.returncode == 78
    assert "wal2json" in done.stderr and "apt-get install postgresql-" in done.stderr


def test_a_plugin_that_the_server_refuses_exits_78_also_for_an_existing_slot(
    databases: Databases, tmp_path: Path
) -> None:
    known = databases.source.execute(
        "select count(*) from pg_settings where name = 'output_plugin_libraries'"
    )
    if known == [(0,)]:
        pytest.skip("this server's minor does not refuse plugins yet")
    role = f"refused_{databases.slot}"
    dsn = replicator(databases, role)
    initialised(databases.environment())
    databases.source.execute(f"alter role {role} set output_plugin_libraries = pgoutput")
    with psycopg.connect(databases.source_dsn) as source:
        source.execute(
            psycopg.sql.SQL("grant select on cdc_audit.context_key to {}").format(
                psycopg.sql.Identifier(role)
            )
        )
    code, said = outcome(databases.environment(SOURCE_DSN=dsn), tmp_path)
    assert code == 78
    remedy = f'alter role "{role}" set output_plugin_libraries = pgoutput, wal2json;'
    assert remedy in said.replace('\\"', '"')
    databases.source.execute(remedy)
    with DaemonProcess(databases.environment(SOURCE_DSN=dsn), tmp_path / "log2") as daemon:
        daemon.until_ready()


def test_a_slot_that_is_missing_or_made_anew_stops_the_daemon_until_a_gap_is_accepted(
    databases: Databases, tmp_path: Path
) -> None:
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    databases.source.execute(f"select pg_drop_replication_slot('{databases.slot}')")
    code, said = outcome(env, tmp_path)
    assert code == 78
    assert "does not exist" in said and "cdc-audit slot" in said
    databases.source.execute("insert into t values (1)", dbname=databases.source_name)
    databases.source.execute(
        f"select pg_create_logical_replication_slot('{databases.slot}', 'wal2json')",
        dbname=databases.source_name,
    )
    code, said = outcome(env, tmp_path)
    assert code == 78
    assert "ahead of the ledger" in said and "--accept-gap" in said
    with DaemonProcess(env, tmp_path / "log", "--accept-gap", "slot was dropped in a test") as daemon:
        daemon.until_ready()
        databases.source.execute("insert into t values (2)", dbname=databases.source_name)
        query = "select record_id from audit.audit_logs"
        until(
            lambda: databases.audit.execute(query, dbname=databases.audit_name) == [("2",)], "the second row"
        )
    gaps = databases.audit.execute(
        "select detail->>'reason' from audit.ledger where kind = 'gap' and end_lsn > start_lsn",
        dbname=databases.audit_name,
    )
    assert gaps == [("slot was dropped in a test",)]


def test_changes_that_somebody_else_took_from_the_slot_are_noticed(
    databases: Databases, tmp_path: Path
) -> None:
    """Case 15: the server would fast-forward without a word."""
    env = databases.environment()
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    databases.source.execute("insert into t values (1)", dbname=databases.source_name)
    databases.source.execute(
        f"select pg_logical_slot_get_changes('{databases.slot}', null, null)", dbname=databases.source_name
    )
    code, said = outcome(env, tmp_path)
    assert (code, "ahead of the ledger" in said) == (78, True)


def test_a_slot_that_was_invalidated_exits_78_with_the_way_on(
    private_cluster: Callable[..., Server], databases: Databases, tmp_path: Path
) -> None:
    """Case 18."""
    small = private_cluster(
        "small", settings={"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    )
    env = databases.environment(SOURCE_DSN=small.dsn(), SOURCE_SLOT="small")
    initialised(env)
    for _ in range(4):
        small.execute("create table if not exists t (id int)")
        small.execute("insert into t values (1)")
        small.execute("select pg_switch_wal()")
    small.execute("checkpoint")
    assert small.execute("select wal_status from pg_replication_slots") == [("lost",)]
    code, said = outcome(env, tmp_path)
    assert code == 78
    assert "invalidated" in said and "cdc-audit slot recreate" in said


def test_a_slot_in_somebody_elses_hands_is_waited_for(databases: Databases, tmp_path: Path) -> None:
    """Case 19."""
    env = databases.environment()
    initialised(env)
    other = databases.environment(AUDIT_SCHEMA="elsewhere")
    done = cdc_audit("schema", "migrate", env=other)
    assert done.returncode == 0, done.stderr
    with DaemonProcess(env, tmp_path / "one") as holder:
        holder.until_ready()
        with DaemonProcess(other, tmp_path / "two") as waiting:
            until(lambda: "active for PID" in waiting.get("/readyz")[1], "it names the holder")
            assert waiting.stop() == 0


def test_an_unknown_key_is_an_error_in_file_and_environment(databases: Databases, tmp_path: Path) -> None:
    file = tmp_path / "cdc-audit.toml"
    file.write_text('[batch]\nmax_row = 5\n[source]\ndsn = "password=hidden"\n')
    done = cdc_audit("run", "--check", "--config", str(file), env=databases.environment())
    assert done.returncode == 78
    assert "unknown key [batch] max_row" in done.stderr and "max_rows" in done.stderr
    assert "hidden" not in done.stderr
    done = cdc_audit("run", "--check", env=databases.environment(SOURCE_SLOTS="x"))
    assert done.returncode == 78
    assert "unknown key [source] slots" in done.stderr
    assert cdc_audit("run", "--check", env=databases.environment()).returncode == 0


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [
        ("drop schema audit cascade", "cdc-audit init"),
        ("delete from audit.schema_version", "cdc-audit schema migrate"),
        ("insert into audit.schema_version (version, name) values (99, 'future')", "upgrade cdc-audit"),
    ],
    ids=["missing", "older", "newer"],
)
def test_an_audit_schema_of_another_version_exits_78(
    databases: Databases, tmp_path: Path, statement: str, remedy: str
) -> None:
    initialised(databases.environment())
    databases.audit.execute(statement, dbname=databases.audit_name)
    code, said = outcome(databases.environment(), tmp_path)
    assert code == 78
    assert remedy in said


def test_row_values_reach_neither_log_nor_metrics(databases: Databases, tmp_path: Path) -> None:
    canary = "canary-7f3a9c"
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LOG_LEVEL="debug")
    databases.source.execute(
        "create table t (id text primary key, password text)", dbname=databases.source_name
    )
    databases.source.execute("create table loose (v text)", dbname=databases.source_name)
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(databases.source_dsn) as source:
            source.execute(
                "select pg_logical_emit_message(true, 'cdc_audit.context', %s)", (f"not json {canary}",)
            )
            source.execute("insert into t values (%s, %s)", (canary, f"secret {canary}"))
            source.execute("insert into loose values (%s)", (canary,))
            source.execute("update loose set v = v || %s", (canary,))
        count = "select count(*) from audit.audit_logs"
        until(lambda: databases.audit.execute(count, dbname=databases.audit_name) == [(3,)], "three rows")
        metrics = daemon.get("/metrics")[1]
        assert daemon.stop() == 0
        assert canary not in metrics
        assert canary not in daemon.log_text()
    stored = databases.audit.execute(
        "select new_data ->> 'password' from audit.audit_logs where table_name = 't'",
        dbname=databases.audit_name,
    )
    assert stored == [("[redacted]",)]
