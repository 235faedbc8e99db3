"""Every command, flag, environment variable, key, metric, path and port that deploy/ names is one of the program's."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cdc_audit.cli import cdc_audit
from cdc_audit.config import Config
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.server import Server
from cdc_audit.ops.watch import Watch
from tests.deploy.units import textfile
from tests.support.prometheus import DEPLOY

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in {".pub", ".pyc"})
TEXTS = {str(path.relative_to(DEPLOY)): path.read_text() for path in FILES}
KEYS = {
    f"{section}_{info.alias or name}"
    for section, field in Config.model_fields.items()
    for name, info in field.annotation.model_fields.items()  # type: ignore[union-attr]
}


def test_every_environment_variable_is_a_key_of_the_configuration() -> None:
    known = {f"CDC_AUDIT_{key.upper()}" for key in KEYS}
    known |= {f"{name}_FILE" for name in known} | {
        "CDC_AUDIT_CONFIG",
        "CDC_AUDIT_NATIVE",
    }  # the latter of the build
    named = {(file, name) for file, text in TEXTS.items() for name in re.findall(r"CDC_AUDIT_[A-Z_]+", text)}
    assert {entry for entry in named if entry[1] not in known} == set()
    assert len(named) > 20


def test_every_metric_is_exported_by_the_daemon_or_by_the_unit_that_verifies(tmp_path: Path) -> None:
    metrics = Metrics(version="1", psycopg_implementation="binary", source="shop")
    exported = metrics.exposition("text/plain")[1].decode() + textfile("shop", "0", tmp_path)
    known = set(re.findall(r"^# TYPE (\w+)", exported, re.MULTILINE))
    histograms = set(re.findall(r"^# TYPE (\w+) histogram", exported, re.MULTILINE))
    known |= {f"{name}{suffix}" for name in histograms for suffix in ("_bucket", "_count", "_sum")}
    pattern = re.compile(
        r"\b(?:cdc_audit|process)_[a-z_]+_(?:total|bytes|seconds|bucket|info|status|identity)\b"
    )
    named = {
        (file, name)
        for file, text in TEXTS.items()
        if file.startswith(("prometheus/", "grafana/", "README"))
        for name in pattern.findall(text)
    }
    assert {entry for entry in named if entry[1] not in known} == set()
    in_rules = {name for file, name in named if file == "prometheus/rules.yml"}
    assert len(in_rules) > 15


def commands() -> Iterator[tuple[str, list[str]]]:
    """File and arguments of each call of the program in deploy/: in units, manifests, code blocks and sentences."""
    for file, text in TEXTS.items():
        joined = re.sub(r"\\\n\s*", " ", text)
        for call in re.findall(
            r"(?:^|[ `/=(])(?:cdc-audit|as_admin|as_auditor) ((?:[a-z]+)(?: [^`\n|;)#&]*)?)",
            joined,
            re.MULTILINE,
        ):
            words = call.split(" ")
            if words[0] in cdc_audit.list_commands(click.Context(cdc_audit)):
                yield file, shlex.split(call.replace("'", "").replace('"', "").rstrip(".,:"))
        if file.startswith(("kubernetes/", "container/")) and file.endswith((".yaml", ".yml")):
            for document in yaml.safe_load_all(text):
                yield from ((file, call) for call in program_calls(document))


def program_calls(node: Any) -> Iterator[list[str]]:
    """The arguments of each container that runs the program."""
    if isinstance(node, dict):
        if "cdc-audit" in str(node.get("image", "")).rpartition("/")[2] and (
            call := node.get("args") or node.get("command")
        ):
            yield call
        for value in node.values():
            yield from program_calls(value)
    elif isinstance(node, list):
        for value in node:
            yield from program_calls(value)


def test_every_command_is_there_and_takes_its_flags() -> None:
    seen = set()
    for file, call in commands():
        command = cdc_audit.get_command(click.Context(cdc_audit), call[0])
        rest = call[1:]
        while isinstance(command, click.Group) and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        assert command is not None, (file, call)
        flags = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
        given = {flag for word in rest for flag in re.findall(r"^--[a-z-]+", word)}
        assert given <= flags, (file, call)
        seen.add(call[0])
    assert {"init", "run", "verify", "doctor", "slot", "source", "key"} <= seen


def test_credentials_are_named_as_keys() -> None:
    named = set(re.findall(r"^LoadCredential=(\w+):", "\n".join(TEXTS.values()), re.MULTILINE))
    secrets = [
        document
        for document in yaml.safe_load_all(TEXTS["kubernetes/overlays/example/secret.yaml"])
        if document["kind"] == "Secret"
    ]
    named |= {key for secret in secrets for key in secret["stringData"]}
    assert named
    assert named <= KEYS


@pytest.mark.parametrize("file", [file for file in TEXTS if file.endswith(".toml")])
def test_every_configuration_file_is_one(file: str) -> None:
    Config.model_validate(tomllib.loads(TEXTS[file]))


def test_every_probe_and_port_is_served() -> None:
    metrics = Metrics(version="1", psycopg_implementation="binary", source="shop")
    server = Server("127.0.0.1:0", metrics, Watch(metrics))
    manifests = [text for file, text in TEXTS.items() if file.startswith("kubernetes/")]
    paths = {path for text in manifests for path in re.findall(r"path: (/[a-z]+)$", text, re.MULTILINE)}
    paths |= set(re.findall(r"localhost:9187(/[a-z]+)", TEXTS["README.md"]))
    statuses = {}
    for path in paths:
        answered: list[str] = []
        start: Any = partial(_note, answered)
        server._answer({"REQUEST_METHOD": "GET", "PATH_INFO": path}, start)
        statuses[path] = answered[0][:3]
    assert {"/livez", "/readyz", "/metrics"} <= set(statuses)
    assert "404" not in statuses.values()
    assert Config().metrics.listen.endswith(":9187")


def _note(answered: list[str], status: str, *_: object) -> None:
    answered.append(status)


def test_every_file_that_the_readme_names_is_there() -> None:
    rooms = "systemd|kubernetes|container|postgres|prometheus|grafana|config|native"
    named = set(re.findall(rf"(?:`|deploy/)((?:{rooms})/[\w./@-]*\w)", TEXTS["README.md"]))
    assert len(named) > 10
    # What the reader copies is there as the example.
    copied = {name.replace("overlays/mine", "overlays/example") for name in named}
    assert {name for name in copied if not (DEPLOY / name).exists()} == set()
