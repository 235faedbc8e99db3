"""``cdc-audit doctor`` as a process: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys

import orjson

from tests.integration.ops.patient import Patient


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
    assert {tuple(line) for line in lines} == {("name", "status", "message", "remedy")}
    assert all(line["remedy"] for line in lines if line["status"] in {"warn", "fail"})


def test_a_failed_check_is_printed_with_its_remedy_below_it_and_exit_code_1(healthy: Patient) -> None:
    done = doctor(healthy, SOURCE_SLOT="not_there")
    assert (done.returncode, done.stderr) == (1, "cdc-audit: 1 check failed\n")
    lines = done.stdout.splitlines()
    position = lines.index("FAIL  source_slot: replication slot not_there is not there")
    assert lines[position + 1] == "        cdc-audit slot create"
    assert "\x1b" not in done.stdout


def test_both_databases_away_is_an_answer_and_no_crash(healthy: Patient) -> None:
    healthy.configure("source", dsn="host=/nonexistent user=u")
    healthy.configure("audit", dsn="host=/nonexistent user=u")
    done = doctor(healthy)
    assert (done.returncode, done.stderr) == (1, "cdc-audit: 2 checks failed\n")
    assert "Traceback" not in done.stdout
