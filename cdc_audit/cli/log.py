"""``cdc-audit log``: who changed what."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime

import click

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.postgres import connect
from cdc_audit.trail import render
from cdc_audit.trail.query import Filters, LogRow, parse_table, parse_time, read_log


@click.command(
    epilog="Example: cdc-audit log --dsn 'host=audit user=alice' --table orders --record 42 --since 7d"
)
@click.option("--table", metavar="NAME", help="Table, or schema.table.")
@click.option("--record", metavar="ID", help="Primary key; a JSON array of texts for a composite one.")
@click.option("--user", metavar="WHO", help="User id or e-mail address.")
@click.option("--action", metavar="ACTION", help="INSERT, UPDATE, DELETE, TRUNCATE, or an application's own.")
@click.option("--field", metavar="COLUMN", help="A column that was changed.")
@click.option(
    "--since", metavar="TIME", help="From this moment on: ISO 8601, 24h, 7d, yesterday, today. UTC."
)
@click.option("--until", metavar="TIME", help="Before this moment; a date means its beginning.")
@click.option("--xid", type=click.IntRange(min=0), help="Transaction id on the source.")
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
@click.option("--dsn", metavar="DSN", help="The reader's own connection to the audit database.")
@with_config
def command(
    config: Config,
    *,
    table: str | None,
    record: str | None,
    user: str | None,
    action: str | None,
    field: str | None,
    since: str | None,
    until: str | None,
    xid: int | None,
    limit: int,
    form: str,
    as_json: bool,
    dsn: str | None,
) -> None:
    """Show who changed what, newest first.

    CDC_AUDIT_AUDIT_DSN belongs to the daemon, whose role may write the trail and not read it. Give a role
    that has audit_admin by --dsn (or CDC_AUDIT_AUDIT_ADMIN_DSN); leave the password to ~/.pgpass.

    Notes say how far the user can be believed, unless the context is signed, and what a row lacks: suppressed
    (no row images at all), partial (no full old image), lossy.

    Personal values are shown, or [erased]; to a role that may not read personal_values, as the commitments that rows hold.

    Exit codes: 0 done, 2 usage, 69 the audit database is away, 77 the role may not read, 78 configuration.
    """
    now = datetime.now(UTC)
    schema_name, table_name = parse_table(table) if table is not None else (None, None)
    filters = Filters(
        schema_name=schema_name,
        table_name=table_name,
        record=record,
        user=user,
        action=action,
        field=field,
        since=parse_time(since, now) if since is not None else None,
        until=parse_time(until, now) if until is not None else None,
        xid=xid,
        limit=limit,
    )
    chosen = dsn or require_dsn(config.audit.one_time_dsn, "audit")
    with connect(chosen, side="audit") as connection:
        for line in _lines(
            read_log(connection, config.audit.audit_schema, filters), "json" if as_json else form
        ):
            click.echo(line)


def _lines(rows: Iterable[LogRow], form: str) -> Iterable[str]:
    if form == "json":
        return map(render.json_line, rows)
    if form == "csv":
        return render.csv_lines(rows)
    return render.table(list(rows), shutil.get_terminal_size((160, 24)).columns)
