"""``cdc-audit log``: who changed what."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import click
from psycopg import Connection

from cdc_audit.cli.reading import (
    dsn_option,
    echo_csv,
    moment,
    open_trail,
    read_tier,
    record_reading,
    terminal_width,
    tier_option,
)
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.trail import render
from cdc_audit.trail.follow import follow
from cdc_audit.trail.query import (
    Filters,
    LogRow,
    last_id,
    parse_network,
    parse_table,
    parse_value,
    time_of,
)

_POLL_S = 0.5
_MOST_SEARCHED = 50_000


@click.command(
    epilog="Example: cdc-audit log --dsn 'host=audit user=alice' --table orders --record 42 --since 7d"
)
@click.option("--table", metavar="NAME", help="Table, or schema.table.")
@click.option("--record", metavar="ID", help="Primary key; a JSON array of texts for a composite one.")
@click.option("--user", metavar="WHO", help="User id or e-mail address.")
@click.option(
    "--action", metavar="ACTION", help="INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT, or an application's own."
)
@click.option("--field", metavar="COLUMN", help="A column that was changed.")
@click.option(
    "--before", metavar="COLUMN=VALUE", multiple=True, help="This column had this value before; repeatable."
)
@click.option(
    "--after", metavar="COLUMN=VALUE", multiple=True, help="This column has this value after; repeatable."
)
@click.option("--email", metavar="ADDRESS", help="E-mail address, also one that is kept as a personal value.")
@click.option("--ip", metavar="NETWORK", help="IP address or network: 10.0.0.9, 10.0.0.0/8.")
@click.option("--application", metavar="NAME", help="application_name of the source's session.")
@click.option(
    "--trust",
    type=click.Choice(["none", "asserted", "signed", "forged", "invalid"]),
    help="How far the user can be believed.",
)
@click.option("--text", metavar="TEXT", help="Stands in the context or the user agent; any case.")
@click.option(
    "--since", metavar="TIME", help="From this moment on: ISO 8601, 24h, 7d, yesterday, today. UTC."
)
@click.option("--until", metavar="TIME", help="Before this moment; a date means its beginning.")
@click.option("--xid", type=click.IntRange(min=0), help="Transaction id on the source.")
@click.option(
    "--before-id", metavar="ID", type=click.IntRange(min=1), help="The next page: rows older than this one."
)
@click.option("--follow", "follows", is_flag=True, help="The newest rows, then each as it is committed.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many rows."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json: JSON lines with every column; csv: every column.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@tier_option
@dsn_option
@with_config
def command(
    config: Config,
    *,
    table: str | None,
    record: str | None,
    user: str | None,
    action: str | None,
    field: str | None,
    before: Sequence[str],
    after: Sequence[str],
    email: str | None,
    ip: str | None,
    application: str | None,
    trust: str | None,
    text: str | None,
    since: str | None,
    until: str | None,
    xid: int | None,
    before_id: int | None,
    follows: bool,
    limit: int,
    form: str,
    as_json: bool,
    tier: str,
    dsn: str | None,
) -> None:
    """Show who changed what, newest first.

    CDC_AUDIT_AUDIT_DSN belongs to the daemon, whose role may write the trail and not read it. Give a role
    that has audit_admin by --dsn (or CDC_AUDIT_AUDIT_ADMIN_DSN); leave the password to ~/.pgpass.

    Notes say how far the user can be believed, unless the context is signed, and what a row lacks: suppressed
    (no row images at all), partial (no full old image), lossy.

    Personal values are shown, or [erased]; to a role that may not read personal_values, as the commitments that rows hold.

    With --follow rows come oldest first, block by block, each once; Ctrl-C ends it.

    No index serves --text: without --since, --until, --record, --user, --email or --xid it looks through 50,000 rows, and says on
    stderr how to go on if there may be more. Where personal values are kept apart, no index serves --email, --ip, --before and
    --after either: give --since on a large trail.

    Exit codes: 0 done, 2 usage, 69 the audit database is away, 77 the role may not read, 78 configuration.
    """
    if follows and before_id is not None:
        raise UsageError("--follow goes on from the newest row", remedy="leave out --before-id")
    if follows and tier == "all":
        raise UsageError(
            "--follow shows what comes, and archives are of old months", remedy="leave out --tier"
        )
    schema_name, table_name = parse_table(table) if table is not None else (None, None)
    filters = Filters(
        schema_name=schema_name,
        table_name=table_name,
        record=record,
        user=user,
        action=action,
        field=field,
        since=moment(since),
        until=moment(until),
        xid=xid,
        limit=limit,
        before=tuple(map(parse_value, before)),
        after=tuple(map(parse_value, after)),
        email=email,
        ip=parse_network(ip) if ip is not None else None,
        application=application,
        trust=trust,
        text=text,
    )
    schema = config.audit.audit_schema
    form = "json" if as_json else form
    rows: Iterable[LogRow]
    with open_trail(config, dsn, tier) as connection:
        if follows:
            record_reading(config, connection, None)
            rows = follow(connection, schema, filters, lambda: time.sleep(_POLL_S))
        else:
            if before_id is not None:
                last = _time_of(config, connection, tier, before_id)
                filters = replace(filters, before_at=last, before_id=before_id)
            filters = _bounded(connection, schema, filters)
            rows = _told(read_tier(config, connection, tier, filters), filters)
            if config.audit.record_reads:  # all of them first: their number is recorded before one is shown
                rows = list(rows)
                record_reading(config, connection, len(rows))
        if form == "csv":
            echo_csv(render.csv_lines(rows))
            return
        for line in _lines(rows, form, as_they_come=follows):
            click.echo(line)


def _time_of(config: Config, connection: Connection, tier: str, row_id: int) -> datetime:
    """``created_at`` of a row. Raises UsageError if there is none."""
    if tier != "all":
        return time_of(connection, config.audit.audit_schema, row_id)
    found = list(read_tier(config, connection, tier, Filters(id=row_id, limit=1)))
    if not found:
        raise UsageError(f"the trail has no row {row_id}", remedy="give the id of the last row of a page")
    return datetime.fromisoformat(found[0].created_at)


def _bounded(connection: Connection, schema: str, filters: Filters) -> Filters:
    """What no index serves looks through so many rows only, unless it is said through which."""
    narrow = (filters.since, filters.until, filters.record, filters.user, filters.email, filters.xid)
    if filters.text is None or any(one is not None for one in narrow):
        return filters
    end = filters.before_id or last_id(connection, schema) + 1
    return replace(filters, above_id=max(0, end - 1 - _MOST_SEARCHED))


def _told(rows: Iterable[LogRow], filters: Filters) -> Iterator[LogRow]:
    """The rows; behind them, if rows that were not looked at might match, how to look at them."""
    found = 0
    for row in rows:
        found += 1
        yield row
    if filters.above_id and found < (filters.limit or 0):
        click.echo(
            f"cdc-audit: looked through {_MOST_SEARCHED:,} rows; to go on: --before-id {filters.above_id + 1}; "
            "or say through which: --since TIME",
            err=True,
        )


def _lines(rows: Iterable[LogRow], form: str, *, as_they_come: bool) -> Iterable[str]:
    if form == "json":
        return map(render.json_line, rows)
    if as_they_come:
        return render.stream(rows, terminal_width())
    return render.table(list(rows), terminal_width())
