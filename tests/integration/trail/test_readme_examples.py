"""The README's examples are what the commands print of a small trail: ``UPDATE_README=1 pytest`` on this file writes them anew."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import run
from tests.support.example_trail import morning
from tests.support.servers import Server
from tests.support.small_trail import write_small_trail

README = Path(__file__).parents[3] / "README.md"
SECTION = re.compile(r"(?<=<!-- examples -->\n).*?(?=<!-- /examples -->)", re.DOTALL)
BLOCK = re.compile(r"(```console\n\$ (cdc-audit [^\n]*)\n)(.*?)(```)", re.DOTALL)
WIDTH = 120


@pytest.fixture
def dsn(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    write_small_trail(audit_cluster.dsn(name), morning())
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_the_examples_in_the_readme_are_what_is_printed(dsn: str) -> None:
    text = README.read_text()
    found = SECTION.search(text)
    assert found is not None

    def printed(block: re.Match[str]) -> str:
        done = run(*shlex.split(block[2])[1:], env={"CDC_AUDIT_AUDIT_ADMIN_DSN": dsn, "COLUMNS": str(WIDTH)})
        assert done.code == 0, done.stderr
        return block[1] + done.stdout + block[4]

    section, count = BLOCK.subn(printed, found[0])
    assert count >= 4
    if os.environ.get("UPDATE_README"):
        README.write_text(text[: found.start()] + section + text[found.end() :])
    assert section == found[0], "UPDATE_README=1 pytest tests/integration/trail/test_readme_examples.py"
