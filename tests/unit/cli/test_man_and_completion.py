"""The manual page has all of the program, and the shells' completion knows its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cdc_audit.cli import cdc_audit
from cdc_audit.cli.man import page
from tests.unit.test_documents import README


def commands(group: click.Group, path: str = "cdc-audit") -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one is not None
        found.append((f"{path} {name}", one))
        if isinstance(one, click.Group):
            found += commands(one, f"{path} {name}")
    return found


def plain(text: str) -> str:
    return text.replace("\\-", "-").replace("\\(dq", '"').replace("\\e", "\\")


def test_the_page_names_every_command_option_and_exit_code() -> None:
    text = plain(page(cdc_audit))
    for path, command in commands(cdc_audit):
        assert f'.SS "{path}' in text
        for option in (one for one in command.params if isinstance(one, click.Option)):
            assert option.opts[-1] in text, f"{path} {option.opts}"
    codes = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert re.findall(r'^\.B "(\d+)"$', text, re.MULTILINE) == codes


def test_no_line_of_a_text_is_taken_for_a_macro_and_the_page_is_the_same_each_time() -> None:
    lines = page(cdc_audit).splitlines()
    macros = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert macros <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I"}
    assert page(cdc_audit) == "\n".join(lines) + "\n"


@pytest.mark.skipif(not (shutil.which("man") or shutil.which("mandoc")), reason="neither man nor mandoc here")
def test_man_or_mandoc_has_no_complaint(tmp_path: Path) -> None:
    file = tmp_path / "cdc-audit.1"
    file.write_text(page(cdc_audit))
    program = ["mandoc", "-Tlint", "-Werror"] if shutil.which("mandoc") else ["man", "--warnings", "-l"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    done = subprocess.run([*program, file], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_get_a_script_of_their_own(shell: str) -> None:
    result = CliRunner().invoke(cdc_audit, ["completion", shell], prog_name="cdc-audit")
    assert result.exit_code == 0
    assert f"_CDC_AUDIT_COMPLETE={shell}_complete" in result.output


def test_what_the_scripts_ask_for_is_answered() -> None:
    environment = {**os.environ, "_CDC_AUDIT_COMPLETE": "bash_complete"}
    program = [sys.executable, "-c", "from cdc_audit.cli import main; main()"]
    for words, expected in (("cdc-audit sch", "plain,schema"), ("cdc-audit doctor --f", "plain,--fix")):
        asked = {**environment, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(program, env=asked, capture_output=True, text=True)
        assert expected in done.stdout.splitlines(), done.stderr
