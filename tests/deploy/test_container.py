"""The images and the compose file: linted, and all that they name is there. No engine is needed, and nothing is built."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.prometheus import DEPLOY

ROOT = DEPLOY.parent
CONTAINER = DEPLOY / "container"
DOCKERFILES = sorted(CONTAINER.glob("*Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())


def lint(program: str, *arguments: str) -> None:
    """Run a linter of this environment; it must be content."""
    tool = Path(sys.executable).with_name(program)
    done = subprocess.run([tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_has_no_complaint() -> None:
    lint("hadolint", *map(str, DOCKERFILES))


def test_shellcheck_has_no_complaint_about_any_script() -> None:
    scripts = [
        path
        for folder in (DEPLOY, ROOT / ".ci")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {"", ".sh"} and path.read_bytes().startswith(b"#!")
    ]
    assert scripts
    lint("shellcheck", *map(str, scripts))


def test_shellcheck_has_no_complaint_about_the_commands_of_the_readme(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 30
    (tmp_path / "readme.sh").write_text("\n".join(blocks))
    lint("shellcheck", "--shell=bash", str(tmp_path / "readme.sh"))


def test_the_image_copies_files_that_are_there_and_are_let_through() -> None:
    text = (CONTAINER / "Dockerfile").read_text()
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()
    ]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    let_through = re.findall(r"^!(\S+)$", (CONTAINER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(copied) == set(let_through)


def test_what_the_image_copies_is_enough_to_build_the_program(tmp_path: Path) -> None:
    """Without an engine: the files that its steps copy, alone in a folder, give the wheel that is installed."""
    for source, target in re.findall(
        r"^COPY (?!--from)(.*) (\S+)$", (CONTAINER / "Dockerfile").read_text(), re.MULTILINE
    ):
        for name in source.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, tmp_path / target)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.suffix for path in (tmp_path / "dist").iterdir()] == [".whl"]
    locked = (tmp_path / "requirements.lock").read_text()
    assert re.search(r"^hatchling==", locked, re.MULTILINE), "its build asks no network"


def test_the_image_runs_the_program_as_nobody_and_without_a_shell() -> None:
    text = (CONTAINER / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 65532:65532$", final, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["/opt/cdc-audit/bin/cdc-audit"\]$', final, re.MULTILINE)
    assert re.search(r'^CMD \["run"\]$', final, re.MULTILINE)
    assert not re.search(r"^RUN ", final, re.MULTILINE)


def test_the_compose_file_mounts_and_builds_what_is_there_and_waits_for_what_it_has() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (CONTAINER / source).exists(), (name, source)
        if "build" in service:
            context = CONTAINER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file(), name
        assert set(service.get("depends_on", {})) <= set(services), name
    targets = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert targets["static_configs"][0]["targets"] == ["daemon:9187"]
    assert yaml.safe_load((DEPLOY / "grafana/datasource.yml").read_text())["datasources"][0]["url"] == (
        "http://prometheus:9090"
    )
