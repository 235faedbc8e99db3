"""``cdc-audit who``: what a user did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from cdc_audit.cli.reading import dsn_option, echo_json, moment, open_trail, record_reading, terminal_width
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.trail import render_activity
from cdc_audit.trail.activity import by_time, shares
from cdc_audit.trail.query import Filters

_HOURS_UP_TO = timedelta(days=2)


@click.command(epilog="Example: cdc-audit who u42 --since 7d")
@click.argument("user", metavar="USER")
@click.option("--since", metavar="TIME", default="30d", show_default=True, help="As in the log.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON lines: one for each table and action, then one for each hour or day.",
)
@dsn_option
@with_config
def command(
    config: Config, *, user: str, since: str, until: str | None, as_json: bool, dsn: str | None
) -> None:
    """What USER (an id or an e-mail address) did: rows by table and action, then by day; by hour up to two days.

    Days and hours are those of UTC.

    Exit codes: 0 done (also if there is nothing), 2 usage, 69 the audit database is away, 77 the role may not read,
    78 configuration.
    """
    start, end = moment(since), moment(until)
    assert start is not None
    unit = "hour" if (end or datetime.now(UTC)) - start <= _HOURS_UP_TO else "day"
    filters = Filters(user=user, since=start, until=end)
    schema = config.audit.audit_schema
    with open_trail(config, dsn) as connection:
        sums = shares(connection, schema, filters)
        times = by_time(connection, schema, filters, unit)
        record_reading(config, connection, sum(share.rows for share in sums))
    if as_json:
        for row in sums:
            echo_json(row._asdict())
        for first, count in times:
            echo_json({unit: first, "rows": count})
    elif not sums:
        click.echo("nothing", err=True)
    else:
        click.echo("\n".join(render_activity.shares(sums)) + "\n")
        click.echo("\n".join(render_activity.histogram(times, unit, terminal_width())))
