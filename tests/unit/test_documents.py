"""What the documents say is what the program does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from cdc_audit import errors
from cdc_audit.cli import cdc_audit
from cdc_audit.config import Config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def keys(section: str) -> dict[str, Any]:
    """Key -> default of one section, by the names of the configuration file."""
    model = Config.model_fields[section].annotation
    assert model is not None
    return {info.alias or name: info.default for name, info in model.model_fields.items()}


def test_the_example_configuration_has_every_key_with_its_default() -> None:
    text = (ROOT / "deploy/config/cdc-audit.toml").read_text()
    given = tomllib.loads(text)
    Config.model_validate(given)
    for section in Config.model_fields:
        for key, default in keys(section).items():
            if key in given.get(section, {}) and key != "dsn":
                value = given[section][key]
                assert (tuple(value) if isinstance(value, list) else value) == default, f"[{section}] {key}"
            elif key not in given.get(section, {}):
                assert re.search(rf"^# (\[\[redact\.)?{key}\b", text, re.MULTILINE), (
                    f"[{section}] {key} is not mentioned"
                )


def test_the_readme_names_every_exit_code() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CdcAuditError)
    }
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}


def test_the_readme_names_every_command() -> None:
    context = click.Context(cdc_audit)
    for name in cdc_audit.list_commands(context):
        assert re.search(rf"^cdc-audit {name}\b", README, re.MULTILINE), name


@pytest.mark.parametrize("name", cdc_audit.list_commands(click.Context(cdc_audit)))
def test_every_command_and_subcommand_has_help_with_an_example(name: str) -> None:
    context = click.Context(cdc_audit)
    command = cdc_audit.get_command(context, name)
    assert command is not None
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for one in commands:
        text = f"{one.help or ''} {one.epilog or ''}"
        assert re.search(r"Example:.*cdc-audit", text), one.name
