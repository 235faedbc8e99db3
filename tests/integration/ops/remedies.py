"""Doctor's remedies, taken literally: what an administrator would do who types off what is printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping

from cdc_audit.ops.check import Result
from tests.integration.ops.patient import Patient
from tests.support.daemon import until
from tests.support.psql import psql
from tests.support.servers import Server


def take(result: Result, patient: Patient) -> list[str]:
    """Do what each line says, up to one that begins with "or"; the lines that were done.

    SQL goes through psql, as the superuser of the result's side; a restart of a server is done; other words, and
    what they ask of the configuration, are left out.
    """
    done: list[str] = []
    for line in result.remedy.splitlines():
        if line.startswith("or"):
            break
        if line.endswith(";"):
            psql(_administrator(result, patient), line)
        elif line.startswith("restart the "):
            _server(line, patient).restart("fast")
        elif line.startswith("cdc-audit run"):
            _run_until_mended(line, result.name, patient)
        elif line.startswith(("cdc-audit ", "chmod ")):
            _command(line, patient)
        else:
            continue
        done.append(line)
    return done


def environment(patient: Patient) -> Mapping[str, str]:
    """The environment of a ``cdc-audit`` process with the patient's configuration, and the superusers' connections."""
    settings = {
        f"{section}_{key}".upper(): ",".join(value) if isinstance(value, list) else str(value)
        for section, values in patient.changes.items()
        for key, value in values.items()
    }
    config, databases = patient.config(), patient.databases
    return databases.environment(
        **{
            "SOURCE_EXCLUDE": "",
            "SOURCE_ADMIN_DSN": databases.source_dsn,
            "AUDIT_ADMIN_DSN": databases.audit_dsn,
            **settings,
            "SOURCE_DSN": config.source.dsn,
            "AUDIT_DSN": config.audit.dsn,
        }
    )


def _administrator(result: Result, patient: Patient) -> str:
    return patient.databases.source_dsn if result.side == "source" else patient.databases.audit_dsn


def _server(line: str, patient: Patient) -> Server:
    return patient.databases.source if "source" in line else patient.databases.audit


def _arguments(line: str) -> list[str]:
    program, *arguments = shlex.split(line)
    return (
        [sys.executable, "-m", "cdc_audit", *arguments] if program == "cdc-audit" else [program, *arguments]
    )


def _command(line: str, patient: Patient) -> None:
    done = subprocess.run(
        _arguments(line),
        env=environment(patient),
        input="y\n",  # to those that ask
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def _run_until_mended(line: str, check: str, patient: Patient) -> None:
    with subprocess.Popen(
        _arguments(line), env=environment(patient), stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            until(lambda: patient.examine()[check].status == "ok", f"{line} mends {check}")
        finally:
            daemon.terminate()
            _, said = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, said
