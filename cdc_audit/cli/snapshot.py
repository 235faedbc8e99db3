"""``cdc-audit snapshot``: the present rows of tables into the trail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import orjson

from cdc_audit.cli.progress import Progress
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.pipeline.snapshot import Baseline, Taken


@click.command("snapshot")
@click.option(
    "--tables",
    "only",
    metavar="PATTERN",
    multiple=True,
    help="schema.table, * as wildcard. Default: all audited.",
)
@click.option("--reason", default="", help="Why; goes into the ledger.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each table.")
@with_config
def command(config: Config, only: Sequence[str], reason: str, as_json: bool) -> None:
    """Write the present rows of tables into the trail, as rows SNAPSHOT: known state for a trail to begin with, or after a gap.

    The daemon must be stopped meanwhile (75); the slot keeps the changes, and the WAL that they need. All rows are as of one WAL
    position, their commit_lsn; changes before it that the daemon has still to store come behind them in the trail, once, as always.
    Needs a free replication slot for a moment, and waits for the transactions that are open on the source to end. Tables can't be
    truncated or altered until the end.

    Each table is a block of its own, whole or not at all. Cut short, the same command goes on with the tables that are left, as of
    then.

    Example: cdc-audit snapshot --tables 'public.*' --reason "the trail begins"
    """
    take(config, only=only, reason=reason, as_json=as_json)


def take(config: Config, *, only: Sequence[str] = (), reason: str = "", as_json: bool = False) -> None:
    """Take a snapshot and say what was written, a line a table."""
    require_dsn(config.source.one_time_dsn, "source")
    if config.audit.kind == "postgresql":
        require_dsn(config.audit.dsn or config.audit.admin_dsn, "audit")
    if any(not all(pattern.partition(".")) for pattern in only):
        raise UsageError("--tables: a pattern is schema.table, with * as wildcard")
    progress = Progress(as_json)

    def told(taken: Taken) -> None:
        if as_json:
            click.echo(orjson.dumps(taken._asdict()).decode())
        else:
            click.echo(f"ledger block {taken.block}: {taken.table}, {taken.rows:,} rows as of {taken.lsn}")

    baseline = Baseline(config, only=only, reason=reason.strip(), on_table=told, on_progress=progress.show)
    asyncio.run(baseline.run())
