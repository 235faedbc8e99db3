"""The wheel holds all that the program needs, and runs without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.native import require_compiler

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdc_audit"

# Every module can be imported, every SQL file read and taken apart, from where the wheel was unpacked.
_SMOKE = """
import importlib, pkgutil, sys
from importlib import resources
import cdc_audit
from cdc_audit.postgres import load_sql, named_sql

folder = resources.files("cdc_audit")
assert str(folder).startswith(sys.argv[1]), folder
for module in pkgutil.walk_packages(cdc_audit.__path__, "cdc_audit."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
files = [path for path in folder.rglob("*.sql")]
for path in files:
    package, name = "cdc_audit." + path.relative_to(folder).parts[0], "/".join(path.relative_to(folder).parts[1:])
    text = load_sql(package, name)
    assert "-- name: " not in text or named_sql(package, name)
print(len(files))
"""
_ENTRY = (
    "from importlib.metadata import entry_points; entry_points(group='console_scripts')['cdc-audit'].load()()"
)


def built(folder: Path, source: Path = ROOT, **environment: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel unpacked into it as pip would; what it needs is taken from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A folder that a .pth file names is searched, but its own .pth files, the checkout's for one, aren't read.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Path(sysconfig.get_path("scripts", vars=paths)) / "python"


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    here = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert held == here
    assert "cdc_audit/py.typed" in held
    assert len(licences) == 1


def test_every_module_and_every_sql_file_is_found_outside_of_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    done = run(installed, "-c", _SMOKE, str(installed.parents[1]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list(PACKAGE.rglob("*.sql")))


def test_a_wheel_with_compiled_loops_is_for_this_kind_of_machine_and_uses_them(tmp_path: Path) -> None:
    require_compiler()
    copy, folder = tmp_path / "checkout", tmp_path / "unpacked"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.so", "dist", "tests"))
    made = built(tmp_path / "dist", copy, CDC_AUDIT_NATIVE="1")
    assert not made.name.endswith("-any.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder)
    assert len(list(folder.rglob("_*.so"))) == 5
    used = "import sys; sys.path.insert(0, sys.argv[1]); from cdc_audit.seal import lines; print(lines.IS_COMPILED)"
    assert run(Path(sys.executable), "-c", used, str(folder), cwd=tmp_path).stdout == "True\n"


def test_the_command_runs(installed: Path, tmp_path: Path) -> None:
    version = run(installed, "-c", _ENTRY, "--version", cwd=tmp_path)
    assert version.stdout.startswith("cdc-audit, version "), version.stderr
    example = run(installed, "-m", "cdc_audit", "config", "example", cwd=tmp_path)
    assert tomllib.loads(example.stdout)["source"]["slot"] == "cdc_audit"
    doctor = run(installed, "-m", "cdc_audit", "doctor", "--json", cwd=tmp_path)
    assert doctor.returncode == 1, doctor.stderr
    failed = {
        line["name"] for line in map(json.loads, doctor.stdout.splitlines()) if line["status"] == "fail"
    }
    assert failed == {"source_dsn", "audit_dsn"}


def test_the_bill_of_materials_is_valid_and_names_what_is_needed_and_no_tool(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/sbom.py", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("cdc-audit-*.cdx.json")
    components = {one["name"]: one for one in json.loads(path.read_text())["components"]}
    assert {"psycopg", "psycopg-binary", "orjson", "click", "cryptography"} <= set(components)
    assert "pytest" not in components
    locked = (ROOT / "requirements.lock").read_text()
    assert [
        name for name, one in components.items() if f"\n{name}=={one['version']} " not in f"\n{locked}"
    ] == []
