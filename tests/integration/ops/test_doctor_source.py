"""Doctor on a source that is broken in one way at a time: what it says, and the exact remedy."""

from __future__ import annotations

import json
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_audit.errors import SettingError
from cdc_audit.ops.check import Result
from cdc_audit.ops.plugin_probe import Probe
from cdc_audit.postgres import connect
from cdc_audit.source import install
from tests.integration.ops.patient import Patient
from tests.support.daemon import cdc_audit, initialised
from tests.support.databases import Databases

# What the shared test servers lack on purpose: a bound on the WAL held back, and fsync.
EXPECTED_WARNINGS = {"max_slot_wal_keep_size", "audit_durability"}


def by_status(results: dict[str, Result], *statuses: str) -> set[str]:
    return {name for name, result in results.items() if result.status in statuses}


def test_a_healthy_pair_has_no_failed_check_and_no_skipped_one(healthy: Patient) -> None:
    results = healthy.examine()
    assert by_status(results, "fail", "skip") == set()
    assert by_status(results, "warn") == EXPECTED_WARNINGS
    assert len(results) >= 30


def test_doctor_leaves_nothing_behind_and_changes_nothing(healthy: Patient) -> None:
    before = healthy.on_source("select slot_name, confirmed_flush_lsn from pg_replication_slots order by 1")
    healthy.examine()
    assert (
        healthy.on_source("select slot_name, confirmed_flush_lsn from pg_replication_slots order by 1")
        == before
    )


def test_without_any_configuration_both_dsns_are_named_and_the_rest_is_skipped(healthy: Patient) -> None:
    healthy.configure("source", dsn="")
    healthy.configure("audit", dsn="")
    results = healthy.examine()
    assert by_status(results, "fail") == {"source_dsn", "audit_dsn"}
    assert by_status(results, "ok", "warn", "info") == {"anchors", "redaction_key", "temporary_space"}
    assert "CDC_AUDIT_SOURCE_DSN" in results["source_dsn"].remedy
    assert results["source_reachable"].message == "not checked, because source_dsn failed"
    assert results["source_slot"].message == "not checked, because source_reachable was skipped"


def test_a_source_that_is_away_is_a_failed_check_and_the_audit_side_is_still_checked(
    healthy: Patient,
) -> None:
    healthy.configure("source", dsn="host=/nonexistent dbname=d user=u password=hunter2")
    results = healthy.examine()
    assert by_status(results, "fail") == {"source_reachable"}
    assert "hunter2" not in results["source_reachable"].message
    assert results["audit_triggers"].status == "ok"
    assert results["ledger_position"].status == "skip"


def test_a_wrong_database_name_names_the_key_to_correct(healthy: Patient) -> None:
    healthy.configure("source", dsn=healthy.databases.source.dsn("no_such_database", healthy.reader))
    result = healthy.examine()["source_reachable"]
    assert "no_such_database" in result.message
    assert result.remedy.startswith("start that server, or correct") or "database name" in result.remedy
    assert "[source] dsn" in result.remedy


def test_a_role_without_replication_is_told_the_statement_and_the_plugin_is_not_tried(
    patient: Patient,
) -> None:
    patient.on_source(f'alter role "{patient.reader}" noreplication')
    results = patient.examine()
    assert results["source_role"].status == "fail"
    assert results["source_role"].remedy == f'alter role "{patient.reader}" replication;'
    assert results["output_plugin"] == Result(
        "output_plugin", "source", "skip", "not checked, because source_role failed", ""
    )


def test_a_superuser_as_reader_is_too_much(healthy: Patient) -> None:
    healthy.configure("source", dsn=healthy.databases.source_dsn)
    result = healthy.examine()["source_role"]
    assert (result.status, "create role" in result.remedy) == ("warn", True)


def test_a_plugin_that_is_not_allowed_gets_the_least_statement_that_allows_it_first(patient: Patient) -> None:
    known = patient.on_source("select 1 from pg_settings where name = 'output_plugin_libraries'")
    if not known:
        pytest.skip("this minor of PostgreSQL doesn't restrict output plugins")
    patient.on_source(f'alter role "{patient.reader}" set output_plugin_libraries = pgoutput')
    results = patient.examine()
    assert results["output_plugin"].status == "fail"
    assert results["output_plugin"].remedy.startswith(
        f'alter role "{patient.reader}" set output_plugin_libraries = pgoutput, wal2json;'
    )
    assert "alter system set output_plugin_libraries = pgoutput, test_decoding, wal2json;" in (
        results["output_plugin"].remedy
    )
    assert results["plugin_options"].status == "skip"
    patient.on_source(results["output_plugin"].remedy.partition("\nor,")[0])
    assert patient.examine()["output_plugin"].status == "ok"


def test_a_plugin_that_is_not_installed_gets_the_name_of_its_package(patient: Patient) -> None:
    if patient.on_source("select 1 from pg_settings where name = 'output_plugin_libraries'"):
        patient.on_source(f'alter role "{patient.reader}" set output_plugin_libraries = no_such_plugin')
    probe = Probe(patient.config().source.dsn, slot="s", plugin="no_such_plugin", major=15)
    with pytest.raises(SettingError) as caught:
        probe.create_slot()
    probe.close()
    assert "apt-get install postgresql-15-no_such_plugin" in str(caught.value.remedy)


def test_a_transaction_that_stays_open_does_not_keep_doctor_waiting(healthy: Patient) -> None:
    with connect(healthy.databases.source_dsn, side="source") as busy, busy.transaction():
        busy.execute("select pg_current_xact_id()")
        probe = Probe(healthy.config().source.dsn, slot="s", plugin="wal2json", major=15)
        assert probe.create_slot(patience=0.2) is False
        probe.close()


def test_pgoutput_is_tried_without_the_options_of_wal2json(healthy: Patient) -> None:
    healthy.configure("source", plugin="pgoutput")
    results = healthy.examine()
    assert results["output_plugin"].status == "ok"
    assert "plugin_options" not in results
    assert results["source_slot"].status == "fail"
    assert 'set [source] plugin = "wal2json"' in results["source_slot"].remedy


def test_a_physical_slot_of_that_name_is_refused(healthy: Patient) -> None:
    name = f"physical_{healthy.databases.source_name}"
    healthy.on_source(f"select pg_create_physical_replication_slot('{name}')")
    healthy.configure("source", slot=name)
    try:
        assert healthy.examine()["source_slot"].status == "fail"
    finally:
        healthy.on_source(f"select pg_drop_replication_slot('{name}')")


def test_a_slot_of_another_database_is_refused(healthy: Patient) -> None:
    other = healthy.databases.source.create_database()
    name = f"slot_{other}"
    healthy.databases.source.execute(
        f"select pg_create_logical_replication_slot('{name}', 'wal2json')", dbname=other
    )
    healthy.configure("source", slot=name)
    try:
        result = healthy.examine()["source_slot"]
        assert (result.status, other in result.message) == ("fail", True)
    finally:
        healthy.databases.source.execute(f"select pg_drop_replication_slot('{name}')", dbname=other)
        healthy.databases.source.execute(f'drop database "{other}"')


def test_tables_without_identity_are_named_up_to_ten_with_a_command_each(patient: Patient) -> None:
    for number in range(12):
        patient.on_source(f"create table public.bare_{number:02} (a int)")
    result = patient.examine()["tables_without_identity"]
    assert result.status == "warn"
    assert "12 tables: public.bare_00, " in result.message
    assert "public.bare_09 and 2 more" in result.message
    lines = result.remedy.splitlines()
    assert len(lines) == 10
    assert lines[0] == "cdc-audit source tables --set-full 'public.bare_00'"


def test_an_unlogged_table_can_be_set_logged_and_an_excluded_one_is_not_looked_at(patient: Patient) -> None:
    patient.on_source('create unlogged table public."Odd one" (id int primary key)')
    patient.on_source("create unlogged table public.scratch (id int primary key)")
    patient.configure("source", exclude=["public.scratch"])
    result = patient.examine()["tables_unlogged"]
    assert result.status == "warn"
    assert result.remedy == 'alter table "public"."Odd one" set logged;'


def test_patterns_that_match_no_table_are_a_warning(healthy: Patient) -> None:
    healthy.configure("source", tables=["shopp.*"])
    result = healthy.examine()["tables_in_scope"]
    assert (result.status, "shopp.*" in result.message) == ("warn", True)


def test_a_database_that_is_not_utf8_is_a_warning(healthy: Patient) -> None:
    name = f"latin_{healthy.databases.source_name}"
    healthy.databases.source.execute(
        f"create database \"{name}\" encoding 'LATIN1' locale 'C' template template0"
    )
    healthy.configure("source", dsn=healthy.databases.source.dsn(name, healthy.reader))
    try:
        results = healthy.examine()
        assert (results["source_encoding"].status, "LATIN1" in results["source_encoding"].message) == (
            "warn",
            True,
        )
        assert results["source_functions"].remedy == "cdc-audit source install"
        assert results["context_keys"].status == "skip"
    finally:
        healthy.databases.source.execute(f'drop database "{name}"')


def test_older_source_functions_are_installed_again_and_newer_ones_need_a_newer_program(
    patient: Patient,
) -> None:
    for version, remedy in ((0, "cdc-audit source install"), (99, "upgrade cdc-audit on this machine")):
        patient.on_source(
            "create or replace function cdc_audit.version() returns integer "
            f"language sql immutable parallel safe as $$ select {version} $$"
        )
        result = patient.examine()["source_functions"]
        assert (result.status, result.remedy) == ("warn", remedy)


def test_a_daemon_that_may_not_read_the_keys_is_told_the_grant_or_reads_a_file(
    patient: Patient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    patient.on_source(f'revoke select on cdc_audit.context_key from "{patient.reader}"')
    result = patient.examine()["context_keys"]
    assert result.status == "warn"
    assert "or let [context] key_file name a file" in result.remedy
    key_file = tmp_path_factory.mktemp("keys") / "keys"
    with connect(patient.databases.source_dsn, side="source") as source:
        key = install.export_keys(source)[0]
    key_file.write_text(
        f'{{"key_id": "{key.key_id}", "inner_pad": "{bytes(key.inner_pad).hex()}", '
        f'"outer_pad": "{bytes(key.outer_pad).hex()}"}}\n'
    )
    patient.configure("context", key_file=str(key_file))
    result = patient.examine()["context_keys"]
    assert (result.status, result.message) == ("ok", "1 signing keys in [context] key_file")
    key_file.write_text("garbage")
    assert patient.examine()["context_keys"].status == "fail"


def test_doctor_looks_on_while_a_daemon_reads_the_slot(healthy: Patient) -> None:
    dsn = healthy.config().source.dsn
    with closing(psycopg.connect(dsn, autocommit=True, replication="database")) as daemon:
        daemon.execute(f"START_REPLICATION SLOT {healthy.databases.slot} LOGICAL 0/0")
        results, pid = healthy.examine(), daemon.info.backend_pid
    assert by_status(results, "fail", "skip") == set()
    assert f"read by PID {pid}" in results["source_slot"].message


def test_publications_that_are_out_of_step_are_a_failure_with_the_command_that_mends_them(
    databases: Databases,
) -> None:
    databases.source.execute("create table public.t (id int primary key)", dbname=databases.source_name)
    env = databases.environment(SOURCE_PLUGIN="pgoutput")
    initialised(env)

    def check() -> dict[str, str]:
        lines = cdc_audit("doctor", "--json", env=env).stdout.splitlines()
        return next(result for result in map(json.loads, lines) if result["name"] == "publications")

    assert check()["status"] == "ok"
    databases.source.execute("create table public.newer (id int primary key)", dbname=databases.source_name)
    assert check()["status"] == "fail"
    assert "public.newer" in check()["message"]
    assert check()["remedy"] == "cdc-audit source tables"
    assert cdc_audit("source", "tables", env=env).returncode == 0
    assert check()["status"] == "ok"
    databases.source.execute("alter table public.t drop constraint t_pkey", dbname=databases.source_name)
    assert "refuses the application's UPDATE and DELETE on public.t" in check()["message"]


def test_a_personal_key_is_told_of_unless_it_is_hashed(patient: Patient) -> None:
    patient.on_source("create table public.by_mail (mail text primary key, name text)")
    patient.configure("redact", rules=[{"table": "public.by_mail", "column": "*", "mode": "personal"}])
    result = patient.examine()["personal_keys"]
    assert (result.status, "public.by_mail (mail)" in result.message) == ("info", True)
    patient.configure("redact", hmac_key_file="/etc/cdc-audit/redact.key")
    assert patient.examine()["personal_keys"].status == "ok"


def test_options_of_the_dsn_that_change_how_values_are_printed_are_a_failure(healthy: Patient) -> None:
    assert healthy.examine()["pinned_settings"].status == "ok"
    dsn = make_conninfo(healthy.config().source.dsn, options="-c intervalstyle=iso_8601 -c work_mem=8MB")
    healthy.configure("source", dsn=dsn)
    result = healthy.examine()["pinned_settings"]
    assert (result.status, result.message.startswith("intervalstyle: ")) == ("fail", True)


def test_a_partition_that_is_a_foreign_table_is_a_warning_and_one_out_of_scope_is_none(
    patient: Patient,
) -> None:
    for statement in (
        "create extension postgres_fdw",
        "create server elsewhere foreign data wrapper postgres_fdw",
        "create table public.parted (id int) partition by list (id)",
        "create foreign table public.leaf partition of public.parted for values in (1) server elsewhere",
    ):
        patient.on_source(statement)
    result = patient.examine()["tables_partitioned"]
    assert (result.status, "public.leaf" in result.message) == ("warn", True)
    patient.configure("source", exclude=["public.parted"])
    assert patient.examine()["tables_partitioned"].status == "ok"
