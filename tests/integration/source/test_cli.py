"""``cdc-audit slot`` and ``cdc-audit source``: what they print, refuse, and write into the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import Connection

from cdc_audit import postgres
from cdc_audit.cli import init as init_command
from cdc_audit.cli import slot as slot_commands
from cdc_audit.cli import source as source_commands
from cdc_audit.errors import AnotherDaemonError, CheckFailedError, NotPermittedError, SettingError, UsageError
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.schema import migrate
from cdc_audit.sink import ledger
from cdc_audit.source import facts, install, slot
from cdc_audit.source.slot import SlotInfo
from tests.support.databases import Databases

SCHEMA = "audit"
PLUGIN = "pgoutput"


class Shell:
    """The command line of an operator of these two databases."""

    def __init__(self, databases: Databases, source: Connection, audit: Connection) -> None:
        self.databases = databases
        self.source = source
        self.audit = audit

    def run(self, command: click.Command, *arguments: str, **more: str) -> str:
        """Run it; what it printed. Raises what it raised."""
        environment = self.databases.environment(**{"SOURCE_PLUGIN": PLUGIN, **more})
        result: Result = CliRunner().invoke(command, arguments, env=environment, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.output

    def slot(self, *arguments: str) -> str:
        return self.run(slot_commands.command, *arguments)

    def begin_trail(self) -> Block:
        """Slot and ledger as ``init`` leaves them."""
        name = self.databases.slot
        info = slot.create(self.source, name, PLUGIN)
        cluster = facts.identify(self.databases.source_dsn, slot=name, plugin=PLUGIN)
        migrate.migrate(self.audit, SCHEMA, None)
        return ledger.genesis(
            self.audit,
            SCHEMA,
            system_identifier=cluster.system_identifier,
            timeline=cluster.timeline,
            slot=name,
            lsn=info.confirmed_flush_lsn,
            detail={},
        )

    def last_block(self) -> Block:
        found = ledger.last_block(self.audit, SCHEMA)
        assert found is not None
        return found[0]

    def slot_info(self) -> SlotInfo:
        found = slot.status(self.source, self.databases.slot)
        assert found is not None
        return found


@pytest.fixture
def shell(databases: Databases) -> Iterator[Shell]:
    with (
        postgres.connect(databases.source_dsn, side="source") as source,
        postgres.connect(databases.audit_dsn, side="audit") as audit,
    ):
        yield Shell(databases, source, audit)


def _is_gap(block: Block, before: Block, after: SlotInfo, reason: str) -> bool:
    detail = json.loads(block.detail)
    return (
        block.kind == "gap"
        and (block.start_lsn, block.end_lsn) == (before.end_lsn, after.confirmed_flush_lsn)
        and detail["reason"] == reason
        and block.block == before.block + 1
    )


def test_a_slot_is_made_shown_and_dropped(shell: Shell) -> None:
    name = shell.databases.slot
    with pytest.raises(CheckFailedError, match="does not exist") as missing:
        shell.slot("status")
    assert missing.value.exit_code == 1
    assert "created at" in shell.slot("create")
    assert "exists already" in shell.slot("create")
    info = shell.slot_info()
    shown = json.loads(shell.slot("status", "--json"))
    assert (shown["name"], shown["plugin"], shown["active"]) == (name, PLUGIN, False)
    assert shown["confirmed_flush_lsn"] == format_lsn(info.confirmed_flush_lsn)
    assert "confirmed_flush_lsn" in shell.slot("status")
    assert f"slot {name} dropped" in shell.slot("drop", "--yes")
    assert "is not there" in shell.slot("drop", "--yes")


def test_dropping_asks_first(shell: Shell) -> None:
    slot.create(shell.source, shell.databases.slot, PLUGIN)
    with pytest.raises(click.Abort):
        shell.slot("drop")
    shell.slot_info()


def test_recreating_records_from_the_ledgers_end_to_the_new_slots_start(shell: Shell) -> None:
    begin = shell.begin_trail()
    shell.source.execute("create table public.t (a int); insert into public.t values (1)")
    old = shell.slot_info()
    shell.slot("recreate", "--reason", "lost, ticket 1", "--yes")
    new = shell.slot_info()
    assert new.confirmed_flush_lsn > old.confirmed_flush_lsn
    assert _is_gap(shell.last_block(), begin, new, "lost, ticket 1")
    assert json.loads(shell.last_block().detail)["cause"] == "slot recreate"


def test_recreating_cut_short_after_the_drop_is_finished_by_repeating_it(shell: Shell) -> None:
    begin = shell.begin_trail()
    slot.drop(shell.source, shell.databases.slot)
    shell.slot("recreate", "--reason", "again", "--yes")
    assert _is_gap(shell.last_block(), begin, shell.slot_info(), "again")


def test_recreating_cut_short_before_the_record_keeps_the_new_slot_and_records(shell: Shell) -> None:
    begin = shell.begin_trail()
    slot.drop(shell.source, shell.databases.slot)
    made = slot.create(shell.source, shell.databases.slot, PLUGIN)
    shell.source.execute("create table public.t (a int); insert into public.t values (1)")
    assert "kept" in shell.slot("recreate", "--reason", "again", "--yes")
    assert shell.slot_info().confirmed_flush_lsn == made.confirmed_flush_lsn
    assert _is_gap(shell.last_block(), begin, made, "again")


def test_recreating_without_a_ledger_is_refused_before_the_slot_is_touched(shell: Shell) -> None:
    made = slot.create(shell.source, shell.databases.slot, PLUGIN)
    with pytest.raises(SettingError, match="schema audit is not there"):
        shell.slot("recreate", "--reason", "why", "--yes")
    assert shell.slot_info().confirmed_flush_lsn == made.confirmed_flush_lsn


def test_recreating_with_an_empty_ledger_has_no_gap_to_record(shell: Shell) -> None:
    migrate.migrate(shell.audit, SCHEMA, None)
    assert "ledger is empty" in shell.slot("recreate", "--reason", "why", "--yes")
    assert ledger.last_block(shell.audit, SCHEMA) is None
    shell.slot_info()


def test_the_ledger_of_another_cluster_is_refused_before_the_slot_is_touched(shell: Shell) -> None:
    begin = shell.begin_trail()
    ledger.append(
        shell.audit,
        SCHEMA,
        "heartbeat",
        start_lsn=begin.end_lsn,
        end_lsn=begin.end_lsn,
        detail={},
        system_identifier="1",
    )
    with pytest.raises(SettingError, match="another cluster"):
        shell.slot("recreate", "--reason", "why", "--yes")
    assert shell.slot_info().confirmed_flush_lsn == begin.end_lsn


def test_a_slot_that_could_not_be_made_again_is_not_dropped(shell: Shell) -> None:
    shell.begin_trail()
    with pytest.raises(SettingError, match="does not allow the output plugin"):
        shell.run(
            slot_commands.command, "recreate", "--reason", "why", "--yes", SOURCE_DSN=_without_plugin(shell)
        )
    shell.slot_info()


def _without_plugin(shell: Shell) -> str:
    """A connection that may not use the slot's plugin; skips where the server can't refuse one."""
    if facts.read(shell.source).output_plugin_libraries is None:
        pytest.skip("this minor has no output_plugin_libraries")
    return f"{shell.databases.source_dsn} options='-c output_plugin_libraries=test_decoding'"


def test_the_slot_is_made_as_the_daemon_who_must_be_allowed_to_and_not_as_the_administrator(
    shell: Shell,
) -> None:
    server, name = shell.databases.source, shell.databases.source_name
    admin, daemon = f"{shell.databases.slot}_admin", f"{shell.databases.slot}_daemon"
    shell.source.execute(
        f"""create role {admin} login createrole; grant create on database "{name}" to {admin};
            create role {daemon} login replication""".encode()
    )
    try:
        dsns = {"SOURCE_ADMIN_DSN": server.dsn(name, admin), "SOURCE_DSN": server.dsn(name, daemon)}
        migrate.migrate(shell.audit, SCHEMA, None)
        with pytest.raises(NotPermittedError, match=f'role "{admin}" may not use replication slots'):
            shell.run(slot_commands.command, "create", SOURCE_DSN=dsns["SOURCE_ADMIN_DSN"])
        said = shell.run(init_command.command, **dsns, AUDIT_ADMIN_DSN=shell.databases.audit_dsn)
        assert f"slot {shell.databases.slot} (pgoutput): created" in said
        assert shell.last_block().kind == "genesis"
        shell.run(slot_commands.command, "recreate", "--reason", "why", "--yes", **dsns)
        shell.run(slot_commands.command, "drop", "--yes", **dsns)
    finally:
        shell.source.execute(f"drop owned by {admin} cascade; drop role {admin}, {daemon}".encode())


def test_a_slot_in_use_is_neither_recreated_nor_advanced(shell: Shell) -> None:
    shell.begin_trail()
    name, options = shell.databases.slot, "proto_version '1', publication_names 'p'"
    with psycopg.connect(shell.databases.source_dsn, replication="database", autocommit=True) as reader:
        reader.execute(f"START_REPLICATION SLOT {name} LOGICAL 0/0 ({options})".encode())
        for arguments in (("recreate",), ("advance", "--to", "now")):
            with pytest.raises(AnotherDaemonError, match="active for PID"):
                shell.slot(*arguments, "--reason", "why", "--yes")
        reader.close()
    assert shell.last_block().kind == "genesis"


def test_advancing_records_what_is_skipped_and_repeating_it_adds_nothing(shell: Shell) -> None:
    begin = shell.begin_trail()
    shell.source.execute("create table public.t (a int); insert into public.t values (1)")
    target = format_lsn(slot.position(shell.source))
    shell.slot("advance", "--to", target, "--reason", "poison", "--yes")
    moved = shell.slot_info()
    assert format_lsn(moved.confirmed_flush_lsn) == target
    assert _is_gap(shell.last_block(), begin, moved, "poison")
    assert "no gap to record" in shell.slot("advance", "--to", target, "--reason", "poison", "--yes")
    assert shell.last_block().block == begin.block + 1


def test_advancing_cut_short_before_the_record_is_finished_by_repeating_it(shell: Shell) -> None:
    begin = shell.begin_trail()
    shell.source.execute("create table public.t (a int)")
    moved = slot.advance(shell.source, shell.databases.slot, slot.position(shell.source))
    shell.slot("advance", "--to", format_lsn(moved.confirmed_flush_lsn), "--reason", "poison", "--yes")
    assert _is_gap(shell.last_block(), begin, moved, "poison")


def test_a_reason_must_be_given_and_a_position_make_sense(shell: Shell) -> None:
    shell.begin_trail()
    for arguments in (("recreate", "--yes"), ("advance", "--to", "now", "--yes")):
        with pytest.raises(click.MissingParameter):
            shell.slot(*arguments)
        with pytest.raises(UsageError, match="reason is empty"):
            shell.slot(*arguments, "--reason", " ")
    for target in ("x", "1", "0/xyz"):
        with pytest.raises(UsageError, match="neither an LSN"):
            shell.slot("advance", "--to", target, "--reason", "why", "--yes")
    with pytest.raises(SettingError, match="ahead of the source"):
        shell.slot("advance", "--to", "FFFF/0", "--reason", "why", "--yes")


def test_the_sources_functions_come_and_go_by_command(shell: Shell) -> None:
    def run(*arguments: str) -> str:
        return shell.run(source_commands.command, *arguments)

    shell.source.execute("create table public.t (id int primary key)")
    printed = run("install", "--print-sql")
    assert "create schema cdc_audit" in printed
    assert install.installed(shell.source) is None
    assert "installed" in run("install", "--guc", "app.who", "--tables", "public.*", "--revoke-emit")
    assert "brought up to date" in run("install")
    (key,) = install.export_keys(shell.source)
    assert json.loads(run("keys")) == {
        "key_id": key.key_id,
        "inner_pad": key.inner_pad.hex(),
        "outer_pad": key.outer_pad.hex(),
    }
    with pytest.raises(click.Abort):
        run("uninstall")
    removed = run("uninstall", "--yes")
    assert "removed trigger cdc_audit_context on public.t" in removed
    assert "stays revoked" in removed
    assert "nothing was installed" in run("uninstall", "--yes")
    with pytest.raises(UsageError, match="--tables needs --guc"):
        run("install", "--tables", "public.*")


def test_tables_are_shown_and_made_whole_by_command(shell: Shell) -> None:
    def run(*arguments: str, **more: str) -> str:
        return shell.run(source_commands.command, "tables", *arguments, SOURCE_PLUGIN="wal2json", **more)

    assert "no table is in scope" in run()
    shell.source.execute("create table public.keyed (id int primary key); create table public.bare (id int)")
    shown = run().splitlines()
    assert [line.split()[:4] for line in shown[1:]] == [
        ["public.bare", "default", "NO", "-"],
        ["public.keyed", "default", "yes", "key"],
    ]
    lines = [json.loads(line) for line in run("--json", "--set-full", "public.b*").splitlines()]
    assert [(line["table"], line["replica_identity"], line["can_capture_old"]) for line in lines] == [
        ("bare", "full", True),
        ("keyed", "default", False),
    ]
    assert "public.bare" not in run(SOURCE_EXCLUDE="public.bare")
    with pytest.raises(UsageError, match=r"a pattern is schema\.table"):
        run("--set-full", "bare")


def test_with_pgoutput_the_publications_are_brought_in_step_by_command(shell: Shell) -> None:
    shell.source.execute("create table public.keyed (id int primary key); create table public.bare (id int)")
    shown = shell.run(source_commands.command, "tables", SOURCE_PLUGIN="pgoutput")
    assert "added to the publications: public.bare, public.keyed" in shown
    assert "public.bare: UPDATE and DELETE can't be captured: no primary key" in shown
    assert "publications: up to date" not in shown
    shell.source.execute("alter table public.bare add primary key (id)")
    assert "moved in the publications: public.bare" in shell.run(
        source_commands.command, "tables", SOURCE_PLUGIN="pgoutput"
    )
