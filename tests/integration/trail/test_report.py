"""``cdc-audit report`` on a trail of the product's own writer: complete, signed, and honest about what does not verify."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdc_audit import postgres
from cdc_audit.cli import key, report
from cdc_audit.errors import CheckFailedError, SettingError, UsageError
from cdc_audit.model.event import Row
from cdc_audit.schema.migrate import migrate
from tests.bench.trail_rows import fill, stretches
from tests.support.servers import Server

ROWS = 600
END = datetime(2026, 11, 1, tzinfo=UTC)
TIME = ("--since", "2024-01-01", "--until", "2026-11-02")


@pytest.fixture
def trail(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        migrate(connection, "audit", None)
    fill(audit_cluster.dsn(name), "audit", ROWS, END)
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def made(dsn: str, output: Path, *arguments: str) -> Result:
    return CliRunner().invoke(report.command, ["--dsn", dsn, "--output", str(output), *(arguments or TIME)])


def sections(file: Path) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for title, *cells in csv.reader(file.read_text().splitlines()):
        found.setdefault(title, []).append(cells)
    return found


def test_the_counts_are_those_of_what_was_written_and_anyone_can_check_the_signatures(
    trail: str, tmp_path: Path
) -> None:
    CliRunner().invoke(key.command, ["generate", str(tmp_path / "auditor.pem")], catch_exceptions=False)
    done = made(trail, tmp_path / "all", *TIME, "--signing-key", str(tmp_path / "auditor.pem"))
    assert done.exception is None, done.exception
    assert done.stdout.split() == [
        str(tmp_path / f"all{end}") for end in (".html", ".csv", ".html.sig", ".csv.sig")
    ]
    for name in ("all.html", "all.csv"):
        check = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "auditor.pem.pub"]
        subprocess.run(
            [*check, "-in", name, "-sigfile", f"{name}.sig"], cwd=tmp_path, check=True, capture_output=True
        )
    found = sections(tmp_path / "all.csv")
    actors: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    for stretch in stretches(ROWS, END):
        actors[stretch.context.user_id] += len(stretch.changes)
        for change in stretch.changes:
            assert isinstance(change, tuple)
            row: Row = change  # type: ignore[assignment]
            actions[row[0].action] += 1
    assert {row[0]: int(row[2]) for row in found["actors"][1:]} == actors
    told: Counter[str] = Counter()
    for action, _, _, count in found["rows by action"][1:]:
        told[action] += int(count)
    assert told == actions
    assert ["rows", str(ROWS)] in found["scope"]
    assert any("nothing is signed" in line for (line,) in found["verification"])
    page = (tmp_path / "all.html").read_text()
    assert "http" not in page.replace("http-equiv", "")


def test_a_time_without_rows_and_a_time_in_between_are_counted_as_they_are(
    trail: str, tmp_path: Path
) -> None:
    made(trail, tmp_path / "none", "--since", "2020-01-01", "--until", "2020-02-01")
    assert ["rows", "0"] in sections(tmp_path / "none.csv")["scope"]
    since, until = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
    made(trail, tmp_path / "march", "--since", since.isoformat(), "--until", until.isoformat())
    count = sum(
        len(one.changes) for one in stretches(ROWS, END) if one.transaction.committed_at.startswith("2025-03")
    )
    assert count > 0
    assert ["rows", str(count)] in sections(tmp_path / "march.csv")["scope"]


def test_a_trail_that_was_tampered_with_is_reported_as_such(trail: str, tmp_path: Path) -> None:
    with postgres.connect(trail, side="audit") as connection:
        connection.execute("set session_replication_role = replica")
        for name in ("audit_logs_2025_03", "audit_logs"):
            connection.execute(f"alter table audit.{name} disable trigger all")
        connection.execute("update audit.audit_logs set user_id = 'somebody' where id = 7")
    done = made(trail, tmp_path / "bad")
    assert isinstance(done.exception, CheckFailedError)
    assert any("7" in line for (line,) in sections(tmp_path / "bad.csv")["verification"])


def test_what_makes_no_sense_is_said_in_one_line(trail: str, tmp_path: Path) -> None:
    done = made(trail, tmp_path / "x", "--since", "2026-02-01", "--until", "2026-01-01")
    assert isinstance(done.exception, UsageError)
    done = made(trail, tmp_path / "missing" / "x")
    assert isinstance(done.exception, SettingError)
