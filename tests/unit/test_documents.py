"""What the documents say is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from cdc_audit import errors
from cdc_audit.cli import cdc_audit

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


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
