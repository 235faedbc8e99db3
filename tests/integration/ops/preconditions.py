"""Each precondition of the daemon, and a way to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cdc_audit.cli.key import command as key
from cdc_audit.ops.check import Status
from cdc_audit.postgres import connect
from cdc_audit.schema import migrate as migrations
from tests.integration.ops.patient import Patient

Break = Callable[[Patient, Path], None]


class Precondition(NamedTuple):
    """What is broken, which check finds it, with which status; ``own_servers``: it takes servers of the test's own;
    ``setting``: one of the source that it takes, which not every minor has.
    """

    what: str
    check: str
    broken: Break
    status: Status = "fail"
    own_servers: bool = False
    setting: str = ""


def on_source(*statements: str) -> Break:
    """Run statements as the source's superuser; {reader} and {slot} are the patient's."""

    def run(patient: Patient, folder: Path) -> None:
        for statement in statements:
            patient.on_source(statement.format(reader=patient.reader, slot=patient.databases.slot))

    return run


def on_audit(*statements: str) -> Break:
    """The same on the audit database; {writer} is the patient's, {month} the present one's partition."""

    def run(patient: Patient, folder: Path) -> None:
        month = patient.on_audit("select 'audit_logs_' || to_char(now() at time zone 'UTC', 'YYYY_MM')")[0][0]
        for statement in statements:
            patient.on_audit(statement.format(writer=patient.writer, month=month))

    return run


def restarted_source(*statements: str) -> Break:
    def run(patient: Patient, folder: Path) -> None:
        on_source(*statements)(patient, folder)
        patient.databases.source.restart("fast")

    return run


def _lost_slot(patient: Patient, folder: Path) -> None:
    patient.on_source("alter system set max_slot_wal_keep_size = '1MB'")
    patient.on_source("select pg_reload_conf()")
    for number in range(4):
        patient.on_source(f"insert into public.users values ({number}, 'x')")
        patient.on_source("select pg_switch_wal()")
    patient.on_source("checkpoint")
    patient.on_source("alter system reset max_slot_wal_keep_size")
    patient.on_source("select pg_reload_conf()")


def _unpublished(patient: Patient, folder: Path) -> None:
    patient.configure("source", plugin="pgoutput")
    patient.on_source("create table public.newer (id int primary key)")


def _other_prefix(patient: Patient, folder: Path) -> None:
    patient.configure("context", prefix="other")


def _no_schema(patient: Patient, folder: Path) -> None:
    patient.configure("audit", schema="elsewhere")


def _older_schema(patient: Patient, folder: Path) -> None:
    """As the first release left it."""
    patient.on_audit("drop schema audit cascade")
    with pytest.MonkeyPatch.context() as release, connect(patient.databases.audit_dsn, side="audit") as audit:
        release.setattr(migrations, "_MIGRATIONS", migrations._MIGRATIONS[:1])
        migrations.migrate(audit, "audit", patient.writer)


def _no_key(patient: Patient, folder: Path) -> None:
    patient.configure("ledger", signing_key_file=str(folder / "signing.pem"))


def _open_key(patient: Patient, folder: Path) -> None:
    key.main(["generate", str(folder / "signing.pem")], standalone_mode=False)
    (folder / "signing.pem").chmod(0o644)
    _no_key(patient, folder)


PRECONDITIONS = [
    # the source's server
    Precondition(
        "wal_level is replica",
        "source_wal_level",
        restarted_source("select pg_drop_replication_slot('{slot}')", "alter system set wal_level = replica"),
        own_servers=True,
    ),
    Precondition(
        "no replication slot is free",
        "source_free_slot",
        restarted_source(
            "select pg_drop_replication_slot('{slot}')",
            "select pg_create_physical_replication_slot('another')",
            "alter system set max_replication_slots = 1",
        ),
        own_servers=True,
    ),
    Precondition(
        "no walsender is free",
        "source_wal_senders",
        restarted_source("alter system set max_wal_senders = 0"),
        own_servers=True,
    ),
    Precondition(
        "max_slot_wal_keep_size is -1",
        "max_slot_wal_keep_size",
        on_source("alter system reset max_slot_wal_keep_size", "select pg_reload_conf()"),
        "warn",
        own_servers=True,
    ),
    Precondition("the slot is lost", "source_slot", _lost_slot, own_servers=True),
    # the source's role
    Precondition(
        "the daemon's role lacks REPLICATION",
        "source_role",
        on_source('alter role "{reader}" noreplication'),
    ),
    Precondition(
        "the daemon's role may create roles and databases",
        "source_role",
        on_source('alter role "{reader}" createrole createdb bypassrls'),
        "warn",
    ),
    Precondition(
        "wal2json is not allowed",
        "output_plugin",
        on_source('alter role "{reader}" set output_plugin_libraries = pgoutput'),
        setting="output_plugin_libraries",
    ),
    Precondition(
        "wal_sender_timeout is 0",
        "wal_sender_timeout",
        on_source('alter role "{reader}" set wal_sender_timeout = 0'),
        "warn",
    ),
    Precondition(
        "the daemon's role may not read the signing keys",
        "context_keys",
        on_source('revoke select on cdc_audit.context_key from "{reader}"'),
        "warn",
    ),
    # the slot
    Precondition("the slot is gone", "source_slot", on_source("select pg_drop_replication_slot('{slot}')")),
    Precondition(
        "the slot is of another plugin",
        "source_slot",
        on_source(
            "select pg_drop_replication_slot('{slot}')",
            "select pg_create_logical_replication_slot('{slot}', 'test_decoding')",
        ),
    ),
    Precondition(
        "somebody else consumed changes of the slot",
        "ledger_position",
        on_source(
            "insert into public.users values (1, 'x')",
            "select from pg_logical_slot_get_changes('{slot}', null, null)",
        ),
    ),
    # what is in the source
    Precondition(
        "the source functions are missing",
        "source_functions",
        on_source("drop schema cdc_audit cascade"),
        "warn",
    ),
    Precondition(
        "the source functions are of an older version",
        "source_functions",
        on_source(
            "create or replace function cdc_audit.version() returns integer language sql immutable parallel safe as 'select 0'"
        ),
        "warn",
    ),
    Precondition("the source functions send another prefix", "source_functions", _other_prefix),
    Precondition(
        "anybody may emit messages",
        "emit_right",
        on_source("grant execute on function pg_logical_emit_message(boolean, text, text) to public"),
        "warn",
    ),
    Precondition(
        "a table has no replica identity",
        "tables_without_identity",
        on_source("create table public.bare (a int)"),
        "warn",
    ),
    Precondition(
        "a table gives only the key of old rows",
        "tables_without_full_images",
        on_source("create table public.keyed (id int primary key)"),
        "info",
    ),
    Precondition(
        "a table is unlogged",
        "tables_unlogged",
        on_source('create unlogged table public."Odd one" (id int primary key)'),
        "warn",
    ),
    Precondition("a table is in no publication", "publications", _unpublished),
    # the audit database
    Precondition("the audit schema is missing", "audit_schema", _no_schema),
    Precondition("the audit schema is of an older release", "audit_schema", _older_schema),
    Precondition(
        "the audit server doesn't flush",
        "audit_durability",
        on_audit("alter system set fsync = off", "select pg_reload_conf()"),
        "warn",
        own_servers=True,
    ),
    Precondition(
        "the daemon's login isn't a writer",
        "audit_schema",
        on_audit('revoke audit_writer from "{writer}"'),
    ),
    Precondition(
        "audit_writer has lost a right",
        "audit_writer",
        on_audit("revoke insert on audit.ledger from audit_writer"),
    ),
    Precondition(
        "the daemon's login may change rows",
        "audit_writer",
        on_audit('grant update, delete on audit.audit_logs to "{writer}"'),
        "warn",
    ),
    Precondition(
        "the daemon's login may read one column of rows",
        "audit_writer",
        on_audit('grant select (user_id) on audit.audit_logs to "{writer}"'),
        "warn",
    ),
    Precondition(
        "the daemon's login may write all data",
        "audit_writer",
        on_audit('grant pg_write_all_data to "{writer}"'),
        "warn",
    ),
    Precondition(
        "the daemon's login is a member of the owner",
        "audit_writer",
        on_audit('grant audit_owner to "{writer}"'),
        "warn",
    ),
    Precondition(
        "everybody may read the trail",
        "audit_grants",
        on_audit("grant select on audit.audit_logs to public"),
        "warn",
    ),
    Precondition(
        "audit_admin may change the ledger, and everybody may erase",
        "audit_grants",
        on_audit(
            "grant update on audit.ledger to audit_admin",
            "grant execute on all functions in schema audit to public",
        ),
        "warn",
    ),
    Precondition(
        "the owner may delete from a partition",
        "audit_grants",
        on_audit("grant delete on audit.audit_logs_default to audit_owner"),
        "warn",
    ),
    Precondition(
        "audit_admin can't read the ledger",
        "audit_grants",
        on_audit("revoke select on audit.ledger from audit_admin"),
        "warn",
    ),
    Precondition(
        "the ledger belongs to somebody else",
        "audit_owners",
        on_audit("alter table audit.ledger owner to postgres"),
    ),
    Precondition(
        "audit_admin is a member of the owner and may make roles",
        "audit_roles",
        on_audit("grant audit_owner to audit_admin", "alter role audit_admin createrole"),
        own_servers=True,
    ),
    Precondition(
        "a trigger that refuses changes is disabled",
        "audit_triggers",
        on_audit("alter table audit.audit_logs disable trigger refuse_change"),
    ),
    Precondition(
        "a trigger doesn't refuse in every session",
        "audit_triggers",
        on_audit("alter table audit.audit_logs_default enable trigger refuse_truncate"),
    ),
    Precondition(
        "a trigger that refuses TRUNCATE is gone",
        "audit_triggers",
        on_audit("drop trigger refuse_truncate on audit.ledger"),
    ),
    Precondition(
        "this month's partition is missing", "audit_partitions", on_audit("drop table audit.{month}"), "warn"
    ),
    Precondition(
        "the ledger is empty",
        "ledger_position",
        on_audit("drop trigger refuse_change on audit.ledger", "delete from audit.ledger"),
    ),
    Precondition(
        "a role may not ask which server it is on",
        "separation",
        on_audit("revoke execute on function pg_control_system() from public"),
        "info",
        own_servers=True,
    ),
    # the daemon's host
    Precondition("there is no signing key", "signing_key", _no_key),
    Precondition("the signing key can be read by others", "signing_key", _open_key),
]
