"""A hardened source tells its DDL, signed and without the query's text, and never lets DDL fail for it."""

from __future__ import annotations

import json
import threading
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cdc_audit.errors import NotPermittedError, SettingError
from cdc_audit.join.ddl import read_ddl
from cdc_audit.model.context import Trust
from cdc_audit.source import hardening, install
from tests.integration.source.conftest import Connect, RoleMaker
from tests.integration.source.stream_look import Look
from tests.integration.source.test_install import _catalog

ENVELOPE = {"v", "kind", "xid", "session_user", "application_name", "client_addr", "at"}
Told = list[dict[str, Any]]


@pytest.fixture
def hardened(source: Connection) -> Connection:
    install.install(source)
    install.harden(source)
    return source


@pytest.fixture
def warnings(source: Connection) -> list[str]:
    """What the server warns the application of."""
    seen: list[str] = []
    source.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
    return seen


def told(look: Look) -> Told:
    """What has been told since the last look, without what every message has and without the look's own table."""
    bodies = [sent.body for sent in look.messages() if sent.prefix == "cdc_audit.ddl"]
    return [
        {key: value for key, value in body.items() if key not in ENVELOPE and value is not None}
        for body in bodies
        if body.get("table") != "flushed"
    ]


def brief(all_told: Told) -> list[tuple[str, str]]:
    return [(one["tag"], one.get("identity", "")) for one in all_told]


def test_hardening_twice_changes_nothing(hardened: Connection) -> None:
    found, catalog = hardening.found(hardened), _catalog(hardened)
    assert found.working == list(hardening.EVENT_TRIGGERS)
    assert found.broken == ()
    assert install.emit_is_revoked(hardened)
    install.install(hardened)
    install.harden(hardened)
    assert hardening.found(hardened) == found
    assert _catalog(hardened) == catalog


def test_uninstalling_takes_all_of_it_out(source: Connection) -> None:
    install.install(source)
    install.revoke_emit(source)  # this is what stays
    install.uninstall(source)
    before = _catalog(source)
    install.install(source)
    install.harden(source)
    removed = install.uninstall(source)
    assert removed[:3] == [f"event trigger {name}" for name in hardening.EVENT_TRIGGERS]
    assert _catalog(source) == before
    assert hardening.found(source) == hardening.Hardening(was_hardened=False, working=[], mark="")


def test_what_is_printed_hardens_the_same(source: Connection) -> None:
    with source.transaction():
        source.execute(install.script(source.info.server_version, harden=True).encode())
    source.execute("set search_path = pg_catalog")
    assert hardening.found(source).working == list(hardening.EVENT_TRIGGERS)
    assert install.emit_is_revoked(source)
    assert "event trigger" not in install.script(source.info.server_version)


def test_installing_again_brings_the_functions_of_a_hardened_source_up_to_date(hardened: Connection) -> None:
    query = "select prosrc from pg_proc where oid = 'cdc_audit.on_ddl()'::regprocedure"
    before = hardened.execute(query).fetchone()
    hardened.execute(
        "create or replace function cdc_audit.on_ddl() returns event_trigger language plpgsql as 'begin end'"
    )
    install.install(hardened)
    assert hardened.execute(query).fetchone() == before


def test_a_role_that_may_not_is_told_what_to_do_and_nothing_is_left(
    source: Connection, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("installer")
    source.execute(f'grant create on database "{source.info.dbname}" to "{role}"'.encode())
    installer = connect(role)
    install.install(installer)
    with pytest.raises(NotPermittedError, match="only a superuser may") as error:
        install.harden(installer)
    assert "cdc-audit source install --harden" in str(error.value.remedy)
    assert not hardening.found(source).was_hardened
    with pytest.raises(SettingError, match="belongs to"):
        install.harden(source)  # its functions would run with a superuser's rights
    assert not hardening.found(source).was_hardened


def test_nothing_is_hardened_where_nothing_is_installed(source: Connection) -> None:
    with pytest.raises(SettingError, match="not installed"):
        install.harden(source)


def test_a_table_s_life_is_told_with_what_it_was_before(hardened: Connection, look: Look) -> None:
    hardened.execute("create table public.t (id int primary key, v text default 'hunter2')")
    created = told(look)
    assert sorted(brief(created)) == [("CREATE INDEX", "public.t_pkey"), ("CREATE TABLE", "public.t")]
    assert next(one for one in created if one["tag"] == "CREATE TABLE") == {
        "event": "ddl_command_end",
        "tag": "CREATE TABLE",
        "object_type": "table",
        "identity": "public.t",
        "schema": "public",
        "table": "t",
        "persistence": "permanent",
        "replica_identity": "default",
        "has_identity": True,
    }
    changes = {
        "replica identity full": {"replica_identity": "default"},
        "add column w int": None,
        "replica identity nothing": {"replica_identity": "full", "has_identity": True},
        "set unlogged": {"persistence": "permanent"},
        "rename to u": {"table": "t"},
    }
    for change, was in changes.items():
        hardened.execute(f"alter table public.t {change}".encode())
        assert [one.get("was") for one in told(look) if one["event"] == "ddl_command_end"] == [was], change
    hardened.execute("create schema other")
    hardened.execute("alter table public.u set schema other")
    hardened.execute("alter schema other rename to another")
    hardened.execute("drop schema another cascade")
    assert [(*one, told_.get("was", {}).get("schema")) for one, told_ in _with(told(look))] == [
        ("CREATE SCHEMA", "other", None),
        ("ALTER TABLE", "other.u", "public"),
        ("ALTER SCHEMA", "another", None),
        ("ALTER SCHEMA", "another.u", "other"),
        ("DROP SCHEMA", "another", None),
        ("DROP SCHEMA", "another.u", "another"),
    ]
    assert (
        hardened.execute(
            "select * from cdc_audit.table_state where facts ->> 'table' in ('t', 'u')"
        ).fetchall()
        == []
    )


def _with(all_told: Told) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    return list(zip(brief(all_told), all_told, strict=True))


def test_rewrites_are_told_with_their_reason(hardened: Connection, look: Look) -> None:
    hardened.execute("create table public.t (id int primary key, v text)")
    for change in ("alter v type varchar(9) using upper(v)", "add r float default random()", "set unlogged"):
        hardened.execute(f"alter table public.t {change}".encode())
    rewrites = [one for one in told(look) if one["event"] == "table_rewrite"]
    assert [one["reason"] for one in rewrites] == [["column type"], ["default"], ["persistence"]]
    assert {one["identity"] for one in rewrites} == {"public.t"}


def test_partitions_that_come_and_go_are_told_though_only_their_parent_is_named(
    hardened: Connection, look: Look
) -> None:
    hardened.execute("create table public.p (a int) partition by list (a)")
    hardened.execute("create table public.p1 (a int)")
    told(look)
    hardened.execute("alter table public.p attach partition public.p1 for values in (1)")
    hardened.execute("alter table public.p rename to q")
    hardened.execute("alter table public.q detach partition public.p1")
    of_leaf = [one for one in told(look) if one["identity"] == "public.p1"]
    assert [(one.get("root"), one["was"]["root"]) for one in of_leaf] == [
        (["public", "p"], None),
        (["public", "q"], ["public", "p"]),
        (None, ["public", "q"]),
    ]


def test_what_is_dropped_is_told_with_the_table_it_belonged_to(hardened: Connection, look: Look) -> None:
    hardened.execute("create table public.t (id int primary key, v text, w text)")
    hardened.execute(
        "create function public.f() returns trigger language plpgsql as 'begin return null; end'"
    )
    hardened.execute("create trigger guard after insert on public.t execute function public.f()")
    hardened.execute("create unique index t_w on public.t (w)")
    hardened.execute("alter table public.t alter w set not null, replica identity using index t_w")
    told(look)
    for drop in (
        "drop trigger guard on public.t",
        "alter table public.t drop column v",
        "drop index public.t_w",
        "drop function public.f()",
        "drop table public.t",
    ):
        hardened.execute(drop.encode())
    dropped = [one for one in told(look) if one["event"] == "sql_drop"]
    assert [(one["object_type"], one["identity"], one.get("table")) for one in dropped] == [
        ("trigger", "guard on public.t", "t"),
        ("table column", "public.t.v", "t"),
        ("index", "public.t_w", None),
        ("table", "public.t", "t"),  # lost its identity with the index
        ("function", "public.f()", None),
        ("table", "public.t", "t"),
    ]
    assert dropped[3]["was"] == {"has_identity": True}
    assert "persistence" not in dropped[5]


def test_the_trigger_that_says_who_acts_is_told_when_it_goes_or_is_disabled_once(
    hardened: Connection, look: Look
) -> None:
    hardened.execute("create table public.t (id int primary key)")
    trigger = (
        "create or replace trigger cdc_audit_context before insert on public.t for each statement "
        "execute function cdc_audit.context_from_setting('app.who')"
    )
    hardened.execute(trigger.encode())
    told(look)
    for change in (
        "alter table public.t disable trigger cdc_audit_context",
        "alter table public.t add v text",
        trigger,
        "alter table public.t disable trigger all",
        "alter table public.t enable trigger cdc_audit_context",
        "drop trigger cdc_audit_context on public.t",
        "alter table public.t add w text",
    ):
        hardened.execute(change.encode())
    seen = [(one["tag"], one.get("context_trigger"), one.get("was")) for one in told(look)]
    assert seen == [
        ("ALTER TABLE", None, {"context_trigger": True}),
        ("ALTER TABLE", None, None),
        ("CREATE TRIGGER", True, {"context_trigger": None}),
        ("ALTER TABLE", None, {"context_trigger": True}),
        ("ALTER TABLE", True, {"context_trigger": None}),
        ("DROP TRIGGER", None, None),
        ("ALTER TABLE", None, None),
    ]


def test_the_trigger_that_names_the_session_is_told_likewise(hardened: Connection, look: Look) -> None:
    hardened.execute("create table public.t (id int primary key)")
    told(look)
    install.install_session_triggers(hardened, ["public.t"])
    hardened.execute("alter table public.t disable trigger cdc_audit_session")
    seen = [(one["tag"], one.get("session_trigger"), one.get("was")) for one in told(look)]
    assert seen[0] == ("CREATE TRIGGER", True, {"session_trigger": None})
    assert seen[-1] == ("ALTER TABLE", None, {"session_trigger": True})


KINDS = [
    "do $$ begin create table public.t (); drop table public.t; end $$",
    "create table public.t as select 'hunter2' as a",
    "select 'hunter2' as a into public.t",
    "create index concurrently i on public.known (v)|drop index concurrently public.i",
    "create temp table t (a int primary key)|alter table t add b text|drop table t",
    "create temp table t on commit drop as select 1 as a",
    "create temp view v as select 1 as a",
    "create extension hstore|drop extension hstore",
    "create role h2_role|drop role h2_role",
    "alter table public.parted detach partition public.parted1 concurrently",
    "refresh materialized view public.seen",
    "reindex table public.known|cluster public.known using known_pkey|vacuum full public.known|analyze public.known",
    "grant select on public.known to public|comment on table public.known is 'hunter2'",
    "create policy p on public.known using (v = 'hunter2')|create rule r as on insert to public.known do nothing",
    "create schema s create table a (id serial primary key) create view b as select 'hunter2' as c",
    "set session_replication_role = replica|create table public.t ()",
    "begin isolation level serializable|create table public.t ()|alter table public.t replica identity full|commit",
    "begin|create table public.t ()|savepoint a|alter table public.t add a int|rollback to a|commit",
    "set search_path = nowhere|create table public.t (a int)",
    "select cdc_audit.rotate_key()",
    'create schema "S. ""x"" %s"|create table "S. ""x"" %s"."T. y" ("a.b" int primary key)',
    "do $$ begin create table public.t (); commit; drop table public.t; end $$",
    "alter default privileges revoke execute on functions from public",
    "create type public.mood as enum ('hunter2')|create domain public.d as text check (value <> 'hunter2')",
]
# Nothing of these is told; but from PostgreSQL 17 on REINDEX fires event triggers.
SILENT = ("create temp ", "create role ", "refresh ", "reindex ")


def test_ddl_of_every_kind_succeeds_without_a_warning_and_no_text_of_it_is_told(
    hardened: Connection, look: Look, warnings: list[str]
) -> None:
    for statements in KINDS:
        for each in (
            "reset all",
            "drop schema public cascade",
            "create schema public",
            "create table public.known (id int primary key, v text)",
            "create materialized view public.seen as select 1 as a",
            "create table public.parted (a int) partition by list (a)",
            "create table public.parted1 partition of public.parted for values in (1)",
        ):
            hardened.execute(each.encode())
        told(look)
        for statement in statements.split("|"):
            hardened.execute(statement.encode())
        all_told = told(look)
        assert not any("untold" in one for one in all_told), (statements, all_told)
        assert "hunter2" not in json.dumps(all_told), statements
        assert bool([one for one in all_told if one["tag"] != "REINDEX"]) != statements.startswith(SILENT), (
            statements
        )
    assert [text for text in warnings if "cdc_audit" in text] == []


def test_what_is_rolled_back_was_never_told(hardened: Connection, look: Look) -> None:
    with hardened.transaction(force_rollback=True):
        hardened.execute("create table public.t ()")
    assert told(look) == []


def test_an_application_s_role_is_told_by_the_server_and_the_message_is_genuine(
    hardened: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("app")
    hardened.execute(f'create schema app authorization "{role}"'.encode())
    told(look)
    app = connect(role)
    app.execute("create table app.t ()")
    sent = [one for one in look.messages() if "app.t" in one.content]
    keys = {key.key_id: key for key in install.export_keys(hardened)}
    (read,) = [read_ddl(one.content, xid=one.xid, keys=keys) for one in sent]
    assert (read.trust, read.db_user, read.event.schema, read.event.table) == (Trust.SIGNED, role, "app", "t")
    assert read_ddl(sent[0].content, xid=sent[0].xid + 1, keys=keys).trust is Trust.FORGED
    for function in ("cdc_audit.on_ddl()", "cdc_audit.noted(1)", "cdc_audit.table_facts(1)"):
        with pytest.raises(psycopg.Error):
            app.execute(f"select {function}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("delete from cdc_audit.table_state")


def test_what_can_not_be_told_is_told_to_be_so_and_the_last_resort_is_a_warning(
    hardened: Connection, look: Look, warnings: list[str]
) -> None:
    hardened.execute("alter table cdc_audit.table_state rename to gone")
    hardened.execute("create table public.t ()")
    untold = [one for one in told(look) if one["tag"] == "CREATE TABLE"]
    assert untold[0] == {"event": "ddl_command_end", "tag": "CREATE TABLE", "untold": "42P01"}
    hardened.execute("alter function cdc_audit.emit(text, boolean, jsonb) rename to gone")
    hardened.execute("create table public.u ()")
    assert warnings[-1] == "cdc_audit: CREATE TABLE is not in the audit trail (42883)"
    assert hardened.execute("select to_regclass('public.u') is not null").fetchone() == (True,)


def test_more_than_a_thousand_objects_are_counted(hardened: Connection, look: Look) -> None:
    hardened.execute("create schema many")
    hardened.execute(
        "do $$ begin for i in 1..1005 loop execute format('create table many.t%s ()', i); end loop; end $$"
    )
    told(look)
    hardened.execute("drop schema many cascade")
    all_told = told(look)
    assert len(all_told) == 1001
    assert all_told[-1] == {"event": "sql_drop", "tag": "DROP SCHEMA", "omitted": 6}
    assert hardened.execute(
        "select count(*) from cdc_audit.table_state where facts ->> 'schema' = 'many'"
    ).fetchone() == (0,)


def test_a_snapshot_that_is_older_than_another_s_ddl_tells_it_all_the_same(
    hardened: Connection, look: Look, connect: Connect
) -> None:
    hardened.execute("create table public.t (id int primary key)")
    other = connect()
    other.execute("begin isolation level repeatable read")
    other.execute("select count(*) from pg_class")
    hardened.execute("alter table public.t replica identity full")
    other.execute("alter table public.t replica identity nothing")
    other.execute("commit")
    all_told = told(look)  # its facts may be those of the old snapshot
    assert brief(all_told)[2:] == [("ALTER TABLE", "public.t")] * 2
    assert not any("untold" in one for one in all_told)


def test_sessions_that_index_one_table_at_once_do_not_wait_for_each_other(
    hardened: Connection, connect: Connect
) -> None:
    hardened.execute("create table public.t (a int, b int)")
    first, second = connect(), connect()
    first.execute("begin")
    first.execute("create index on public.t (a)")
    done = threading.Thread(target=second.execute, args=(b"create index on public.t (b)",))
    done.start()
    done.join(10)
    assert not done.is_alive()
    first.execute("commit")


def test_harm_to_the_event_triggers_is_noticed_by_looking(hardened: Connection) -> None:
    first = hardening.found(hardened)
    assert hardening.tampered(None, first) == ""
    hardened.execute("alter event trigger cdc_audit_ddl disable")
    hardened.execute("alter event trigger cdc_audit_ddl enable always")
    second = hardening.found(hardened)
    assert hardening.tampered(first, second) == "altered"
    hardened.execute("alter event trigger cdc_audit_ddl disable")
    third = hardening.found(hardened)
    assert (
        hardening.tampered(None, third)
        == hardening.tampered(second, third)
        == "dropped or disabled: cdc_audit_ddl"
    )
    assert hardening.tampered(third, third) == ""
    hardened.execute("drop event trigger cdc_audit_drop")
    assert hardening.found(hardened).broken == ("cdc_audit_ddl", "cdc_audit_drop")
    install.harden(hardened)
    mended = hardening.found(hardened)
    assert (mended.broken, hardening.tampered(third, mended)) == ((), "")
    install.uninstall(hardened)
    assert hardening.tampered(mended, hardening.found(hardened)) == "uninstalled"
