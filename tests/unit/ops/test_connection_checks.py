"""What doctor makes of a connection's encryption, and of the room on this host."""

from __future__ import annotations

import pytest

from cdc_audit.ops.check import Status
from cdc_audit.ops.connection_checks import tls
from cdc_audit.ops.host_checks import space


@pytest.mark.parametrize(
    ("host", "is_encrypted", "mode", "status"),
    [
        ("/run/postgresql", False, "prefer", "ok"),
        ("127.0.0.1", False, "prefer", "ok"),
        ("localhost", False, "prefer", "ok"),
        ("db.example.org", False, "prefer", "warn"),
        ("10.0.0.9", False, "disable", "warn"),
        ("db.example.org", True, "prefer", "info"),
        ("db.example.org", True, "require", "info"),
        ("db.example.org", True, "verify-ca", "info"),
        ("db.example.org", True, "verify-full", "ok"),
    ],
)
def test_only_an_encrypted_connection_to_a_server_that_proves_its_name_is_fine(
    host: str, is_encrypted: bool, mode: str, status: Status
) -> None:
    found = tls("source", host=host, is_encrypted=is_encrypted, mode=mode)
    assert found.status == status
    assert ("sslmode=verify-full to [source] dsn" in found.remedy) == (status != "ok")


def test_less_than_a_gibibyte_for_large_transactions_is_a_warning() -> None:
    assert space("/tmp", 1 << 30).status == "ok"
    found = space("/tmp", (1 << 30) - 1)
    assert (found.status, "TMPDIR" in found.remedy) == ("warn", True)
