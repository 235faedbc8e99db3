"""``cdc-audit history``: one record's life."""

from __future__ import annotations

import click

from cdc_audit.cli.reading import dsn_option, open_trail, reader, record_reading, table_argument, tier_option
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.trail.history import history
from cdc_audit.trail.image import members
from cdc_audit.trail.query import parse_table
from cdc_audit.trail.render import json_line
from cdc_audit.trail.render_record import life


@click.command(epilog="Example: cdc-audit history shop.orders 42 --field status")
@table_argument
@click.argument("record", metavar="RECORD")
@click.option("--field", metavar="COLUMN", help="Only what happened to this column.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines with every column of the trail.")
@tier_option
@dsn_option
@with_config
def command(
    config: Config, *, table: str, record: str, field: str | None, as_json: bool, tier: str, dsn: str | None
) -> None:
    """One record's life, oldest first, change by change and field by field.

    RECORD is its primary key; a JSON array of texts for a composite one. Changes of the key are followed both ways, where row
    images show which columns are the key. A TRUNCATE of the table is no row of the record: cdc-audit deletions.

    Exit codes: 0 done (also if there is nothing), 2 usage, 69 the audit database is away, 77 the role may not read,
    78 configuration.
    """
    asked = parse_table(table)
    with open_trail(config, dsn, tier) as connection:
        with reader(config, connection, tier) as read:
            rows = history(read, asked, record)
        record_reading(config, connection, len(rows))
    if not as_json:
        lines = life(rows, field)
    else:
        lines = (
            json_line(row)
            for row in rows
            if field is None
            or field
            in (
                row.changed_fields
                if row.changed_fields is not None
                else members(row.new_data or row.old_data)
            )
        )
    for line in lines:
        click.echo(line)
