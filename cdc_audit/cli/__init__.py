"""The ``cdc-audit`` command: the composition root, one module a subcommand.

Each module of this room that is a subcommand has a click command named ``command``; it reads the configuration, builds
what it needs, calls it, prints, and leaves the exit code to the error that it raises (``cdc_audit.errors``).
"""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from collections.abc import Iterable

import click

from cdc_audit import __version__, failpoint
from cdc_audit.errors import CdcAuditError, UsageError

# Subcommand -> its one line of help. The modules are imported only when called, so that --help stays fast.
_COMMANDS = {
    "init": "Set everything up: audit schema, source functions, slot. Can be repeated.",
    "run": "The daemon: from the slot to the audit database.",
    "demo": "Two throw-away PostgreSQL servers, an application at work, and its audit trail.",
    "doctor": "Check every precondition and print the remedy of each that fails.",
    "config": "Show the configuration and where each value comes from, or print an example of it.",
    "slot": "Create, show, drop, recreate or advance the replication slot.",
    "snapshot": "Write the present rows of tables into the trail, as of one position.",
    "schema": "Migrate the audit schema, show its state, make partitions.",
    "source": "Install or uninstall the source's functions; look after its tables.",
    "log": "Who changed what, newest first.",
    "history": "One record's life, field by field.",
    "show": "One row in full, with its proof and its transaction.",
    "deletions": "What was deleted, and by whom.",
    "who": "What a user did, by table, action and time.",
    "context": "Of which changes nobody said who acted; does what an application says arrive?",
    "reads": "Who read what: follow pgAudit's lines in the server's log.",
    "suspicious": "What the rules of [suspicious] find; without any, many changes by one user in a short time.",
    "as-of": "A record or a table as it was at a time.",
    "undo": "Print SQL that takes changes back, if nothing has changed since.",
    "report": "A signed report for an auditor: HTML and CSV.",
    "verify": "Is the trail still what the daemon wrote? Names what was altered, removed or inserted.",
    "quarantine": "Go on past a transaction that can't be decoded, and record that it is missing.",
    "archive": "Old months into files that can be verified without any database; show, verify, restore them.",
    "hold": "Legal holds: rows under one stay where they are.",
    "erase": "Erase a person's values from the trail; the proof stays whole.",
    "key": "Make, show and replace the key that blocks are signed with.",
    "completion": "Print what makes bash, zsh or fish complete commands and options.",
    "man": "Print the manual page.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's form
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's form
        if cmd_name not in _COMMANDS:
            return None
        gc.disable()  # modules make no garbage, and looking for some is a twelfth of a command's start
        try:
            command = importlib.import_module(f"cdc_audit.cli.{cmd_name.replace('-', '_')}").command
        finally:
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="cdc-audit")
def cdc_audit() -> None:
    """A tamper-evident audit trail from a PostgreSQL logical replication slot.

    Example: cdc-audit init && cdc-audit run
    """
    failpoint.arm()


def main() -> None:
    """Run the command line; an error becomes a line on standard error, with what mends it on a second one, and an exit code."""
    try:
        _check_text(sys.argv)
        cdc_audit.main(prog_name="cdc-audit", standalone_mode=False)
    except CdcAuditError as error:
        click.echo("\n".join(map(_shown, f"cdc-audit: {error}".split("\n"))), err=True)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "cdc-audit"
        said = " ".join(error.format_message().split())
        click.echo(_shown(f"{command}: {said} (see {command} --help)"), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("cdc-audit: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:  # not foreseen: say where, but not its text, which may quote a row
        click.echo("".join(traceback.format_tb(error.__traceback__)), err=True, nl=False)
        click.echo(
            f"cdc-audit: internal error: {type(error).__name__}; please report it with the lines above",
            err=True,
        )
        sys.exit(CdcAuditError.exit_code)


def _check_text(arguments: Iterable[str]) -> None:
    """Raises UsageError for bytes that are no text: they come as lone surrogates, which can't be written anywhere."""
    if any("\ud800" <= char <= "\udfff" for argument in arguments for char in argument):
        raise UsageError("an argument is not text in UTF-8", remedy="correct it, or the terminal's encoding")


def _shown(line: str) -> str:
    """The line without what could move a terminal's cursor: it may quote what was typed, or a name in a database."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
