"""What is installed in the source: repeatable, closed to who must not read or forge, gone when removed."""

from __future__ import annotations

import asyncio
import hmac
import json

import psycopg
import pytest
from psycopg import Connection

from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError, UsageError
from cdc_audit.join import context as read_context
from cdc_audit.join import event as read_event
from cdc_audit.model.context import ContextKey, Trust
from cdc_audit.postgres import connect_async
from cdc_audit.source import install
from tests.integration.source.conftest import Connect, Database, RoleMaker
from tests.integration.source.stream_look import Look, Sent

SET_CONTEXT = "select cdc_audit.set_context(%s)"
LOG_EVENT = "select cdc_audit.log_event(%s, %s, %s, %s, %s)"


def _read(connection: Connection, sent: Sent) -> read_context.Said:
    """What the daemon makes of a context."""
    keys = {key.key_id: key for key in install.export_keys(connection)}
    xid = sent.xid if sent.transactional else None
    return read_context.read(sent.content, kind="context", xid=xid, keys=keys)


def _nested(depth: int) -> str:
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


def _catalog(connection: Connection) -> list[tuple[str, ...]]:
    """Everything in the catalog that an installation could leave behind."""
    return connection.execute(
        """
        select 'schema', nspname::text, nspacl::text from pg_namespace where nspname !~ '^pg_(toast_)?temp'
        union all select 'class', oid::regclass::text, relacl::text from pg_class
        union all select 'function', oid::regprocedure::text, proacl::text from pg_proc
        union all select 'type', oid::regtype::text, typacl::text from pg_type
        union all select 'trigger', tgname::text, tgrelid::regclass::text from pg_trigger
        union all select 'setting', setdatabase::text, setconfig::text from pg_db_role_setting
        where setdatabase = (select oid from pg_database where datname = current_database())
        union all select 'comment', objoid::text, description from pg_description where objoid > 16383
        order by 1, 2, 3
        """
    ).fetchall()


def test_installing_twice_changes_nothing(source: Connection) -> None:
    assert install.installed(source) is None
    assert install.install(source) is None
    keys, catalog = install.export_keys(source), _catalog(source)
    assert len(keys) == 1
    assert install.install(source) == install.Installation(install.VERSION, "cdc_audit")
    assert install.export_keys(source) == keys
    assert _catalog(source) == catalog


def test_rights_that_were_narrowed_stay_narrow_when_it_is_installed_again(
    source: Connection, connect: Connect, make_role: RoleMaker
) -> None:
    install.install(source)
    source.execute("revoke execute on function cdc_audit.set_context(jsonb) from public")
    install.install(source)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(make_role("app")).execute(SET_CONTEXT, ("{}",))


def test_uninstalling_leaves_no_trace(source: Connection, database: Database) -> None:
    source.execute("create table public.t (a int); create table public.p (a int) partition by list (a)")
    source.execute("create table public.p1 partition of public.p for values in (1)")
    before = _catalog(source)
    install.install(source)
    assert install.install_guc_bridge(source, "app.who", ["public.*"]) == [
        "public.p",
        "public.p1",
        "public.t",
    ]
    removed = install.uninstall(source)
    assert removed[:3] == [f"trigger cdc_audit_context on public.{table}" for table in ("p", "p1", "t")]
    assert _catalog(source) == before
    assert install.uninstall(source) == []


def test_what_is_printed_installs_the_same(source: Connection, database: Database) -> None:
    script = install.script(source.info.server_version, prefix="who_acts")
    with source.transaction():
        source.execute(script.encode())
    source.execute("set search_path = pg_catalog")
    printed = _catalog(source)
    assert install.installed(source) == install.Installation(install.VERSION, "who_acts")
    install.uninstall(source)
    install.install(source, prefix="who_acts")
    without_oids = [row for row in _catalog(source) if row[0] != "comment" and "pg_toast" not in row[1]]
    assert without_oids == [row for row in printed if row[0] != "comment" and "pg_toast" not in row[1]]


def test_a_schema_of_somebody_elses_is_not_installed_into(source: Connection, make_role: RoleMaker) -> None:
    role = make_role("stranger")
    source.execute(f'create schema cdc_audit authorization "{role}"'.encode())
    with pytest.raises(SettingError, match="belongs to"):
        install.install(source)
    assert install.installed(source) is None


def test_a_role_that_may_not_create_schemas_is_refused(connect: Connect, make_role: RoleMaker) -> None:
    with pytest.raises(NotPermittedError):
        install.install(connect(make_role("plain")))


def test_a_daemon_role_that_does_not_exist_is_told_and_nothing_is_installed(source: Connection) -> None:
    with pytest.raises(SettingError, match="does not exist") as error:
        install.install(source, daemon_role="no such role")
    assert error.value.remedy == 'create role "no such role" login replication;'
    assert install.installed(source) is None


def test_functions_of_a_newer_program_are_left_alone(source: Connection) -> None:
    install.install(source)
    source.execute(
        "create or replace function cdc_audit.version() returns integer language sql as 'select 99'"
    )
    with pytest.raises(SettingError, match="version 99"):
        install.install(source)


def test_a_context_can_be_given_as_any_type_that_holds_json(source: Connection, look: Look) -> None:
    install.install(source)
    casts = ("", "::text", "::varchar", "::json", "::jsonb")
    for cast in casts:
        source.execute(f"""select cdc_audit.set_context('{{"user_id": "u42"}}'{cast})""".encode())
    sent = look.messages()
    assert [(one.transactional, one.prefix) for one in sent] == [(True, "cdc_audit.context")] * len(casts)
    assert [one.body["context"] for one in sent] == [{"user_id": "u42"}] * len(casts)


def test_the_signature_is_hmac_sha256_of_the_body_under_the_key(source: Connection, look: Look) -> None:
    install.install(source)
    with source.transaction():
        source.execute("set local application_name = 'shop \"é\" 😀'")
        source.execute(SET_CONTEXT, ('{"user_id": "ü42", "quote": "\\" \\\\ \\n"}',))
        row = source.execute(
            "select pg_current_xact_id()::text, host(inet_client_addr()), current_setting('application_name')"
        )
        xid, address, application = row.fetchone() or ("", "", "")
    (sent,) = look.messages()
    version, key_id, signature, body = sent.content.split(":", 3)
    (key,) = install.export_keys(source)
    assert (version, key_id) == ("v1", key.key_id)
    secret = bytes(byte ^ 0x36 for byte in key.inner_pad)
    assert secret == bytes(byte ^ 0x5C for byte in key.outer_pad)
    assert len(set(secret[:32])) > 8
    assert secret[32:] == bytes(32)
    assert hmac.new(secret, body.encode(), "sha256").hexdigest() == signature
    assert sent.body == {
        "v": 1,
        "kind": "context",
        "xid": xid,
        "session_user": "postgres",
        "application_name": application,
        "client_addr": address,
        "at": sent.body["at"],
        "context": {"user_id": "ü42", "quote": '" \\ \n'},
    }
    said = _read(source, sent)
    assert (said.trust, said.db_user, said.application_name) == (Trust.SIGNED, "postgres", application)
    assert int(xid) & 0xFFFFFFFF == sent.xid


def test_the_daemon_believes_a_context_set_in_a_subtransaction(source: Connection, look: Look) -> None:
    install.install(source)
    with source.transaction():
        source.execute("create table public.t ()")
        with source.transaction():
            source.execute(SET_CONTEXT, ('{"user_id": "inner"}',))
    (sent,) = look.messages()
    assert _read(source, sent).trust is Trust.SIGNED


def test_a_role_with_no_rights_can_say_who_acts_but_not_read_the_key_nor_sign(
    source: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    install.install(source)
    role = make_role("app")
    app = connect(role)
    app.execute(SET_CONTEXT, ('{"user_id": "u42"}',))
    for forbidden in (
        "select * from cdc_audit.context_key",
        "update cdc_audit.context_key set retired_at = now()",
        "select cdc_audit.rotate_key()",
        "select cdc_audit.emit('context', true, '{}')",
        "create function cdc_audit.set_context(x int) returns void language sql as ''",
        "create or replace function cdc_audit.prefix() returns text language sql as 'select null::text'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(forbidden.encode())
    (sent,) = look.messages()
    assert (sent.body["session_user"], _read(source, sent).trust) == (role, Trust.SIGNED)


def test_the_login_role_is_signed_even_under_set_role(
    source: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    install.install(source)
    login, other = make_role("login"), make_role("other", "superuser")
    source.execute(f'grant "{other}" to "{login}"'.encode())
    app = connect(login)
    app.execute(f'set role "{other}"'.encode())
    app.execute(SET_CONTEXT, ('{"user_id": "u42"}',))
    app.execute(LOG_EVENT, ("LOGIN", None, None, None, True))
    assert [sent.body["session_user"] for sent in look.messages()] == [login, login]


def test_a_hostile_search_path_changes_nothing(
    source: Connection, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    install.install(source)
    role = make_role("app")
    source.execute(f'create schema evil authorization "{role}"'.encode())
    app = connect(role)
    app.execute("create function evil.sha256(bytea) returns bytea language sql as $$select '\\x00'::bytea$$")
    app.execute("create function evil.concat_ops(text, text) returns text language sql as $$select 'evil'$$")
    app.execute("create operator evil.|| (leftarg = text, rightarg = text, function = evil.concat_ops)")
    app.execute("create type evil.jsonb as (a int)")
    app.execute("set search_path = evil, pg_catalog")
    app.execute(SET_CONTEXT, ('{"user_id": "u42"}',))
    (sent,) = look.messages()
    assert _read(source, sent).trust is Trust.SIGNED


def test_only_the_daemons_role_gets_to_read_the_keys(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    daemon, analyst = make_role("daemon", "replication"), make_role("analyst")
    # the ordinary way to let somebody read everything must not reach the keys
    source.execute(f'alter default privileges grant select on tables to "{analyst}"'.encode())
    source.execute(f'alter default privileges grant all on schemas to "{analyst}"'.encode())
    source.execute(f'alter default privileges grant execute on functions to "{analyst}"'.encode())
    install.install(source, daemon_role=daemon)
    assert asyncio.run(_keys_as(database, daemon)) == install.export_keys(source)
    with pytest.raises(NotPermittedError):
        asyncio.run(_keys_as(database, analyst))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(analyst).execute("select cdc_audit.rotate_key()")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect(analyst).execute("create table cdc_audit.mine ()")


async def _keys_as(database: Database, role: str) -> list[ContextKey]:
    connection = await connect_async(database.dsn(role), side="source")
    async with connection:
        return await install.read_keys(connection)


def test_a_context_that_is_no_object_is_refused(source: Connection) -> None:
    install.install(source)
    for given in ("[]", '"u42"', "1", "null", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a JSON object"):
            source.execute("select cdc_audit.set_context(%s::jsonb)", (given,))


def test_a_context_up_to_the_limit_of_size_is_sent_and_believed_and_one_byte_more_refused(
    source: Connection, look: Look
) -> None:
    install.install(source)
    frame = len('{"a": ""}')
    source.execute(SET_CONTEXT, (json.dumps({"a": "x" * (8192 - frame)}),))
    source.execute(SET_CONTEXT, (json.dumps({"a": "é" * ((8192 - frame) // 2)}, ensure_ascii=False),))
    for said in (json.dumps({"a": "x" * (8193 - frame)}), json.dumps({"a": "é" * 4095}, ensure_ascii=False)):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="more than 8192 bytes"):
            source.execute(SET_CONTEXT, (said,))
    assert [_read(source, sent).trust for sent in look.messages()] == [Trust.SIGNED, Trust.SIGNED]


def test_a_context_nested_16_deep_is_sent_and_one_deeper_refused(source: Connection, look: Look) -> None:
    install.install(source)
    brackets = json.dumps({"text": "[{" * 1000, "list": [{} for _ in range(500)]})
    for said in (_nested(16), _nested(16).replace("{}", "[]"), brackets):
        source.execute(SET_CONTEXT, (said,))
    for said in (_nested(17), _nested(17).replace("{}", "[]"), _nested(1000)):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="nested deeper than 16"):
            source.execute(SET_CONTEXT, (said,))
    assert len(look.messages()) == 3


def test_a_refusal_does_not_tell_the_value(source: Connection) -> None:
    install.install(source)
    with pytest.raises(psycopg.Error) as error:
        source.execute("select cdc_audit.set_context(%s::jsonb)", ('["canary-5dd1"]',))
    assert "canary" not in str(error.value.diag.message_primary) + str(error.value.diag.message_detail)


def test_an_event_is_signed_with_its_fields(source: Connection, look: Look) -> None:
    install.install(source)
    source.execute(
        LOG_EVENT, ("READ", "clinic.record", "17", '{"fields": ["a"], "context": {"user_id": "u1"}}', True)
    )
    source.execute("select cdc_audit.log_event('EXPORT')")
    full, bare = look.messages()
    assert (full.transactional, full.prefix) == (True, "cdc_audit.event")
    keys = {key.key_id: key for key in install.export_keys(source)}
    found = read_event.read_event(full.content, xid=full.xid, keys=keys)
    assert found.trust is Trust.SIGNED
    assert found.event[:3] == ("READ", "clinic.record", "17")
    assert json.loads(found.event.data) == {"fields": ["a"]}
    assert found.context is not None
    assert found.context.user_id == "u1"
    assert read_event.read_event(bare.content, xid=bare.xid, keys=keys).event[:4] == (
        "EXPORT",
        "",
        "",
        b"",
    )


def test_events_are_taken_in_read_only_transactions_and_outlive_a_rollback_if_they_shall(
    source: Connection, look: Look
) -> None:
    install.install(source)
    with source.transaction():
        source.execute("set transaction read only")
        source.execute(LOG_EVENT, ("READ", "t", "1", None, True))
    with source.transaction(force_rollback=True):
        source.execute(LOG_EVENT, ("LOST", "t", "1", None, True))
        source.execute(LOG_EVENT, ("REFUSED", "t", "1", None, False))
    sent = look.messages()
    assert [(one.body["action"], one.transactional) for one in sent] == [("READ", True), ("REFUSED", False)]
    keys = {key.key_id: key for key in install.export_keys(source)}
    assert read_event.read_event(sent[1].content, xid=None, keys=keys, lsn=sent[1].lsn).trust is Trust.SIGNED
    assert sent[1].body["xid"] is None
    assert sent[1].body["wal"].count("/") == 1


def test_an_event_without_a_proper_name_or_with_one_of_the_databases_is_refused(source: Connection) -> None:
    install.install(source)
    malformed = ("", "read", "READ IT", "1READ", "READ\n", "X" * 64, None)
    reserved = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "DDL", "CONTEXT", "SNAPSHOT")
    for action in (*malformed, *reserved):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match=r"must match .* none of the database's"
        ):
            source.execute(LOG_EVENT, (action, None, None, None, True))


def test_an_event_has_the_same_limits(source: Connection) -> None:
    install.install(source)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="more than 8192 bytes"):
        source.execute(LOG_EVENT, ("READ", None, "x" * 8192, None, True))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nested deeper than 16"):
        source.execute(LOG_EVENT, ("READ", None, None, _nested(16), True))


def test_messages_are_named_by_the_prefix(source: Connection, look: Look) -> None:
    install.install(source)
    install.install(source, prefix="Shop_1")
    assert install.installed(source) == install.Installation(install.VERSION, "Shop_1")
    source.execute(SET_CONTEXT, ("{}",))
    source.execute(LOG_EVENT, ("READ", None, None, None, False))
    assert [sent.prefix for sent in look.messages()] == ["Shop_1.context", "Shop_1.event"]
    with pytest.raises(UsageError):
        install.install(source, prefix="it's")


def test_a_new_key_signs_at_once_while_the_old_one_stays_valid_until_retired(
    source: Connection, look: Look
) -> None:
    install.install(source)
    (first,) = install.export_keys(source)
    source.execute(SET_CONTEXT, ("{}",))
    second = install.rotate_key(source)
    source.execute(SET_CONTEXT, ("{}",))
    before, after = look.messages()
    assert (read_context.key_id_of(before.content), read_context.key_id_of(after.content)) == (
        first.key_id,
        second,
    )
    assert (_read(source, before).trust, _read(source, after).trust) == (Trust.SIGNED, Trust.SIGNED)
    install.retire_key(source, first.key_id)
    assert [key.key_id for key in install.export_keys(source)] == [second]
    assert (_read(source, before).trust, _read(source, after).trust) == (Trust.FORGED, Trust.SIGNED)
    for useless in (first.key_id, "nosuchkey", second):
        with pytest.raises(SettingError, match="no valid signing key"):
            install.retire_key(source, useless)


def test_no_key_ever_shows_in_a_logical_stream(source: Connection, look: Look) -> None:
    install.install(source)
    install.rotate_key(source)
    keys = install.export_keys(source)
    install.retire_key(source, keys[-1].key_id)
    seen = "\n".join(look.lines())
    for key in keys:
        assert key.inner_pad.hex()[:16] not in seen
        assert key.outer_pad.hex()[:16] not in seen
    assert len({key.inner_pad for key in keys}) == 2


def test_a_key_is_not_changed_while_a_transaction_uses_it(source: Connection, connect: Connect) -> None:
    install.install(source)
    app = connect()
    with app.transaction():
        app.execute(SET_CONTEXT, ("{}",))
        with pytest.raises(UnavailableError, match="is open"):
            install.rotate_key(source)
    assert len(install.export_keys(source)) == 1


def test_without_any_key_contexts_go_out_unsigned_and_the_application_works(
    source: Connection, look: Look
) -> None:
    install.install(source)
    keys = {key.key_id: key for key in install.export_keys(source)}
    source.execute("delete from cdc_audit.context_key")
    source.execute(SET_CONTEXT, ('{"user_id": "u42"}',))
    source.execute(LOG_EVENT, ("READ", "t", "1", None, True))
    context, event = look.messages()
    said = read_context.read(context.content, kind="context", xid=context.xid, keys=keys)
    assert (said.trust, said.fields) == (Trust.ASSERTED, {"user_id": "u42"})
    assert read_event.read_event(event.content, xid=event.xid, keys=keys).event.action == "READ"


def test_revoking_leaves_the_signing_functions_as_the_only_way(
    source: Connection, database: Database, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    raw = "select pg_logical_emit_message(true, 'cdc_audit.context', '{}')"
    app = connect(make_role("app"))
    with pytest.raises(SettingError, match="not installed"):
        install.revoke_emit(source)
    install.install(source)
    app.execute(raw)
    assert not install.emit_is_revoked(source)
    install.revoke_emit(source)
    install.revoke_emit(source)
    assert install.emit_is_revoked(source)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(raw)
    app.execute(SET_CONTEXT, ("{}",))
    assert len(look.messages()) == 2


def test_revoking_as_an_ordinary_owner_fails_aloud_and_changes_nothing(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("owner")
    source.execute(f'grant create on database "{database.name}" to "{role}"'.encode())
    owner = connect(role)
    install.install(owner)
    with pytest.raises(NotPermittedError):
        install.revoke_emit(owner)
    assert not install.emit_is_revoked(source)


def test_an_ordinary_owner_can_install_and_the_functions_work(
    source: Connection, database: Database, look: Look, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("owner")
    source.execute(f'grant create on database "{database.name}" to "{role}"'.encode())
    install.install(connect(role))
    connect(make_role("app")).execute(SET_CONTEXT, ('{"user_id": "u42"}',))
    (sent,) = look.messages()
    assert _read(source, sent).trust is Trust.SIGNED


def test_a_busy_key_table_stops_the_removal_and_repeating_it_goes_on(
    source: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cdc_audit.source import tables

    quick = {**tables.SQL, "lock_timeout": "select set_config('lock_timeout', '50ms', true)"}
    monkeypatch.setattr(tables, "SQL", quick)
    install.install(source)
    app = connect()
    with app.transaction():
        app.execute(SET_CONTEXT, ("{}",))
        with pytest.raises(UnavailableError, match="was locked by others"):
            install.uninstall(source)
    assert install.uninstall(source) == ["schema cdc_audit with its functions and keys"]
