"""The slot: made, looked at, moved and dropped, and every refusal with what mends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg
import pytest
from psycopg import Connection

from cdc_audit import postgres
from cdc_audit.errors import AnotherDaemonError, NotPermittedError, SettingError
from cdc_audit.model.lsn import format_lsn
from cdc_audit.source import facts, slot
from cdc_audit.source.plugin import explain_refusal
from tests.integration.source.conftest import Connect, Database, RoleMaker
from tests.support.servers import Server

PLUGIN = "test_decoding"
START = "START_REPLICATION SLOT {} LOGICAL 0/0"


def _has_library_setting(connection: Connection) -> bool:
    return facts.read(connection).output_plugin_libraries is not None


def _run_remedy(
    connection: Connection, error: pytest.ExceptionInfo[SettingError | NotPermittedError]
) -> None:
    """Run the first statement of a remedy, as an operator would who copies it."""
    assert error.value.remedy is not None
    connection.execute(error.value.remedy.split(";")[0].encode())


def test_a_new_slot_is_shown_with_its_position_and_holds_little(
    source: Connection, database: Database
) -> None:
    assert slot.status(source, database.slot) is None
    made = slot.create(source, database.slot, PLUGIN)
    assert (made.name, made.plugin, made.database) == (database.slot, PLUGIN, database.name)
    assert not made.active
    assert made.active_pid is None
    assert made.restart_lsn is not None
    assert 0 < made.restart_lsn <= made.confirmed_flush_lsn
    assert made.wal_status == "reserved"
    assert not made.two_phase
    assert made.invalidation_reason is None
    assert made.failover is (None if source.info.server_version < 170000 else True)


def test_how_old_the_catalog_rows_are_that_the_slot_holds_back_is_shown(
    source: Connection, database: Database
) -> None:
    before = slot.create(source, database.slot, PLUGIN)
    assert before.catalog_xmin_age is not None
    for _ in range(20):
        source.execute("select pg_current_xact_id()")
    after = slot.status(source, database.slot)
    assert after is not None and after.catalog_xmin_age is not None
    assert after.catalog_xmin_age >= before.catalog_xmin_age + 20


def test_lag_and_retained_wal_grow_with_what_the_server_writes(
    source: Connection, database: Database
) -> None:
    before = slot.create(source, database.slot, PLUGIN)
    source.execute("create table public.t as select repeat('x', 100) as v from generate_series(1, 5000)")
    after = slot.status(source, database.slot)
    assert after is not None
    assert after.lag_bytes >= before.lag_bytes + 500_000
    assert after.retained_bytes >= after.lag_bytes
    assert after.confirmed_flush_lsn == before.confirmed_flush_lsn


def test_making_the_same_slot_twice_leaves_the_first(source: Connection, database: Database) -> None:
    first = slot.create(source, database.slot, PLUGIN)
    source.execute("create table public.t ()")
    assert slot.create(source, database.slot, PLUGIN).confirmed_flush_lsn == first.confirmed_flush_lsn


def test_a_slot_of_another_plugin_is_not_taken(source: Connection, database: Database) -> None:
    slot.create(source, database.slot, PLUGIN)
    with pytest.raises(SettingError, match='is of plugin "test_decoding", not "pgoutput"') as error:
        slot.create(source, database.slot, "pgoutput")
    assert 'plugin = "test_decoding"' in str(error.value.remedy)


def test_a_slot_of_another_database_is_neither_taken_nor_dropped(
    source: Connection, database: Database, connect: Connect
) -> None:
    """Case 19."""
    slot.create(source, database.slot, PLUGIN)
    elsewhere = connect(dbname="postgres")
    with pytest.raises(SettingError, match=f'belongs to database "{database.name}"'):
        slot.create(elsewhere, database.slot, PLUGIN)
    with pytest.raises(SettingError, match="belongs to database"):
        slot.drop(elsewhere, database.slot)
    assert slot.status(source, database.slot) is not None


def test_a_physical_slot_of_that_name_is_told(source: Connection, database: Database) -> None:
    source.execute("select pg_create_physical_replication_slot(%s)", (database.slot,))
    try:
        with pytest.raises(SettingError, match="is a physical one"):
            slot.status(source, database.slot)
    finally:
        source.execute("select pg_drop_replication_slot(%s)", (database.slot,))


def test_a_role_without_replication_is_refused_and_the_remedy_mends_it(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role('odd "name'.replace('"', ""))
    with pytest.raises(NotPermittedError, match=f'"{role}" may not use replication slots') as error:
        slot.create(connect(role), database.slot, PLUGIN)
    assert error.value.remedy == f'alter role "{role}" replication;'
    _run_remedy(source, error)
    assert slot.create(connect(role), database.slot, PLUGIN).plugin == PLUGIN


def test_a_replication_connection_without_the_right_gets_the_same_answer(
    database: Database, make_role: RoleMaker
) -> None:
    role = make_role("plain")
    with pytest.raises(NotPermittedError) as error:
        facts.identify(database.dsn(role), slot=database.slot, plugin=PLUGIN)
    assert error.value.remedy == f'alter role "{role}" replication;'


def test_a_plugin_that_the_server_does_not_allow_is_refused_and_the_remedy_mends_it(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    if not _has_library_setting(source):
        pytest.skip("this minor has no output_plugin_libraries")
    role = make_role("stream", "replication")
    source.execute(f'alter role "{role}" set output_plugin_libraries = pgoutput'.encode())
    with pytest.raises(SettingError, match="does not allow the output plugin") as error:
        slot.create(connect(role), database.slot, PLUGIN)
    least = f'alter role "{role}" set output_plugin_libraries = pgoutput, {PLUGIN};'
    assert str(error.value.remedy).startswith(least)
    assert "alter system set output_plugin_libraries = pgoutput, test_decoding;" in str(error.value.remedy)
    _run_remedy(source, error)
    assert slot.create(connect(role), database.slot, PLUGIN).plugin == PLUGIN


def test_an_existing_slot_whose_plugin_is_no_longer_allowed_says_the_same_when_it_is_read(
    source: Connection, database: Database, make_role: RoleMaker
) -> None:
    if not _has_library_setting(source):
        pytest.skip("this minor has no output_plugin_libraries")
    slot.create(source, database.slot, PLUGIN)
    role = make_role("stream", "replication")
    source.execute(f'alter role "{role}" set output_plugin_libraries = pgoutput'.encode())
    error = _start_error(database.dsn(role), START.format(database.slot))
    explained = explain_refusal(error, role=role, slot=database.slot, plugin=PLUGIN)
    assert isinstance(explained, SettingError)
    assert str(explained.remedy).startswith(
        f'alter role "{role}" set output_plugin_libraries = pgoutput, {PLUGIN};'
    )


def test_a_plugin_that_is_not_installed_is_told_with_its_package(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    role = make_role("stream", "replication")
    if _has_library_setting(source):
        source.execute(f'alter role "{role}" set output_plugin_libraries = nosuchplugin'.encode())
    with pytest.raises(SettingError, match='does not have the output plugin "nosuchplugin"') as error:
        slot.create(connect(role), database.slot, "nosuchplugin")
    major = source.info.server_version // 10_000
    assert f"apt-get install postgresql-{major}-nosuchplugin" in str(error.value.remedy)


def test_an_option_that_the_plugin_does_not_know_is_named(source: Connection, database: Database) -> None:
    slot.create(source, database.slot, PLUGIN)
    error = _start_error(database.dsn(), START.format(database.slot) + " (\"no-such-option\" '1')")
    explained = explain_refusal(error, role="postgres", slot=database.slot, plugin=PLUGIN)
    assert isinstance(explained, SettingError)
    assert 'does not take the option "no-such-option"' in explained.message


def test_a_missing_slot_is_told_with_what_makes_it(database: Database) -> None:
    error = _start_error(database.dsn(), START.format(database.slot))
    explained = explain_refusal(error, role="postgres", slot=database.slot, plugin=PLUGIN)
    assert isinstance(explained, SettingError)
    assert "does not exist" in explained.message
    assert "cdc-audit slot create" in str(explained.remedy)
    assert "cdc-audit slot recreate" in str(explained.remedy)


def test_a_slot_in_use_is_shown_active_and_neither_dropped_nor_advanced(
    source: Connection, database: Database
) -> None:
    made = slot.create(source, database.slot, PLUGIN)
    with contextlib.closing(_replication(database.dsn())) as reader:
        reader.execute(START.format(database.slot).encode())
        busy = slot.status(source, database.slot)
        assert busy is not None
        assert busy.active
        assert busy.active_pid == reader.info.backend_pid
        for attempt in (
            lambda: slot.drop(source, database.slot),
            lambda: slot.advance(source, database.slot, made.confirmed_flush_lsn + 1),
        ):
            with pytest.raises(AnotherDaemonError, match=f"active for PID {reader.info.backend_pid}"):
                attempt()
        error = _start_error(database.dsn(), START.format(database.slot))
        explained = explain_refusal(error, role="postgres", slot=database.slot, plugin=PLUGIN)
        assert isinstance(explained, AnotherDaemonError)
        assert str(reader.info.backend_pid) in explained.message


def test_dropping_says_whether_there_was_a_slot(source: Connection, database: Database) -> None:
    slot.create(source, database.slot, PLUGIN)
    assert slot.drop(source, database.slot)
    assert not slot.drop(source, database.slot)


def test_advancing_skips_what_was_committed_before(source: Connection, database: Database) -> None:
    slot.create(source, database.slot, PLUGIN)
    source.execute("create table public.t (a int)")
    source.execute("insert into public.t values (1)")
    reached = slot.position(source)
    source.execute("insert into public.t values (2)")
    moved = slot.advance(source, database.slot, reached)
    assert moved.confirmed_flush_lsn == reached
    changes = source.execute(
        "select data from pg_logical_slot_peek_changes(%s, null, null)", (database.slot,)
    ).fetchall()
    assert [line for (line,) in changes if "INSERT" in line] == ["table public.t: INSERT: a[integer]:2"]
    assert slot.advance(source, database.slot, reached - 8).confirmed_flush_lsn == reached


def test_advancing_past_the_servers_end_is_refused(source: Connection, database: Database) -> None:
    made = slot.create(source, database.slot, PLUGIN)
    target = made.confirmed_flush_lsn + (1 << 40)
    with pytest.raises(SettingError, match=f"{format_lsn(target)} is ahead of the source server"):
        slot.advance(source, database.slot, target)


def test_advancing_a_missing_slot_is_refused(source: Connection, database: Database) -> None:
    with pytest.raises(SettingError, match="does not exist"):
        slot.advance(source, database.slot, slot.position(source))


def test_failover_is_refused_where_the_server_has_none(source: Connection, database: Database) -> None:
    if source.info.server_version >= 170000:
        assert not slot.create(source, database.slot, PLUGIN, failover=False).failover
        with pytest.raises(SettingError, match="without failover"):
            slot.create(source, database.slot, PLUGIN, failover=True)
        return
    with pytest.raises(SettingError, match="PostgreSQL 17"):
        slot.create(source, database.slot, PLUGIN, failover=True)
    assert slot.status(source, database.slot) is None


def test_whether_a_slot_could_be_made_is_tried_without_leaving_anything(
    source: Connection, database: Database, connect: Connect, make_role: RoleMaker
) -> None:
    slot.check_creatable(source, database.slot, PLUGIN)
    assert facts.read(source).used_replication_slots == len(
        source.execute("select from pg_replication_slots where not temporary").fetchall()
    )
    with pytest.raises(NotPermittedError):
        slot.check_creatable(connect(make_role("plain")), database.slot, PLUGIN)


def test_a_server_without_logical_wal_is_told_with_its_setting(
    private_cluster: Callable[..., Server],
) -> None:
    server = private_cluster("replica", wal_level="replica")
    with postgres.connect(server.dsn(), side="source") as connection:
        assert facts.read(connection).wal_level == "replica"
        with pytest.raises(SettingError, match="wal_level") as error:
            slot.create(connection, "s", PLUGIN)
    assert str(error.value.remedy).startswith("alter system set wal_level = logical;")
    assert "restart" in str(error.value.remedy)


def test_a_server_whose_slots_are_all_taken_is_told(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("full", settings={"max_replication_slots": 1})
    with postgres.connect(server.dsn(), side="source") as connection:
        slot.create(connection, "first", PLUGIN)
        with pytest.raises(SettingError, match="all replication slots are in use") as error:
            slot.create(connection, "second", PLUGIN)
        assert "max_replication_slots" in str(error.value.remedy)
        slot.check_creatable(connection, "first", PLUGIN)


def test_a_slot_that_lost_its_wal_says_so_and_how_to_go_on(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("lost", settings={"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"})
    with postgres.connect(server.dsn(), side="source") as connection:
        slot.create(connection, "s", PLUGIN)
        for _ in range(4):
            connection.execute("create table public.t (); drop table public.t; select pg_switch_wal()")
        connection.execute("checkpoint")
        lost = slot.status(connection, "s")
        assert lost is not None
        assert lost.is_lost
        assert lost.invalidation_reason == "wal_removed"
        assert lost.retained_bytes == 0
        with pytest.raises(SettingError, match="was invalidated") as error:
            slot.create(connection, "s", PLUGIN)
        assert error.value.remedy == 'cdc-audit slot recreate --reason "..."'
    refused = _start_error(server.dsn(), START.format("s"))
    explained = explain_refusal(refused, role="postgres", slot="s", plugin=PLUGIN)
    assert isinstance(explained, SettingError)
    assert str(explained.remedy).startswith('cdc-audit slot recreate --reason "..."')


def test_facts_are_those_of_the_server_and_of_the_role_that_looks(
    source: Connection, connect: Connect, make_role: RoleMaker, database: Database
) -> None:
    seen = facts.read(source)
    identified = facts.identify(database.dsn(), slot=database.slot, plugin=PLUGIN)
    assert seen.system_identifier == identified.system_identifier
    assert identified.timeline == 1
    assert identified.history == ""
    assert seen.major == source.info.server_version // 10_000
    assert (seen.database, seen.user, seen.is_superuser) == (database.name, "postgres", True)
    assert (seen.wal_level, seen.in_recovery, seen.server_encoding) == ("logical", False, "UTF8")
    role = make_role("stream", "replication")
    theirs = facts.read(connect(role))
    assert (theirs.user, theirs.is_superuser, theirs.has_replication) == (role, False, True)
    assert theirs.output_plugin_libraries is None


def _replication(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, replication="database", autocommit=True)


def _start_error(dsn: str, command: str) -> psycopg.Error:
    """What the server answers to a START_REPLICATION command that it refuses."""
    with contextlib.closing(_replication(dsn)) as reader, pytest.raises(psycopg.Error) as error:
        reader.execute(command.encode())
    return error.value
