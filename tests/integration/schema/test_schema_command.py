"""``cdc-audit schema`` as people call it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from cdc_audit.cli.schema import command
from cdc_audit.errors import SettingError
from cdc_audit.schema.migrate import LATEST, pending
from tests.support.servers import Server

Call = Callable[..., Result]


@pytest.fixture
def call(audit_cluster: Server, database: str) -> Call:
    def run(*arguments: str, dsn: str | None = None) -> Result:
        environment = {"CDC_AUDIT_AUDIT_DSN": audit_cluster.dsn(database) if dsn is None else dsn}
        return CliRunner().invoke(command, list(arguments), env=environment)

    return run


def test_migrate_says_what_it_applied_and_then_that_there_is_nothing_to_do(call: Call) -> None:
    first, second = call("migrate"), call("migrate")
    assert (first.exit_code, first.output) == (
        0,
        "".join(f"applied {name}\n" for name in pending(None)) + f"schema audit is at version {LATEST}\n",
    )
    assert (second.exit_code, second.output) == (0, f"schema audit is at version {LATEST}\n")


def test_status_shows_what_is_pending(call: Call) -> None:
    before = json.loads(call("status", "--json").output)
    assert before == {
        "schema": "audit",
        "installed": None,
        "latest": LATEST,
        "pending": list(pending(None)),
    }
    shown = "".join(f"pending: {name}\n" for name in pending(None))
    assert f"{shown}to apply: cdc-audit schema migrate" in call("status").output
    call("migrate")
    assert json.loads(call("status", "--json").output)["pending"] == []
    assert call("status").output == f"schema audit: version {LATEST}, latest {LATEST}\n"


def test_partitions_are_shown_and_made_ahead(call: Call) -> None:
    call("migrate")
    rows = [json.loads(line) for line in call("partitions", "--ahead", "5", "--json").output.splitlines()]
    assert len(rows) == 7
    assert set(rows[0]) == {"name", "lower", "upper", "rows", "bytes"}
    assert rows[0]["lower"].endswith("-01T00:00:00Z")
    assert rows[-1] == {**rows[-1], "name": "audit_logs_default", "lower": None, "upper": None}
    shown = call("partitions").output.splitlines()
    assert [line.split()[0] for line in shown[1:]] == [row["name"] for row in rows]


def test_without_a_dsn_it_says_how_to_give_one(call: Call) -> None:
    result = call("status", dsn="")
    assert isinstance(result.exception, SettingError)
    assert "CDC_AUDIT_AUDIT_DSN" in str(result.exception)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["migrate", "--help"], ["status", "--help"], ["partitions", "--help"]]
)
def test_every_help_text_has_an_example(call: Call, arguments: list[str]) -> None:
    assert "Example: " in call(*arguments).output
