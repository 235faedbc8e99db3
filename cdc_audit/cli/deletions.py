"""``cdc-audit deletions``: what was deleted, and by whom."""

from __future__ import annotations

import click

from cdc_audit.cli.reading import (
    dsn_option,
    moment,
    open_trail,
    read_tier,
    record_reading,
    terminal_width,
    tier_option,
)
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.trail import render
from cdc_audit.trail.query import Filters, parse_table


@click.command(epilog="Example: cdc-audit deletions --since 24h --table shop.orders")
@click.option("--since", metavar="TIME", default="24h", show_default=True, help="As in the log.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option("--table", metavar="NAME", help="Table, or schema.table.")
@click.option("--user", metavar="WHO", help="User id or e-mail address.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many rows."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines with every column.")
@tier_option
@dsn_option
@with_config
def command(
    config: Config,
    *,
    since: str,
    until: str | None,
    table: str | None,
    user: str | None,
    limit: int,
    as_json: bool,
    tier: str,
    dsn: str | None,
) -> None:
    """DELETE and TRUNCATE, newest first, with what was in the rows. If there are more than --limit, that is said on stderr.

    Exit codes: 0 done, 2 usage, 69 the audit database is away, 77 the role may not read, 78 configuration.
    """
    schema_name, table_name = parse_table(table) if table is not None else (None, None)
    filters = Filters(
        schema_name=schema_name,
        table_name=table_name,
        user=user,
        since=moment(since),
        until=moment(until),
        removals=True,
        limit=limit + 1,
    )
    with open_trail(config, dsn, tier) as connection:
        rows = list(read_tier(config, connection, tier, filters))
        page = rows[:limit]
        record_reading(config, connection, len(page))
    for line in map(render.json_line, page) if as_json else render.table(page, terminal_width()):
        click.echo(line)
    if len(rows) > limit:
        click.echo(f"cdc-audit: only the newest {limit:,} are shown; more: --limit", err=True)
