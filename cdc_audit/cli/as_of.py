"""``cdc-audit as-of``: a record or a table as it was at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import orjson

from cdc_audit.cli.reading import (
    dsn_option,
    echo_csv,
    moment,
    open_trail,
    reader,
    record_reading,
    table_argument,
    tier_option,
)
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError
from cdc_audit.trail.as_of import as_of, reach
from cdc_audit.trail.image import Image, printable, printed
from cdc_audit.trail.query import parse_table
from cdc_audit.trail.render import csv_cell, csv_line, shown

_MOST_DOUBTS = 20


@click.command(epilog="Example: cdc-audit as-of shop.orders 42 --at 2026-11-20T10:00")
@table_argument
@click.argument("record", metavar="[RECORD]", required=False)
@click.option("--at", metavar="TIME", required=True, help="ISO 8601, 24h (ago), yesterday. UTC.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv"]),
    default="json",
    show_default=True,
    help="json: one row a line; csv: the columns of all rows.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@tier_option
@dsn_option
@with_config
def command(
    config: Config,
    *,
    table: str,
    record: str | None,
    at: str,
    form: str,
    as_json: bool,
    tier: str,
    dsn: str | None,
) -> None:
    """A table, or one record of it, as it was at a time, from the images in the trail.

    Records that were there before the trail began are known from a snapshot, or from the first change after that time. What
    isn't known is said on stderr. Personal values are shown as in the log.

    Exit codes: 0 done, 1 the record was not there, or isn't known; 2 usage, also if the trail begins later than that; 69 the
    audit database is away, 77 the role may not read, 78 configuration.
    """
    time = moment(at)
    assert time is not None
    with open_trail(config, dsn, tier) as connection:
        with reader(config, connection, tier) as read:
            known = reach(connection, config.audit.audit_schema, with_archives=tier == "all")
            state = as_of(read, known, parse_table(table), time, record)
        record_reading(config, connection, len(state.rows))
    for doubt in state.doubts[:_MOST_DOUBTS]:
        click.echo(f"not known: {shown(doubt)}", err=True)
    if len(state.doubts) > _MOST_DOUBTS:
        click.echo(f"not known: {len(state.doubts) - _MOST_DOUBTS:,} more of the kind", err=True)
    rows = list(state.rows.values())
    if form == "csv" and not as_json:
        echo_csv(_csv(rows))
    else:
        for row in rows:
            click.echo(printable(printed(row)))
    if record is not None and not rows:
        raise CheckFailedError(f"the trail knows of no such record at {time.isoformat()}")


def _csv(rows: Sequence[Image]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield csv_line([csv_cell(name) for name in names])
    for row in rows:
        yield csv_line([_cell(row.get(name)) for name in names])


def _cell(raw: str | None) -> str:
    """Strings without quotes, null as nothing; numbers, also negative ones, as they are."""
    if raw is None or raw == "null":
        return ""
    return csv_cell(orjson.loads(raw)) if raw.startswith('"') else raw
