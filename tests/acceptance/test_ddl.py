"""DDL of a hardened source, through the daemon, for both plugins: rows of the trail, alerts, and no secret in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.daemon import cdc_audit, until
from tests.support.databases import Databases, new_databases
from tests.support.live import Live, Scene, running
from tests.support.proof import check_proof
from tests.support.servers import Server

WHAT = "table_name, new_data ->> 'tag', new_data ->> 'object_type', new_data -> 'was', context_trust, db_user"
STATEMENTS = [
    "create table t (id int primary key, v text default 'hunter2')",
    "alter table t replica identity full",
    "alter table t add column w int default 7",
    "insert into t values (1, 'a')",
    "alter table t alter column v type varchar(20) using v || 'hunter2'",
    "alter table t replica identity nothing",
    "alter table t set unlogged",
    "alter table t set logged",
    "create index i on t (v)",
    "drop index i",
    "create function f() returns trigger language plpgsql as 'begin return null; end'",
    "create trigger guard after insert on t execute function f()",
    "drop trigger guard on t",
    "alter table t drop column w",
    "comment on table t is 'hunter2'",
    "grant select on t to public",
    "create view seen as select 'hunter2' as x",
    "create table copy as select 'hunter2' as x",
    "alter table t rename to attic",
    "create table doomed (a int)",
    "drop table doomed",
    "create temp table scratch as select 1 as a",
]


@pytest.fixture(scope="module", params=["wal2json", "pgoutput"])
def live(
    request: pytest.FixtureRequest,
    source_cluster: Server,
    audit_cluster: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    databases = new_databases(source_cluster, audit_cluster)
    log = tmp_path_factory.mktemp("daemon") / "log"
    try:
        with running(databases, log, plugin=request.param, SOURCE_EXCLUDE="oracle.*,*.attic") as live:
            hardened = cdc_audit("source", "install", "--harden", env=databases.environment())
            assert hardened.returncode == 0, hardened.stderr
            assert "event triggers tell the trail of DDL" in hardened.stdout
            yield live
            live.settle()
            check_proof(databases.audit_dsn)
            verified = cdc_audit("verify", env=databases.environment())
            assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        databases.drop()


@pytest.fixture
def scene(live: Live) -> Scene:
    return live.scene()


def alert_counts(live: Live) -> dict[str, float]:
    kinds = (
        "replica_identity",
        "unlogged",
        "rewrite",
        "rename_out_of_scope",
        "dropped_trigger",
        "dropped_table",
    )
    return {kind: live.daemon.metric("ddl_alerts_total", kind=kind) for kind in kinds}


def ddl(live: Live, where: str) -> list[tuple[Any, ...]]:
    live.settle()
    query = f"select {WHAT} from audit.audit_logs where action = 'DDL' and {where} order by id"
    return live.audit.execute(query.encode()).fetchall()


def test_each_statement_leaves_its_rows_and_what_hides_changes_an_alert(scene: Scene) -> None:
    live = scene.live
    before = alert_counts(live)
    for statement in STATEMENTS:
        scene.run(statement)
    rows = ddl(live, f"schema_name = '{scene.schema}'")
    assert {row[4:] for row in rows} == {("signed", "postgres")}
    life = [(row[0], row[1], row[3]) for row in rows if row[2] == "table" and row[1] != "COMMENT"]
    assert life == [
        ("t", "CREATE TABLE", None),
        ("t", "ALTER TABLE", {"replica_identity": "default"}),
        ("t", "ALTER TABLE", None),
        ("t", "ALTER TABLE", None),  # the rewrite
        ("t", "ALTER TABLE", None),
        ("t", "ALTER TABLE", {"replica_identity": "full", "has_identity": True}),
        ("t", "ALTER TABLE", None),
        ("t", "ALTER TABLE", {"persistence": "permanent"}),
        ("t", "ALTER TABLE", None),
        ("t", "ALTER TABLE", {"persistence": "unlogged"}),
        ("t", "ALTER TABLE", None),
        ("copy", "CREATE TABLE AS", None),
        ("attic", "ALTER TABLE", {"table": "t"}),
        ("doomed", "CREATE TABLE", None),
        ("doomed", "DROP TABLE", life[-1][2]),
    ]
    others = {(row[0], row[1], row[2]) for row in rows} - {(row[0], row[1], "table") for row in rows}
    assert others == {
        ("t", "CREATE INDEX", "index"),
        ("i", "DROP INDEX", "index"),
        ("f()", "CREATE FUNCTION", "function"),
        ("t", "CREATE TRIGGER", "trigger"),
        ("t", "DROP TRIGGER", "trigger"),
        ("t", "ALTER TABLE", "table column"),
        ("seen", "CREATE VIEW", "view"),
    }
    assert alert_counts(live) == {kind: before[kind] + 1 for kind in before}
    log = live.daemon.log_text()
    assert f'"table": "{scene.schema}.t"' in log or f'"table":"{scene.schema}.t"' in log
    assert "ddl_alert" in log
    secret = (
        "select count(*) from audit.audit_logs where action = 'DDL' and audit_logs::text like '%hunter2%'"
    )
    assert live.audit.execute(secret).fetchone() == (0,)
    assert "hunter2" not in log


def test_ddl_has_the_user_of_its_transaction_and_its_place_among_the_rows(scene: Scene) -> None:
    with scene.live.source.transaction():
        scene.run("""select cdc_audit.set_context('{"user_id":"dba7"}')""")
        scene.run("create table t (id int primary key)")
        scene.run("create view v as select 1 as a")
    rows = scene.trail("action, user_id, context_trust, seq")
    assert rows == [("DDL", "dba7", "signed", seq) for seq in (1, 2, 3)]


def test_what_is_rolled_back_leaves_nothing(scene: Scene) -> None:
    with scene.live.source.transaction(force_rollback=True):
        scene.run("create table t (id int primary key)")
    assert scene.trail("action") == []


def test_a_forged_and_an_asserted_message_are_marked_and_only_the_latter_names_a_table(scene: Scene) -> None:
    live = scene.live
    claim = '{"event":"sql_drop","tag":"DROP TABLE","object_type":"table","schema":"%s","table":"t","identity":"t"}'
    emit = "select pg_logical_emit_message(true, 'cdc_audit.ddl', '%s')"
    scene.run(emit % (claim % scene.schema))
    scene.run(emit % f"v1:k:00:{claim % scene.schema}")
    scene.run(emit % "not json")
    (asserted,) = ddl(live, f"schema_name = '{scene.schema}'")
    assert (asserted[0], asserted[4], asserted[5]) == ("t", "asserted", None)
    forged = live.audit.execute(
        "select schema_name, table_name, new_data ->> 'trust', new_data -> 'claimed' ->> 'table', db_user"
        " from audit.audit_logs where action = 'DDL' and context_trust = 'forged'"
    ).fetchall()
    assert forged == [("", "", "forged", "t", None)]
    invalid = (
        "select new_data, context from audit.audit_logs where action = 'DDL' and context_trust = 'invalid'"
    )
    assert live.audit.execute(invalid).fetchall() == [(None, {"raw": "not json"})]
    assert live.daemon.metric("context_rows_total", trust="forged") == 1


def test_an_event_trigger_that_is_disabled_is_noticed_though_no_message_says_so(live: Live) -> None:
    def count() -> float:
        return live.daemon.metric("ddl_alerts_total", kind="event_trigger")

    assert count() == 0
    live.source.execute("alter event trigger cdc_audit_drop disable")
    until(lambda: count() == 1, "the alert")
    assert "dropped or disabled: cdc_audit_drop" in live.daemon.log_text()
    live.source.execute("alter event trigger cdc_audit_drop enable always")


def test_init_says_whether_ddl_is_told(databases: Databases) -> None:
    env = databases.environment()
    assert "DDL: not told" in cdc_audit("init", env=env).stdout
    printed = cdc_audit("source", "install", "--harden", "--print-sql", env=env).stdout
    assert "create event trigger" in printed
    assert cdc_audit("source", "install", "--harden", env=env).returncode == 0
    assert "DDL: told by event triggers" in cdc_audit("init", env=env).stdout
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("drop event trigger cdc_audit_ddl")
    assert "gone or disabled: cdc_audit_ddl" in cdc_audit("init", env=env).stdout
    assert cdc_audit("source", "uninstall", "--yes", env=env).returncode == 0
