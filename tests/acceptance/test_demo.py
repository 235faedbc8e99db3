"""``cdc-audit demo``, run as its users run it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cdc_audit.cli.demo.binaries import find_binaries
from cdc_audit.errors import SettingError
from tests.support.command_line import commands, examples
from tests.support.servers import place

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _on_local_servers() -> None:
    """The demo runs local servers, wherever the other tests run theirs."""
    if place() == "docker":
        pytest.skip("this run uses Docker")


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc_audit", "demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_shows_the_trail_with_the_right_users_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A folder of its own, since other servers on this machine leave theirs in the usual one.
    with tempfile.TemporaryDirectory(prefix="cdc-audit-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("TMPDIR", folder)
        started = time.monotonic()
        ((_, *arguments),) = examples(dict(commands())[("demo",)])
        done = _demo(*arguments)
        left = list(Path(folder).iterdir())
    assert done.returncode == 0, done.stdout + done.stderr
    assert left == []
    assert time.monotonic() - started < 60
    assert "INSERT payments 1     dora (signed)" in done.stdout
    assert "nothing: what was rolled back never happened" in done.stdout
    assert "unknown (none)" in done.stdout
    assert done.stdout.count("✓") == 11
    assert "altered: row 250: the row does not give its row_hash" in done.stdout
    assert "✗" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout


def test_the_demo_with_no_server_to_be_had_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CDC_AUDIT_PG_BIN", str(tmp_path))
    done = _demo()
    assert done.returncode == 78
    assert "CDC_AUDIT_PG_BIN" in done.stderr
    with pytest.raises(SettingError, match="no PostgreSQL server"):
        find_binaries()
