"""``cdc-audit doctor``: every precondition, with the exact remedy of each that isn't met."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterable

import click
import orjson

from cdc_audit.cli.settings import flags_of, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError, CheckFailedError
from cdc_audit.ops.check import Result
from cdc_audit.ops.doctor import diagnose

_MARKS = {
    "ok": click.style("ok  ", fg="green"),
    "info": click.style("info", fg="cyan"),
    "warn": click.style("warn", fg="yellow"),
    "fail": click.style("FAIL", fg="red", bold=True),
    "skip": click.style("skip", dim=True),
}
# Remedies that can be repeated, touch no row, give nothing up and lock no table of the application's for long.
_SAFE = {
    "cdc-audit schema migrate",
    "cdc-audit schema partitions --ahead 3",
    "cdc-audit source install",
    "cdc-audit source tables",
}


@click.command(epilog="Example: cdc-audit doctor --json | jq -r 'select(.status == \"fail\").remedy'")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON lines: name, side, status, message, remedy."
)
@click.option("--fix", is_flag=True, help="First run those of the remedies that are safe.")
@with_config
@click.pass_context
def command(context: click.Context, config: Config, *, as_json: bool, fix: bool) -> None:
    """Check every precondition on both databases, and print what mends each that isn't met.

    Nothing is changed without --fix. The checks use the daemon's own connections, so that they see its rights.
    Lines of a remedy that end with a semicolon are SQL for psql, as an administrator of the side that is named.

    --fix runs, of what it prints, only schema migrate, schema partitions, source install and source tables, with admin_dsn.

    Exit code: 0 if no check fails (warnings don't count), 1 if one does.
    """
    if fix:
        _mend(list(diagnose(config)), context)
    failed = _print(diagnose(config), as_json=as_json)
    if failed:
        raise CheckFailedError(f"{failed} {'check' if failed == 1 else 'checks'} failed")


def _print(results: Iterable[Result], *, as_json: bool) -> int:
    """Print each result as it comes; how many failed."""
    failed = 0
    for result in results:
        failed += result.status == "fail"
        if as_json:
            click.echo(orjson.dumps(result._asdict()).decode())
            continue
        click.echo(f"{_MARKS[result.status]}  {result.name}: {result.message}")
        for line in _remedy(result):
            click.echo(f"        {line}")
    return failed


def _remedy(result: Result) -> list[str]:
    """The remedy's lines; before SQL a comment that says where it is run."""
    if result.status == "ok":
        return []
    lines = result.remedy.splitlines()
    where = [f"-- psql, as an administrator of the {result.side} database"]
    return [*(where if any(line.endswith(";") for line in lines) else []), *lines]


def _mend(results: Iterable[Result], context: click.Context) -> None:
    """Run each safe remedy once. What it says, and why it failed, goes to standard error."""
    root = context.find_root().command
    unmet = (result for result in results if result.status in {"warn", "fail"})
    for line in dict.fromkeys(line for result in unmet for line in result.remedy.splitlines()):
        if line not in _SAFE:
            continue
        click.echo(f"fixing: {line}", err=True)
        arguments = [*shlex.split(line)[1:], *flags_of(context.params)]
        try:
            with contextlib.redirect_stdout(sys.stderr):
                root.main(arguments, "cdc-audit", standalone_mode=False)
        except CdcAuditError as error:
            click.echo(f"cdc-audit: {error}", err=True)
