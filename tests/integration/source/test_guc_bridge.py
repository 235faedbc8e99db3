"""Applications that keep their user in a setting: it is sent once a transaction, and nothing ever fails."""

from __future__ import annotations

import json

import pytest
from psycopg import Connection

from cdc_audit import postgres
from cdc_audit.errors import SettingError, UnavailableError, UsageError
from cdc_audit.source import install, slot, tables
from tests.integration.source.conftest import Connect, Database, RoleMaker
from tests.integration.source.stream_look import Look
from tests.support.databases import drop_slots

SAY = "select set_config('app.who', %s, true)"


@pytest.fixture
def bridged(source: Connection) -> Connection:
    """A connection to a database whose tables ``a`` and ``b`` send app.who."""
    source.execute("create table public.a (id int primary key, v text); create table public.b (id int)")
    install.install(source)
    install.install_guc_bridge(source, "app.who", ["public.*"])
    return source


def _contexts(look: Look) -> list[object]:
    return [sent.body["context"] for sent in look.messages()]


def test_the_setting_is_sent_once_a_transaction_before_the_first_change(
    bridged: Connection, look: Look
) -> None:
    with bridged.transaction():
        bridged.execute(SAY, ('{"user_id": "u1"}',))
        for statement in (
            "insert into public.a values (1), (2)",
            "update public.a set v = 'x'",
            "insert into public.b select 1 where false",
            "delete from public.a where id = 1",
            "truncate public.b",
            "insert into public.a values (2) on conflict do nothing",
        ):
            bridged.execute(statement.encode())
    lines = [line for line in look.lines() if not line.startswith(("BEGIN", "COMMIT"))]
    assert ['"user_id": "u1"' in line for line in lines] == [True] + [False] * (len(lines) - 1)
    assert len(lines) == 1 + 2 + 2 + 1 + 1


def test_each_transaction_sends_it_again(bridged: Connection, look: Look) -> None:
    bridged.execute("""select set_config('app.who', '{"user_id": "session"}', false)""")
    for number in (1, 2):
        bridged.execute("insert into public.b values (%s)", (number,))
    assert _contexts(look) == [{"user_id": "session"}] * 2


def test_a_change_of_the_setting_is_sent_and_its_end_too(bridged: Connection, look: Look) -> None:
    with bridged.transaction():
        for said in ('{"user_id": "u1"}', '{"user_id": "u1"}', '{"user_id": "u2"}', "", '{"user_id": "u1"}'):
            bridged.execute(SAY, (said,))
            bridged.execute("insert into public.b values (1)")
    assert _contexts(look) == [{"user_id": "u1"}, {"user_id": "u2"}, {}, {}, {"user_id": "u1"}]


def test_what_was_written_before_the_setting_was_made_stays_nobody_s(bridged: Connection, look: Look) -> None:
    with bridged.transaction():
        bridged.execute("insert into public.b values (1)")
        bridged.execute(SAY, ('{"user_id": "u1"}',))
        bridged.execute("insert into public.b values (2)")
    assert _contexts(look) == [{}, {"user_id": "u1"}]


def test_a_savepoint_takes_what_was_sent_in_it_along(bridged: Connection, look: Look) -> None:
    with bridged.transaction():
        bridged.execute(SAY, ('{"user_id": "u1"}',))
        with bridged.transaction(force_rollback=True):
            bridged.execute("insert into public.b values (1)")
        bridged.execute("insert into public.b values (2)")
    assert _contexts(look)[-1:] == [{"user_id": "u1"}]


def test_without_the_setting_nothing_is_sent(bridged: Connection, look: Look) -> None:
    bridged.execute("insert into public.b values (1)")
    with bridged.transaction():
        bridged.execute(SAY, ("",))
        bridged.execute("insert into public.b values (1)")
    assert _contexts(look) == []


def test_what_is_no_context_is_kept_raw_and_the_statement_succeeds(bridged: Connection, look: Look) -> None:
    odd = ["u42", "{", '"u42"', "[1]", "17", "'; drop table public.b; --", "[" * 5000, "\x01" * 3000]
    odd.append(json.dumps({"a": "x" * 9000}))
    for said in odd:
        with bridged.transaction():
            bridged.execute(SAY, (said,))
            bridged.execute("insert into public.b values (1)")
            bridged.execute("insert into public.b values (2)")
    assert _contexts(look) == [{"raw": said[:1024]} for said in odd]
    assert bridged.execute("select count(*) from public.b").fetchall() == [(2 * len(odd),)]


def test_bytes_of_no_encoding_do_not_break_a_statement_either(database: Database) -> None:
    name = f"{database.name}_ascii"
    database.source.execute(
        f"create database {name} encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'"
    )
    dsn = f"{database.source.dsn(name)} client_encoding=utf8"
    try:
        with postgres.connect(dsn, side="source") as source:
            install.install(source)
            source.execute("create table public.b (id int)")
            install.install_guc_bridge(source, "app.who", ["*.*"])
            slot.create(source, database.slot, "test_decoding")
            with source.transaction():
                source.execute("set local app.who = e'\\xe9dith'")
                source.execute("insert into public.b values (1)")
            assert _contexts(Look(source, database.slot)) == [{"raw": "?dith"}]
    finally:
        drop_slots(database.source, name)
        database.source.execute(f"drop database {name} with (force)")


def test_an_application_role_needs_no_right_but_that_on_its_table(
    bridged: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("app")
    bridged.execute(f'grant insert on public.b to "{role}"'.encode())
    bridged.execute("revoke all on all functions in schema cdc_audit from public")
    bridged.execute("revoke all on schema cdc_audit from public")
    app = connect(role)
    with app.transaction():
        app.execute(SAY, ('{"user_id": "u1"}',))
        app.execute("insert into public.b values (1)")
    (sent,) = look.messages()
    assert (sent.body["context"], sent.body["session_user"]) == ({"user_id": "u1"}, role)


def test_cascades_and_partitions_send_it_once(bridged: Connection, look: Look) -> None:
    bridged.execute("create table public.child (a_id int references public.a on delete cascade)")
    bridged.execute("create table public.p (id int) partition by list (id)")
    bridged.execute("create table public.p1 partition of public.p for values in (1)")
    install.install_guc_bridge(bridged, "app.who", ["public.*"])
    bridged.execute("insert into public.a values (1); insert into public.child values (1)")
    look.lines()
    with bridged.transaction():
        bridged.execute(SAY, ('{"user_id": "u1"}',))
        bridged.execute(
            "delete from public.a; insert into public.p values (1); insert into public.p1 values (1)"
        )
    assert _contexts(look) == [{"user_id": "u1"}]


def test_installing_another_setting_replaces_the_first(bridged: Connection, look: Look) -> None:
    assert install.install_guc_bridge(bridged, "other.who", ["public.b"], []) == ["public.b"]
    with bridged.transaction():
        bridged.execute(SAY, ('{"user_id": "u1"}',))
        bridged.execute("""select set_config('other.who', '{"user_id": "o1"}', true)""")
        bridged.execute("insert into public.b values (1)")
    assert _contexts(look) == [{"user_id": "o1"}]


def test_a_name_that_no_setting_can_have_is_refused(source: Connection) -> None:
    for name in ("app", "", "app.", "app.who'", "app who.x", "cdc_audit.emitted"):
        with pytest.raises(UsageError):
            install.install_guc_bridge(source, name, ["public.*"])


def test_the_functions_must_be_there_first(source: Connection) -> None:
    with pytest.raises(SettingError, match="not installed") as error:
        install.install_guc_bridge(source, "app.who", ["*.*"])
    assert error.value.remedy == "cdc-audit source install"


def test_a_table_that_is_locked_is_named_and_the_others_stay_done(
    source: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**tables.SQL, "lock_timeout": "select set_config('lock_timeout', '50ms', true)"}
    monkeypatch.setattr(tables, "SQL", quick)
    source.execute("create table public.a (id int primary key, v text); create table public.b (id int)")
    install.install(source)
    app = connect()
    with app.transaction():
        app.execute("lock table public.b")
        with pytest.raises(UnavailableError, match=r"table public\.b was locked .*done before it: public\.a"):
            install.install_guc_bridge(source, "app.who", ["public.*"])
    assert source.execute("select tgrelid::regclass::text from pg_trigger").fetchall() == [("public.a",)]
