"""``cdc-audit doctor``: every precondition, with the exact remedy of each that isn't met."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import click
import orjson

from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError
from cdc_audit.ops.check import Result
from cdc_audit.ops.doctor import diagnose

_MARKS = {
    "ok": click.style("ok  ", fg="green"),
    "info": click.style("info", fg="cyan"),
    "warn": click.style("warn", fg="yellow"),
    "fail": click.style("FAIL", fg="red", bold=True),
    "skip": click.style("skip", dim=True),
}


@click.command(epilog="Example: cdc-audit doctor --json | jq -r 'select(.status == \"fail\").remedy'")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: name, status, message, remedy.")
@with_config
def command(config: Config, *, as_json: bool) -> None:
    """Check every precondition on both databases, and print what mends each that isn't met.

    Nothing is changed. The checks use the daemon's own connections, so that they see its rights.

    Exit code: 0 if no check fails (warnings don't count), 1 if one does.
    """
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
        if result.remedy and result.status != "ok":
            click.echo(textwrap.indent(result.remedy, "        "))
    return failed
