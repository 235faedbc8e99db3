"""The examples in ``--help``: those of commands that read the trail are run on one, all others are taken by their command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from cdc_audit.cli import cdc_audit
from cdc_audit.seal.signature import Signer
from cdc_audit.sink.anchor import anchor_line
from tests.support.command_line import commands, run
from tests.support.servers import Server
from tests.support.small_trail import Shop, row, said_by, write_small_trail

EXAMPLE = re.compile(r"Example: (.*?)(?:\n\n|\Z)", re.DOTALL)
RUN = {
    ("log",), ("history",), ("show",), ("deletions",), ("who",), ("context", "missing"), ("suspicious",), ("as-of",), ("undo",),
    ("report",), ("verify",), ("config", "show"), ("config", "example"), ("completion",), ("man",), ("key", "generate"),
    ("key", "show"),
}  # fmt: skip
FAR_ENOUGH = 4711  # cdc-audit show 4711


def example(command: click.Command) -> list[str]:
    """The words of a command's example: of several in a row the first; without what stands before it and where its output goes."""
    found = EXAMPLE.search(f"{command.help or ''}\n\n{command.epilog or ''}")
    assert found is not None, command.name
    words = shlex.split(" ".join(found[1].split()).strip("()").removeprefix("umask 077; "))
    words = words[words.index("cdc-audit") + 1 :]
    ends = [place for place, word in enumerate(words) if word in {"|", ">", "&&"}]
    return words[: min(ends)] if ends else words


@pytest.fixture(scope="module")
def trail(audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what examples name: keys, anchors, and the DSN of a trail in ``dsn``."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("signing.pem", "report.pem"):
        assert run("key", "generate", str(folder / name)).code == 0
    name = audit_cluster.create_database()
    new, paid = {"id": 42, "status": "new"}, {"id": 42, "status": "paid"}
    shop = Shop(datetime(2026, 11, 20, 8, tzinfo=UTC))
    shop.transaction(said_by("u42"), row("shop.orders", None, new), row("shop.orders", new, paid))
    many = [row("shop.parts", None, {"id": number}) for number in range(FAR_ENOUGH)]
    shop.transaction(said_by("u42"), *many)
    signer = Signer.from_pem((folder / "signing.pem").read_bytes())
    receipt = write_small_trail(audit_cluster.dsn(name), shop.stretches, signer)
    (folder / "anchors.jsonl").write_bytes(anchor_line("audit", receipt) + b"\n")
    (folder / "dsn").write_text(audit_cluster.dsn(name))
    yield folder
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.mark.parametrize("words", sorted(RUN), ids=" ".join)
def test_the_example_of_a_command_that_reads_the_trail_works(
    words: tuple[str, ...], trail: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = dict(commands())[words]
    dsn = (trail / "dsn").read_text()
    for file in trail.iterdir():
        if words != ("key", "generate"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for key in tmp_path.glob("*.pem"):
        key.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    arguments = [
        dsn if one == "host=audit user=alice" else one.replace("/etc/cdc-audit", str(tmp_path))
        for one in example(command)
    ]
    assert arguments[: len(words)] == list(words)
    done = run(*arguments, env={"CDC_AUDIT_AUDIT_ADMIN_DSN": dsn})
    assert done.code == 0, done.stderr
    assert done.stdout or done.stderr == "nothing\n" or words == ("deletions",)


def test_every_other_example_has_the_commands_options_and_values_that_it_takes() -> None:
    groups = [cdc_audit, *filter(lambda one: isinstance(one, click.Group), _below(cdc_audit))]
    for command in [*groups, *(command for words, command in commands() if words not in RUN)]:
        arguments = example(command)
        found: click.Command = cdc_audit
        context = click.Context(cdc_audit, info_name="cdc-audit")
        while isinstance(found, click.Group):
            name = arguments.pop(0)
            inner = found.get_command(context, name)
            assert inner is not None, (command.name, name)
            found = inner
        found.make_context(found.name, list(arguments))  # raises for what the command does not take


def _below(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
