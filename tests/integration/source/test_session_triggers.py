"""Changes of which no application says whose they are: the server says whose session made them, once, and never instead."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg import Connection

from cdc_audit.errors import SettingError
from cdc_audit.source import install
from tests.integration.source.conftest import Connect, RoleMaker
from tests.integration.source.stream_look import Look

SET_CONTEXT = """select cdc_audit.set_context('{"user_id": "u1"}')"""
INSERT = "insert into public.b values (1)"


@pytest.fixture
def named(source: Connection) -> Connection:
    """A connection to a database whose tables ``a`` and ``b`` say whose session it is."""
    source.execute("create table public.a (id int primary key, v text); create table public.b (id int)")
    install.install(source)
    assert install.install_session_triggers(source, ["public.*"]) == ["public.a", "public.b"]
    return source


def _kinds(look: Look) -> list[str]:
    return [sent.prefix.removeprefix("cdc_audit.") for sent in look.messages()]


def _transaction(connection: Connection, *statements: str) -> None:
    with connection.transaction():
        for statement in statements:
            connection.execute(statement.encode())


def test_it_is_said_once_a_transaction_before_the_first_change_and_signed(
    named: Connection, look: Look
) -> None:
    for _ in range(2):
        _transaction(
            named,
            "insert into public.a values (1), (2) on conflict do nothing",
            "update public.a set v = 'x'",
            INSERT,
            "truncate public.b",
        )
    lines = look.lines()
    said = [line.startswith("message") for line in lines if not line.startswith(("BEGIN", "COMMIT"))]
    assert said == [True, *[False] * 6, True, *[False] * 4]


def test_it_names_the_session_s_user_also_after_set_role_and_its_application(
    named: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    login, role = make_role("dba"), make_role("owner")
    named.execute(f'grant "{role}" to "{login}"; grant insert on public.b to "{role}"'.encode())
    named.execute("revoke all on schema cdc_audit from public")
    session = connect(login)
    session.execute("set application_name = 'psql'")
    session.execute(f'set role "{role}"'.encode())
    session.execute(INSERT)
    (sent,) = look.messages()
    assert sent.prefix == "cdc_audit.session"
    assert sent.body["kind"] == "session"
    assert (sent.body["session_user"], sent.body["application_name"]) == (login, "psql")
    assert int(sent.body["xid"]) & 0xFFFFFFFF == sent.xid


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ([SET_CONTEXT, INSERT, INSERT], ["context"]),
        ([INSERT, SET_CONTEXT, INSERT], ["session", "context"]),
        (["savepoint s", INSERT, "rollback to s", INSERT], ["session"]),
        (["savepoint s", SET_CONTEXT, INSERT, "rollback to s", INSERT], ["session"]),
        (["savepoint s", SET_CONTEXT, "release s", INSERT], ["context"]),
        ([SET_CONTEXT, "savepoint s", INSERT, "rollback to s", INSERT], ["context"]),
        ([INSERT, "savepoint s", SET_CONTEXT, "rollback to s", INSERT], ["session"]),
        (["select cdc_audit.log_event('READ')", INSERT], ["event", "session"]),
        (["select count(*) from public.b"], []),
        (["set local session_replication_role = replica", INSERT], ["session"]),
        (["select set_config('cdc_audit.said', '1', false)", INSERT], ["session"]),
    ],
)
def test_only_where_nothing_else_is_said_and_a_savepoint_takes_it_along(
    named: Connection, look: Look, statements: list[str], said: list[str]
) -> None:
    _transaction(named, *statements)
    assert _kinds(look) == said


def test_what_an_earlier_transaction_has_said_counts_for_nothing_in_the_next(
    named: Connection, look: Look
) -> None:
    _transaction(named, SET_CONTEXT, INSERT)
    named.execute(INSERT)
    _transaction(named, INSERT)
    assert _kinds(look) == ["context", "session", "session"]


def test_beside_the_bridge_of_a_setting_the_setting_is_what_counts(named: Connection, look: Look) -> None:
    install.install_guc_bridge(named, "app.who", ["public.*"])
    _transaction(named, """select set_config('app.who', '{"user_id": "u1"}', true)""", INSERT, INSERT)
    assert _kinds(look) == ["context"]
    _transaction(named, INSERT)
    assert _kinds(look) == ["session"]


def test_partitions_say_it_once(source: Connection, look: Look) -> None:
    source.execute("create table public.p (id int) partition by list (id)")
    source.execute("create table public.p1 partition of public.p for values in (1)")
    install.install(source)
    assert install.install_session_triggers(source, ["public.*"]) == ["public.p", "public.p1"]
    look.lines()
    _transaction(source, "insert into public.p values (1)", "update public.p1 set id = 1")
    assert _kinds(look) == ["session"]


def test_installing_it_again_changes_nothing_and_uninstalling_leaves_no_trace(source: Connection) -> None:
    def triggers() -> list[tuple[object, ...]]:
        query = "select tgrelid::regclass::text, tgname, tgenabled::text from pg_trigger order by 1, 2"
        return source.execute(query).fetchall()

    source.execute("create table public.a (id int); create table public.b (id int)")
    install.install(source)
    for _ in range(2):
        install.install_session_triggers(source, ["public.a"])
        assert triggers() == [("public.a", "cdc_audit_session", "A")]
    install.install_guc_bridge(source, "app.who", ["public.*"])
    removed = install.uninstall(source)
    assert removed[:3] == [
        "trigger cdc_audit_context on public.a",
        "trigger cdc_audit_session on public.a",
        "trigger cdc_audit_context on public.b",
    ]
    assert triggers() == []
    source.execute("insert into public.a values (1)")
    assert source.execute("select from pg_namespace where nspname = 'cdc_audit'").fetchall() == []


def test_the_functions_must_be_there_first(source: Connection) -> None:
    with pytest.raises(SettingError, match="not installed"):
        install.install_session_triggers(source, ["*.*"])


def test_nobody_but_the_trigger_can_send_it(
    named: Connection, connect: Connect, make_role: RoleMaker
) -> None:
    app = connect(make_role("app"))
    attempts: list[Callable[[], object]] = [
        lambda: app.execute("select cdc_audit.emit('session', true, '{}')"),
        lambda: app.execute(
            "create temporary table t (); create trigger t before insert on t"
            " for each statement execute function cdc_audit.session_to_stream()"
        ),
    ]
    for attempt in attempts:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            attempt()
