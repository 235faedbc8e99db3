"""Doctor on an audit database, or a pair, that is broken in one way at a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tests.integration.ops.patient import Patient


def test_an_audit_database_that_is_away_is_a_failed_check_and_the_source_is_still_checked(
    healthy: Patient,
) -> None:
    healthy.configure("audit", dsn="host=127.0.0.1 port=1 dbname=d user=u")
    results = healthy.examine()
    assert {name for name, result in results.items() if result.status == "fail"} == {"audit_reachable"}
    assert results["output_plugin"].status == "ok"


def test_a_missing_audit_schema_is_made_by_init(healthy: Patient) -> None:
    healthy.configure("audit", schema="elsewhere")
    results = healthy.examine()
    assert (results["audit_schema"].status, results["audit_schema"].remedy) == ("fail", "cdc-audit init")
    assert results["audit_triggers"].status == "skip"
    assert results["ledger_position"].status == "skip"


def test_an_older_audit_schema_is_migrated_and_a_newer_one_needs_a_newer_program(patient: Patient) -> None:
    for version, remedy in ((-10, "cdc-audit schema migrate"), (99, "upgrade cdc-audit on this machine")):
        patient.on_audit(f"update audit.schema_version set version = version + {version}")
        result = patient.examine()["audit_schema"]
        assert (result.status, result.remedy) == ("fail", remedy)


def test_a_right_on_one_partition_or_one_column_is_found(patient: Patient) -> None:
    patient.on_audit(f'grant delete on audit.audit_logs_default to "{patient.writer}"')
    assert "audit_logs_default: DELETE" in patient.examine()["audit_writer"].message
    patient.on_audit(f'revoke delete on audit.audit_logs_default from "{patient.writer}"')
    patient.on_audit(f'grant select (user_id) on audit.audit_logs to "{patient.writer}"')
    assert "audit_logs: SELECT" in patient.examine()["audit_writer"].message


def test_a_writer_that_is_a_member_of_the_owner_or_a_superuser_is_a_warning(patient: Patient) -> None:
    patient.on_audit(f'grant audit_owner to "{patient.writer}"')
    result = patient.examine()["audit_writer"]
    assert (result.status, result.remedy) == ("warn", f'revoke "audit_owner" from "{patient.writer}";')
    patient.configure("audit", dsn=patient.databases.audit_dsn)
    result = patient.examine()["audit_writer"]
    assert (result.status, "superuser" in result.message) == ("warn", True)


def test_partitions_of_this_and_next_month_are_looked_for_also_across_the_year(healthy: Patient) -> None:
    december = datetime(2031, 12, 30, tzinfo=UTC).timestamp()
    result = healthy.examine(clock=lambda: december)["audit_partitions"]
    assert result.status == "warn"
    assert "audit_logs_2031_12, audit_logs_2032_01" in result.message
    assert result.remedy == "cdc-audit schema partitions --ahead 3"


def test_months_that_are_over_and_lack_their_indexes_are_a_warning(patient: Patient) -> None:
    assert patient.examine()["audit_indexes"].status == "ok"
    patient.on_audit("select audit.ensure_partition('2020-01-01')")
    patient.on_audit(
        "insert into audit.ledger (block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn,"
        " last_commit_at, written_at, rows_root, prev_hash, block_hash)"
        " select block + 1, 'data', first_id, 0, system_identifier, timeline, slot, start_lsn, end_lsn, now(), now(), '', '', ''"
        " from audit.ledger order by block desc limit 1",
    )
    result = patient.examine()["audit_indexes"]
    assert (result.status, result.remedy) == ("warn", "cdc-audit schema index")
    assert (
        "6 look-up indexes of months that are over are missing (audit_logs_2020_01_record" in result.message
    )


def test_a_clock_that_is_wrong_is_a_warning_on_both_sides(healthy: Patient) -> None:
    results = healthy.examine(clock=lambda: time.time() - 60)
    assert (results["source_clock"].status, results["audit_clock"].status) == ("warn", "warn")
    assert "60 s ahead of" in results["source_clock"].message
    results = healthy.examine(clock=lambda: time.time() + 60)
    assert "60 s behind" in results["audit_clock"].message


def test_a_slot_ahead_of_the_ledger_is_a_failure_that_names_both_positions(patient: Patient) -> None:
    patient.on_source("insert into public.users values (1, 'x')")
    patient.on_source(f"select * from pg_logical_slot_get_changes('{patient.databases.slot}', null, null)")
    result = patient.examine()["ledger_position"]
    assert result.status == "fail"
    assert "the slot is ahead of the ledger" in result.message
    assert '--accept-gap "reason"' in result.remedy


def test_a_ledger_of_another_source_is_a_failure(patient: Patient) -> None:
    patient.on_audit("drop trigger refuse_change on audit.ledger")
    patient.on_audit("update audit.ledger set system_identifier = '42'")
    result = patient.examine()["ledger_position"]
    assert (result.status, "system identifier 42" in result.message) == ("fail", True)


def test_one_database_for_both_is_a_failure_and_one_server_a_warning(healthy: Patient) -> None:
    healthy.configure("audit", dsn=healthy.config().source.dsn)
    assert healthy.examine()["separation"].status == "fail"
    healthy.configure("audit", dsn=healthy.databases.source.dsn("postgres", healthy.reader))
    assert healthy.examine()["separation"].status == "warn"


def test_roles_that_may_not_identify_a_server_leave_the_separation_open(patient: Patient) -> None:
    patient.on_audit("revoke execute on function pg_control_system() from public")
    results = patient.examine()
    assert results["separation"].status == "info"
    assert results["ledger_position"].status == "ok"


def test_an_audit_database_that_lacks_characters_is_a_failure(healthy: Patient) -> None:
    name = f"latin_{healthy.databases.audit_name}"
    server = healthy.databases.audit
    server.execute(f"create database \"{name}\" encoding 'LATIN1' locale 'C' template template0")
    healthy.configure("audit", dsn=server.dsn(name, healthy.writer))
    try:
        result = healthy.examine()["audit_encoding"]
        assert (result.status, "LATIN1" in result.message) == ("fail", True)
        assert "--encoding=UTF8" in result.remedy
    finally:
        server.execute(f'drop database "{name}"')
