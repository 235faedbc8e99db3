"""The command line in this process: every command there is, and a run of ``main`` as its user sees it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from unittest.mock import patch

import click

from cdc_audit import cli


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
