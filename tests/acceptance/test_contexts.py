"""Who did it, on a real server: signed, asserted, forged, replayed, oversized; and changes that the plugin hides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases

COLUMNS = "record_id, action, user_id, context_trust, capture, context, db_user"


@pytest.fixture
def ready(databases: Databases) -> Databases:
    databases.source.execute("create table t (id int primary key, v text)", dbname=databases.source_name)
    databases.source.execute("create table loose (id int, v text)", dbname=databases.source_name)
    initialised(databases.environment())
    return databases


def trail(databases: Databases, tmp_path: Path, count: int) -> list[tuple[Any, ...]]:
    """The trail's rows when the daemon has stored so many."""
    query = f"select {COLUMNS} from audit.audit_logs order by id"
    with DaemonProcess(databases.environment(BATCH_FLUSH_INTERVAL="0"), tmp_path / "log") as daemon:
        until(
            lambda: len(databases.audit.execute(query, dbname=databases.audit_name)) >= count, f"{count} rows"
        )
        assert daemon.stop() == 0
    return databases.audit.execute(query, dbname=databases.audit_name)


def captured_message(databases: Databases, context: str) -> str:
    """A signed message's content, as a thief would read it from a slot of his own."""
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("select pg_create_logical_replication_slot('thief', 'test_decoding', true)")
        source.execute("select cdc_audit.set_context(%s)", (context,))
        rows = source.execute("select data from pg_logical_slot_get_changes('thief', null, null)").fetchall()
        source.execute("select pg_drop_replication_slot('thief')")
    text = next(row[0] for row in rows if "cdc_audit.context" in row[0])
    return str(text).partition("content:")[2]


def test_updates_and_deletes_without_replica_identity_are_suppressed_rows_in_their_transaction_with_their_user(
    ready: Databases, tmp_path: Path
) -> None:
    with psycopg.connect(ready.source_dsn) as source:
        source.execute("""select cdc_audit.set_context('{"user_id":"u7"}')""")
        source.execute("insert into t values (1, 'a')")
        source.execute("insert into loose values (1, 'a')")
        source.execute("update loose set v = 'b'")
        source.execute("delete from loose")
        source.execute("insert into t values (2, 'b')")
    rows = trail(ready, tmp_path, 5)
    assert [row[1:5] for row in rows] == [
        ("INSERT", "u7", "signed", "full"),
        ("INSERT", "u7", "signed", "full"),
        ("UPDATE", "u7", "signed", "suppressed"),
        ("DELETE", "u7", "signed", "suppressed"),
        ("INSERT", "u7", "signed", "full"),
    ]


def test_a_replayed_a_forged_and_an_oversized_context_are_recognised_and_the_rows_are_there(
    ready: Databases, tmp_path: Path
) -> None:
    stolen = captured_message(ready, '{"user_id":"boss"}')
    forged = "v1:" + stolen.split(":")[1] + ":" + "00" * 32 + ":" + stolen.split(":", 3)[3]
    huge = json.dumps({"user_id": "boss", "x": "y" * 9000})
    with psycopg.connect(ready.source_dsn) as source:
        for number, content in enumerate([stolen, forged, huge], 1):
            source.execute("select pg_logical_emit_message(true, 'cdc_audit.context', %s)", (content,))
            source.execute("insert into t values (%s, 'x')", (number,))
            source.commit()
    rows = trail(ready, tmp_path, 3)
    assert [(row[2], row[3]) for row in rows] == [(None, "forged"), (None, "forged"), (None, "invalid")]
    assert rows[0][5] == rows[1][5] == {"claimed": {"user_id": "boss"}}
    assert rows[2][5] == {"raw": huge[:1024]}


def test_set_context_refuses_what_is_too_large_so_that_the_application_knows(ready: Databases) -> None:
    with psycopg.connect(ready.source_dsn) as source, pytest.raises(psycopg.errors.InvalidParameterValue):
        source.execute("select cdc_audit.set_context(%s)", (json.dumps({"x": "y" * 9000}),))


def test_a_key_that_was_made_while_the_daemon_runs_is_believed_at_once_and_a_retired_one_no_longer(
    ready: Databases, tmp_path: Path
) -> None:
    from cdc_audit.source import install

    query = "select user_id, context_trust from audit.audit_logs order by id"
    with (
        DaemonProcess(ready.environment(BATCH_FLUSH_INTERVAL="0"), tmp_path / "log") as daemon,
        psycopg.connect(ready.source_dsn, autocommit=True) as source,
    ):
        daemon.until_ready()
        for number in (1, 2):
            with source.transaction():
                source.execute("select cdc_audit.set_context(%s)", (json.dumps({"user_id": f"u{number}"}),))
                source.execute("insert into t values (%s, 'x')", (number,))
            install.rotate_key(source)
        expected = [("u1", "signed"), ("u2", "signed")]
        until(lambda: ready.audit.execute(query, dbname=ready.audit_name) == expected, "both are believed")


def test_a_context_goes_with_its_savepoint(ready: Databases, tmp_path: Path) -> None:
    with psycopg.connect(ready.source_dsn) as source:
        source.execute("""select cdc_audit.set_context('{"user_id":"outer"}')""")
        with source.transaction(force_rollback=True):
            source.execute("""select cdc_audit.set_context('{"user_id":"inner"}')""")
            source.execute("insert into t values (1, 'x')")
        source.execute("insert into t values (2, 'x')")
    assert [row[:3] for row in trail(ready, tmp_path, 1)] == [("2", "INSERT", "outer")]


def test_events_stand_in_the_trail_in_and_outside_of_transactions(ready: Databases, tmp_path: Path) -> None:
    with psycopg.connect(ready.source_dsn) as source:
        source.execute("begin read only")
        source.execute("""select cdc_audit.set_context('{"user_id":"doctor"}')""")
        source.execute("select cdc_audit.log_event('READ', 'patients', '7')")
        source.commit()
        source.execute(
            """select cdc_audit.log_event('EXPORT', 'patients', null, '{"context":{"user_id":"clerk"}}', false)"""
        )
        source.rollback()
    rows = trail(ready, tmp_path, 2)
    assert [row[:4] for row in rows] == [
        ("7", "READ", "doctor", "signed"),
        (None, "EXPORT", "clerk", "signed"),
    ]


def test_messages_of_other_packages_are_understood_where_they_are_accepted(
    databases: Databases, tmp_path: Path
) -> None:
    env = databases.environment(CONTEXT_ACCEPT="bemi,sequin", BATCH_FLUSH_INTERVAL="0")
    databases.source.execute(
        """
        create table t (id int primary key, v text);
        create table rows (id int primary key);
        create function bemi() returns trigger language plpgsql as $$ begin
            perform pg_logical_emit_message(true, '_bemi',
                split_part(split_part(current_query(), '/*Bemi', 2), 'Bemi*/', 1));
            return new;
        end $$;
        create trigger bemi before insert on rows for each row execute function bemi()
        """,
        dbname=databases.source_name,
    )
    initialised(env)
    with psycopg.connect(databases.source_dsn) as source:
        comment = json.dumps({"context": {"userId": "bea"}, "SQL": "canary"})
        source.execute(f"insert into rows values (1), (2) /*Bemi {comment} Bemi*/".encode())
        source.commit()
        source.execute("insert into t values (1, 'x')")
        said = """select pg_logical_emit_message(true, 'sequin:transaction_annotations.set', '{"user_id":"sue"}')"""
        source.execute(said)
        source.execute("insert into t values (2, 'x')")
        source.execute("select pg_logical_emit_message(true, 'sequin:transaction_annotations.clear', '')")
        source.execute("insert into t values (3, 'x')")
    query = "select record_id, user_id, context_trust from audit.audit_logs order by id"
    expected = [
        ("1", "bea", "asserted"),
        ("2", "bea", "asserted"),
        ("1", None, "none"),
        ("2", "sue", "asserted"),
        ("3", None, "none"),
    ]
    with DaemonProcess(env, tmp_path / "log") as daemon:
        until(lambda: len(databases.audit.execute(query, dbname=databases.audit_name)) == 5, "five rows")
        assert daemon.stop() == 0
    assert databases.audit.execute(query, dbname=databases.audit_name) == expected


def test_missing_contexts_are_found_and_a_check_as_the_application_shows_what_arrives(
    ready: Databases, tmp_path: Path
) -> None:
    env, role = ready.environment(BATCH_FLUSH_INTERVAL="0"), f"{ready.source_name}_app"
    ready.source.execute(f'create role "{role}" login', dbname=ready.source_name)
    app = psycopg.conninfo.make_conninfo(ready.source_dsn, user=role)
    objects = "select count(*) from pg_class where relnamespace <> 'pg_toast'::regnamespace"
    try:
        with DaemonProcess(env, tmp_path / "log") as daemon, psycopg.connect(ready.source_dsn) as source:
            daemon.until_ready()
            source.execute("insert into t values (1, 'x'), (2, 'x')")
            source.execute("update t set v = 'y' where id = 1")
            source.commit()
            source.execute("set application_name = 'shop worker'")
            source.execute("select cdc_audit.set_context('{}')")
            source.execute("delete from t where id = 2")
            source.commit()
            source.execute("""select cdc_audit.set_context('{"user_id":"u1"}')""")
            source.execute("insert into t values (3, 'x')")
            source.commit()
            before = ready.source.execute(objects, dbname=ready.source_name)

            done = cdc_audit("context", "check", "--as", app, "--json", env=env)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert found["user_id"].startswith("check-")
            assert (found["context_trust"], found["db_user"]) == ("signed", role)
            assert found["application_name"] == "cdc-audit context check"
            assert 0 < found["seconds"] < 10
            assert ready.source.execute(objects, dbname=ready.source_name) == before

            done = cdc_audit("context", "missing", "--since", "1h", "--json", env=env)
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            keys = ("table_name", "action", "rows", "application_name", "db_user")
            assert {tuple(row[key] for key in keys) for row in rows} == {
                ("t", "INSERT", 2, None, None),
                ("t", "UPDATE", 1, None, None),
                ("t", "DELETE", 1, "shop worker", "postgres"),
            }
            assert all(len(row["xids"]) == 1 for row in rows)
            shown = cdc_audit("context", "missing", env=env).stdout
            assert "shop worker" in shown
            assert "u1" not in shown

            ready.source.execute("revoke usage on schema cdc_audit from public", dbname=ready.source_name)
            done = cdc_audit("context", "check", "--as", app, env=env)
            assert done.returncode == 78
            assert f'grant usage on schema cdc_audit to "{role}"' in done.stderr
            assert ready.source.execute(objects, dbname=ready.source_name) == before
            assert daemon.stop() == 0
        ready.source.execute("grant usage on schema cdc_audit to public", dbname=ready.source_name)
        done = cdc_audit("context", "check", "--as", app, "--timeout", "0.5", env=env)
        assert done.returncode == 1
        assert "did not arrive" in done.stderr
    finally:
        ready.source.execute(f'drop owned by "{role}"; drop role "{role}"', dbname=ready.source_name)


def test_a_session_in_which_nobody_says_who_acts_is_named_by_its_database_user_and_any_context_wins(
    ready: Databases, tmp_path: Path
) -> None:
    env = ready.environment(BATCH_FLUSH_INTERVAL="0")
    done = cdc_audit("source", "install", "--sessions", "--tables", "public.t", env=env)
    assert "say whose session it is, where nothing else is said:\n  public.t\n" in done.stdout
    say = """select cdc_audit.set_context('{"user_id":"u1"}')"""
    raw = """select pg_logical_emit_message(true, 'cdc_audit.context', '{"user_id":"u2"}')"""
    forged = """select pg_logical_emit_message(true, 'cdc_audit.session', 'v1:k:00:{"session_user":"ceo"}')"""
    transactions: list[list[str]] = [
        ["insert into loose values (0)", "insert into t values (1)", "update t set v = 'x'"],
        [say, "insert into t values (2)"],
        ["insert into t values (3)", say],
        ["insert into t values (4)", raw],
        ["savepoint s", say, "rollback to s", "insert into t values (5)"],
        [forged, say, "insert into t values (6)"],
        [forged, "insert into loose values (7)"],
    ]
    with psycopg.connect(ready.source_dsn, application_name="psql") as source:
        for statements in transactions:
            for statement in statements:
                source.execute(statement.encode())
            source.commit()
    ((address,),) = ready.source.execute("select host(inet_client_addr())", dbname=ready.source_name)
    mark = {"trust": "signed"} | ({"client_addr": address} if address else {})
    session = ("none", None, "postgres", "psql", {"session": mark})
    signed = ("signed", "u1", "postgres", "psql", None)
    query = (
        "select context_trust, user_id, db_user, application_name, context from audit.audit_logs"
        " where table_name in ('t', 'loose') order by id"
    )
    with DaemonProcess(env, tmp_path / "log") as daemon:
        until(lambda: len(ready.audit.execute(query, dbname=ready.audit_name)) == 9, "nine rows")
        until(  # counted just after they are stored
            lambda: (
                [
                    daemon.metric("rows_without_context_total", application="psql", table=f"public.{table}")
                    for table in ("t", "loose")
                ]
                == [3, 1]
            ),
            "four rows counted as nobody's",
        )
        assert daemon.stop() == 0
    *rows, last = ready.audit.execute(query, dbname=ready.audit_name)
    assert rows == [session] * 3 + [signed] * 2 + [("asserted", "u2", None, None, None), session, signed]
    assert (last[0], last[2], last[4]["claimed"]["session_user"]) == ("forged", None, "ceo")
    done = cdc_audit("context", "missing", "--json", env=env)
    found = {
        (row["table_name"], row["db_user"], row["rows"]) for row in map(json.loads, done.stdout.splitlines())
    }
    assert {("t", "postgres", 2), ("t", "postgres", 1), ("loose", "postgres", 1)} == found
    wide = env | {"COLUMNS": "160"}  # at 80, names are cut
    assert "(postgres)" in cdc_audit("log", "--table", "t", env=wide).stdout
