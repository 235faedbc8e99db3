"""The command line in this process: every command there is, and a run of ``main`` as its user sees it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from unittest.mock import patch

import click

from cdc_audit import cli

_EXAMPLE = re.compile(r"Example: (.*?)(?:\n\n|\Z)", re.DOTALL)


class Done(NamedTuple):
    """What a run has left."""

    code: int
    stdout: str
    stderr: str


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by the words that call it."""

    def walk(
        words: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from walk((*words, name), inner)
        else:
            yield words, command

    yield from walk((), cli.cdc_audit)


def examples(command: click.Command) -> list[list[str]]:
    """The commands of a command's example, each as its words after ``cdc-audit``; without what stands before it and where its
    output goes.
    """
    found = _EXAMPLE.search(f"{command.help or ''}\n\n{command.epilog or ''}")
    assert found is not None, command.name
    typed = []
    for part in " ".join(found[1].split()).strip("()").split(" && "):
        words = shlex.split(part.removeprefix("umask 077; "))
        words = words[words.index("cdc-audit") + 1 :]
        ends = [place for place, word in enumerate(words) if word in {"|", ">"}]
        typed.append(words[: min(ends)] if ends else words)
    return typed


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """``cdc-audit ARGUMENTS``; ``env`` is added to this process's environment."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with (
        patch.object(sys, "argv", ["cdc-audit", *arguments]),
        patch.dict("os.environ", env or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
