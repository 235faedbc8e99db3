"""``cdc-audit quarantine``: the way past a transaction that can't be decoded."""

from __future__ import annotations

import asyncio

import click
import psycopg

from cdc_audit import __version__
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.ops import log
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.watch import Watch
from cdc_audit.pipeline.quarantine import Quarantine


@click.command("quarantine")
@click.option(
    "--lsn", metavar="LSN", required=True, help="The position that the daemon named when it stopped."
)
@click.option("--reason", required=True, help="Why changes are given up; goes into the ledger.")
@with_config
def command(config: Config, lsn: str, reason: str) -> None:
    """Go on past a transaction that can't be decoded. It is lost, and the ledger says so.

    Run it where the daemon has stopped with this command as its last words. It stores all that was committed before, sees that
    very transaction fail once more, and appends a block of kind poison: its positions, transaction id and reason, no values. What
    comes after it is not lost. Exit code 1 if something else fails, or nothing.

    Example: cdc-audit quarantine --lsn 16/B374D848 --reason "a message of 180 MB, ticket 4712"
    """
    require_dsn(config.source.dsn, "source")
    require_dsn(config.audit.dsn, "audit")
    if not reason.strip():
        raise UsageError("--reason is empty: it is what an auditor will read beside the block")
    try:
        position = parse_lsn(lsn)
    except ValueError as error:
        raise UsageError(f"--lsn {lsn}: not an LSN like 16/B374D848") from error
    log.configure(config.log.level, config.log.format)
    metrics = Metrics(
        version=__version__, psycopg_implementation=psycopg.pq.__impl__, source=config.source.name
    )
    watch = Watch(metrics, heartbeat_interval=config.ledger.heartbeat_interval)
    quarantine = Quarantine(config, watch, lsn=position, reason=reason.strip())
    asyncio.run(quarantine.run())
    poison = quarantine.poison
    if poison is not None:
        click.echo(
            f"transaction {poison.xid} is given up: the ledger says so through {format_lsn(poison.end_lsn)}; "
            "start the daemon"
        )
