"""The systemd units: systemd itself reads them, and finds them tight."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdc_audit import errors
from tests.deploy.units import SYSTEMD, settings, textfile
from tests.integration.trail.archiving import Scene, key_files, write_old_trail
from tests.support.databases import Databases
from tests.support.prometheus import program

MOST_EXPOSED = 1.5
SET_MDWE, REFUSE_EXEC_GAIN = 65, 1  # of prctl; what MemoryDenyWriteExecute=yes does on Linux 6.3 and newer
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service")) + sorted(
    path.name for path in SYSTEMD.glob("*.timer")
)


@pytest.fixture
def analyzed(tmp_path: Path) -> Path:
    """A folder with all units, templates as instances of `shop`, that start this environment's program."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: install the package systemd")
    installed = str(Path(sys.executable).with_name("cdc-audit"))
    for name in UNITS:
        text = (SYSTEMD / name).read_text().replace("/opt/cdc-audit/bin/cdc-audit", installed)
        (tmp_path / name.replace("@.", "@shop.")).write_text(text)
    return tmp_path


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_no_complaint(unit: str, analyzed: Path) -> None:
    done = analyze("verify", "--man=no", f"./{unit.replace('@.', '@shop.')}", folder=analyzed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_the_services_are_exposed_to_little(unit: str, analyzed: Path) -> None:
    done = analyze("security", "--offline=true", f"./{unit.replace('@.', '@shop.')}", folder=analyzed)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_the_template_differs_from_the_single_unit_only_by_its_instance() -> None:
    single = [
        entry for entry in settings("cdc-audit.service") if entry[0] not in {"Description", "EnvironmentFile"}
    ]
    template = [
        (name, value.replace("/%i", ""))
        for name, value in settings("cdc-audit@.service")
        if name not in {"Description", "EnvironmentFile", "Environment"}
    ]
    assert template == single


def test_systemd_does_not_restart_what_only_a_person_can_mend() -> None:
    given = dict(settings("cdc-audit.service"))["RestartPreventExitStatus"]
    codes = {int(code) for code in given.split()}
    known = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CdcAuditError)
    }
    assert codes <= known | {2}
    assert {errors.SettingError.exit_code, errors.NotPermittedError.exit_code} <= codes
    assert errors.UnavailableError.exit_code not in codes


def test_the_services_users_are_made(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not here: install the package systemd")
    made = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", str(SYSTEMD / "cdc-audit.sysusers")],
        capture_output=True,
        text=True,
        check=True,
    )
    users = {value for unit in UNITS for name, value in settings(unit) if name == "User"}
    assert users == set(re.findall(r"Creating user '([^']+)'", made.stdout + made.stderr))


def test_the_folders_of_secrets_are_roots_alone(tmp_path: Path) -> None:
    if shutil.which("systemd-tmpfiles") is None or os.geteuid() != 0:
        pytest.skip("it makes folders that belong to root: run as root, with the package systemd")
    secret = tmp_path / "etc/cdc-audit/credentials/shop/source_dsn"
    secret.parent.mkdir(parents=True)
    secret.write_text("host=db")
    secret.chmod(0o644)
    done = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(SYSTEMD / "cdc-audit.tmpfiles")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [oct(path.stat().st_mode & 0o777) for path in (secret.parents[1], secret.parent, secret)] == [
        "0o700",
        "0o700",
        "0o600",
    ]


@pytest.mark.parametrize(
    ("exit_code", "exit_status", "shown"),
    [("exited", "0", "0"), ("exited", "1", "1"), ("exited", "3", "3"), ("killed", "KILL", "255")],
)
def test_the_verdict_reaches_the_node_exporter_whatever_it_is(
    exit_code: str, exit_status: str, shown: str, tmp_path: Path
) -> None:
    text = textfile("shop", exit_status, tmp_path, exit_code)
    assert f'\ncdc_audit_verify_exit_status{{trail="shop"}} {shown}\n' in text
    assert re.search(r'^cdc_audit_verify_timestamp_seconds\{trail="shop"\} \d{10}$', text, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["cdc-audit-shop.prom"]
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_archives_are_written_read_and_verified_where_no_memory_is_both_written_and_executed(
    databases: Databases, tmp_path: Path
) -> None:
    assert dict(settings("cdc-audit-archive@.service"))["MemoryDenyWriteExecute"] == "yes"
    prctl = ctypes.CDLL(None).prctl

    def denied(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=scene.environment(),
            preexec_fn=lambda: prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0),
            capture_output=True,
            text=True,
            check=False,
        )

    write_old_trail(databases.audit_dsn)
    key_files(tmp_path)
    (tmp_path / "archive").mkdir()
    scene = Scene(databases.audit, databases.audit_name, tmp_path, f"file:{tmp_path / 'archive'}")
    if denied("-c", "import mmap; mmap.mmap(-1, 1, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)").returncode == 0:
        pytest.skip("Linux before 6.3 can't refuse it this way")
    before = scene.told("log", "--json")
    done = denied("-m", "cdc_audit", "archive", "run")
    assert (done.returncode, scene.months()) == (0, []), done.stderr
    found = denied("-m", "cdc_audit", "log", "--tier", "all", "--json")
    assert (found.returncode, found.stdout) == (0, before), found.stderr
    verified = denied("-m", "cdc_audit", "verify", "--public-key", scene.public, "--archive", scene.place)
    assert verified.returncode == 0, verified.stdout + verified.stderr
