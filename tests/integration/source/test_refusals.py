"""The wordings of PostgreSQL 14 to 18 that one server can't all give; those it can stand in test_slot."""

from __future__ import annotations

import psycopg
import pytest

from cdc_audit.errors import (
    AnotherDaemonError,
    CdcAuditError,
    NotPermittedError,
    PoisonError,
    SettingError,
    UnavailableError,
)
from cdc_audit.source.plugin import explain_refusal

RECREATE = "cdc-audit slot recreate --reason"
REPLICATION = 'alter role "d""r" replication;'


@pytest.mark.parametrize(
    ("state", "message", "kind", "remedy"),
    [
        (
            "42501",
            "must be superuser or replication role to use replication slots",
            NotPermittedError,
            REPLICATION,
        ),
        ("42501", "permission denied to use replication slots", NotPermittedError, REPLICATION),
        ("42501", "nur Superuser und Replikationsrollen", NotPermittedError, REPLICATION),
        (
            "42501",
            'library "wal2json" may not be used as an output plugin',
            SettingError,
            "output_plugin_libraries",
        ),
        ("42501", "die Bibliothek „wal2json“", SettingError, "output_plugin_libraries"),
        (
            None,
            "FATAL:  must be superuser or replication role to start walsender",
            NotPermittedError,
            REPLICATION,
        ),
        (None, "FATAL:  permission denied to start WAL sender", NotPermittedError, REPLICATION),
        (
            "55000",
            "logical decoding requires wal_level >= logical",
            SettingError,
            "alter system set wal_level",
        ),
        (
            "55000",
            'logical decoding requires "wal_level" >= "logical"',
            SettingError,
            "alter system set wal_level",
        ),
        ("55000", 'cannot read from logical replication slot "s"', SettingError, RECREATE),
        ("55000", 'can no longer get changes from replication slot "s"', SettingError, RECREATE),
        ("55000", 'can no longer access replication slot "s"', SettingError, RECREATE),
        ("55000", 'replication slot "s" was not created in this database', SettingError, "[source] dsn"),
        ("55000", "something new", SettingError, "slot status"),
        ("58P01", 'could not access file "wal2json": No such file', SettingError, "postgresql-16-wal2json"),
        ("58P01", "requested WAL segment 0000000100 has already been removed", SettingError, RECREATE),
        ("55006", 'replication slot "s" is active for PID 17', AnotherDaemonError, "standby"),
        ("54000", "Cannot enlarge string buffer", PoisonError, None),
        ("0A000", "logical decoding cannot be used while in recovery", SettingError, "primary"),
        ("57P01", "terminating connection due to administrator command", UnavailableError, None),
    ],
)
def test_each_refusal_has_its_kind_and_its_remedy(
    state: str | None, message: str, kind: type[CdcAuditError], remedy: str | None
) -> None:
    """Case 44: among them 54000, which a row above 1 GB of JSON gives."""
    error = psycopg.errors.lookup(state)(message) if state else psycopg.OperationalError(message)
    found = explain_refusal(error, role='d"r', slot="s", plugin="wal2json", major=16)
    assert type(found) is kind
    assert remedy is None or remedy in str(found.remedy)
    assert "\n" not in found.message


def test_an_error_about_values_does_not_quote_them() -> None:
    error = psycopg.errors.lookup("22023")('invalid value "canary" for parameter')
    assert "canary" not in str(explain_refusal(error, role="r", slot="s", plugin="wal2json"))
