"""``cdc-audit doctor`` as a process: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

from tests.integration.ops.patient import Patient
from tests.integration.ops.preconditions import PRECONDITIONS
from tests.integration.ops.remedies import environment

_FIXED = {
    "a trigger that refuses changes is disabled",
    "this month's partition is missing",
    "the source functions are of an older version",
}


def doctor(patient: Patient, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    config = patient.config()
    environment = patient.databases.environment(
        SOURCE_DSN=config.source.dsn, AUDIT_DSN=config.audit.dsn, SOURCE_EXCLUDE="", **settings
    )
    command = [sys.executable, "-m", "cdc_audit", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_healthy_pair_is_one_json_line_a_check_and_exit_code_0(healthy: Patient) -> None:
    done = doctor(healthy, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert {tuple(line) for line in lines} == {("name", "side", "status", "message", "remedy")}
    assert all(line["remedy"] for line in lines if line["status"] in {"warn", "fail"})


def test_a_failed_check_is_printed_with_its_remedy_below_it_and_exit_code_1(healthy: Patient) -> None:
    done = doctor(healthy, SOURCE_SLOT="not_there")
    assert (done.returncode, done.stderr) == (1, "cdc-audit: 1 check failed\n")
    lines = done.stdout.splitlines()
    position = lines.index("FAIL  source_slot: replication slot not_there is not there")
    assert lines[position + 1] == '        cdc-audit slot recreate --reason "..."'
    assert "\x1b" not in done.stdout


def test_both_databases_away_is_an_answer_and_no_crash(healthy: Patient) -> None:
    healthy.configure("source", dsn="host=/nonexistent user=u")
    healthy.configure("audit", dsn="host=/nonexistent user=u")
    done = doctor(healthy)
    assert (done.returncode, done.stderr) == (1, "cdc-audit: 2 checks failed\n")
    assert "Traceback" not in done.stdout


def test_fix_runs_the_safe_remedies_only_and_shows_what_is_left(patient: Patient) -> None:
    broken = [one for one in PRECONDITIONS if one.what in _FIXED | {"the slot is gone"}]
    assert len(broken) == len(_FIXED) + 1
    for one in broken:
        one.broken(patient, Path())
    command = [sys.executable, "-m", "cdc_audit", "doctor", "--fix", "--json"]
    done = subprocess.run(command, env=environment(patient), capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "cdc-audit: 1 check failed"
    statuses = {line["name"]: line["status"] for line in map(orjson.loads, done.stdout.splitlines())}
    assert statuses["source_slot"] == "fail"
    assert [statuses[one.check] for one in broken if one.check != "source_slot"] == ["ok"] * len(_FIXED)
    assert "fixing: cdc-audit schema migrate" in done.stderr
    assert "recreate" not in done.stderr


def test_a_remedy_that_fails_is_told_and_the_others_are_still_run(patient: Patient) -> None:
    for one in (one for one in PRECONDITIONS if one.what in _FIXED):
        one.broken(patient, Path())
    without_rights = {**environment(patient), "CDC_AUDIT_SOURCE_ADMIN_DSN": patient.config().source.dsn}
    command = [sys.executable, "-m", "cdc_audit", "doctor", "--fix"]
    done = subprocess.run(command, env=without_rights, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, "functions that are too old are a warning"
    assert "cdc-audit: source database: schema cdc_audit belongs to postgres" in done.stderr
    assert "ok    audit_triggers" in done.stdout
    assert "warn  source_functions" in done.stdout
