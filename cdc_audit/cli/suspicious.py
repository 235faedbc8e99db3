"""``cdc-audit suspicious``: bulk operations."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import orjson

from cdc_audit.cli.reading import dsn_option, moment, open_trail
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.trail import render_activity
from cdc_audit.trail.activity import bulks
from cdc_audit.trail.query import Filters, parse_time


@click.command(epilog="Example: cdc-audit suspicious --since 7d --threshold 500 --window 10m")
@click.option("--since", metavar="TIME", default="24h", show_default=True, help="As in the log.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option(
    "--threshold", type=click.IntRange(min=1), default=100, show_default=True, help="More rows than this."
)
@click.option("--window", metavar="SPAN", default="1h", show_default=True, help="Within this: 10m, 1h, 1d.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@dsn_option
@with_config
def command(
    config: Config,
    *,
    since: str,
    until: str | None,
    threshold: int,
    window: str,
    as_json: bool,
    dsn: str | None,
) -> None:
    """Bulk operations: more than 100 changes by one user, of one action and table, within an hour.

    The hour is any hour, not one by the clock. Rows without a user are taken together (user -). See the rows of a line by:
    cdc-audit log --user --table --action --since --until.

    Exit codes: 0 done (also if something was found), 2 usage, 69 the audit database is away, 77 the role may not read,
    78 configuration.
    """
    now = datetime.now(UTC)
    span = now - parse_time(window, now)
    if span.total_seconds() <= 0 or window[-1:] not in "smhdw":
        raise UsageError("--window is not a span of time", remedy="say 10m, 1h, or 1d")
    filters = Filters(since=moment(since), until=moment(until))
    with open_trail(config, dsn) as connection:
        found = bulks(connection, config.audit.audit_schema, filters, threshold=threshold, window=span)
    if as_json:
        for row in found:
            click.echo(orjson.dumps(row._asdict()))
    elif found:
        click.echo("\n".join(render_activity.bulks(found)))
    else:
        click.echo("nothing", err=True)
