"""What the demo prints: plain text within 100 columns, with colours on a terminal only."""

from __future__ import annotations

import sys
import textwrap
import time

import click

_WIDTH = 100


def title(text: str) -> None:
    """A heading."""
    click.echo()
    click.secho(text, bold=True)
    click.secho("─" * len(text), fg="cyan")


def say(text: str) -> None:
    """A paragraph, wrapped."""
    click.echo(textwrap.fill(text, _WIDTH))


def act(who: str, what: str) -> None:
    """One thing that somebody does in the shop."""
    click.echo()
    click.secho(f"{who:<8}", fg="yellow", bold=True, nl=False)
    click.echo(shortened(what, _WIDTH - 8))


def command(words: str) -> None:
    """A command as somebody would type it."""
    click.secho(f"$ {words}", fg="green")


def output(text: str) -> None:
    """What a command printed, indented and cut to the width."""
    for line in text.rstrip("\n").split("\n"):
        click.echo("  " + shortened(line, _WIDTH - 2))


def trail(line: str) -> None:
    """One row of the trail as it arrives."""
    click.secho("  ▸ ", fg="cyan", nl=False)
    click.echo(shortened(line, _WIDTH - 4))


def claim(text: str, holds: bool, found: str) -> None:
    """A claim and whether it is so; what was found is shown where it isn't."""
    click.secho("  ✓ " if holds else "  ✗ ", fg="green" if holds else "red", bold=True, nl=False)
    click.echo(shortened(text, _WIDTH - 4))
    if not holds:
        click.secho(f"      found: {shortened(found, _WIDTH - 13)}", fg="red")


def pause() -> None:
    """Let a person read, where there is one."""
    if sys.stdout.isatty():
        time.sleep(0.5)


def shortened(text: str, width: int) -> str:
    """Cut to a width, with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def plain(lines: list[str]) -> None:
    """Lines to copy, uncut."""
    click.echo()
    for line in lines:
        click.echo("  " + line)
    click.echo()
