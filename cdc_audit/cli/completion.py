"""``cdc-audit completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(epilog="Example: cdc-audit completion bash > /etc/bash_completion.d/cdc-audit")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that makes the shell complete cdc-audit's commands and options.

    For zsh put it into a folder of $fpath as _cdc-audit, for fish into ~/.config/fish/completions/cdc-audit.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    # The variable's name is click's own, made from the program's.
    click.echo(kind(program, {}, "cdc-audit", "_CDC_AUDIT_COMPLETE").source())
