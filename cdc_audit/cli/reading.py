"""What the commands that read the trail have in common: whose connection it is, and how wide the terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import click
import orjson
from click.core import ParameterSource
from psycopg import Connection

from cdc_audit.cli.settings import FLAGS, require_dsn
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError
from cdc_audit.postgres import connect
from cdc_audit.trail.archive_store import open_store
from cdc_audit.trail.archived import archived
from cdc_audit.trail.image import printable
from cdc_audit.trail.query import Filters, LogRow, Reader, parse_time, read_log
from cdc_audit.trail.reads import record_read
from cdc_audit.trail.render import shown
from cdc_audit.trail.tiers import all_tiers

dsn_option = click.option("--dsn", metavar="DSN", help="The reader's own connection to the audit database.")
tier_option = click.option(
    "--tier",
    type=click.Choice(["database", "all"]),
    default="database",
    show_default=True,
    help="all: also what is in archives ([retention] archive); needs cdc-audit[cold].",
)
table_argument = click.argument("table", metavar="TABLE")


def open_trail(
    config: Config,
    dsn: str | None,
    tier: str = "database",
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Connection:
    """The reader's connection: ``--dsn``, else [audit] admin_dsn, else [audit] dsn. Says which months, of the time from ``since``
    to ``until`` where that is given, are not looked at.
    """
    connection = connect(require_dsn(dsn or config.audit.one_time_dsn, "audit"), side="audit")
    with contextlib.suppress(CdcAuditError):  # what keeps it from being read is the command's own to say
        gone = [one for one in archived(connection, config.audit.audit_schema) if one.overlaps(since, until)]
        kept, purged = [one for one in gone if not one.purged], [one for one in gone if one.purged]
        for what, months, remedy in (
            ("archived", kept if tier == "database" else [], " (--tier all, or cdc-audit archive restore)"),
            ("purged", purged, ""),
        ):
            if months:
                rows, names = sum(one.rows for one in months), sorted(one.name for one in months)
                click.echo(
                    f"not looked at: {rows:,} {what} rows of {names[0]} to {names[-1]}{remedy}", err=True
                )
    return connection


@contextmanager
def reader(config: Config, connection: Connection, tier: str) -> Iterator[Reader]:
    """What reads the rows of a tier. Raises as ``tiers.all_tiers`` does where that is asked for."""
    schema = config.audit.audit_schema
    if tier == "all":
        with all_tiers(connection, schema, open_store(config.retention.archive)) as tiers:
            yield tiers.read
    else:
        yield partial(read_log, connection, schema)


def read_tier(config: Config, connection: Connection, tier: str, filters: Filters) -> Iterator[LogRow]:
    """The rows of a tier that match."""
    with reader(config, connection, tier) as read:
        yield from read(filters)


def record_reading(config: Config, connection: Connection, row_count: int | None) -> None:
    """Where [audit] record_reads says so, record this reading: to be called before anything of the answer is shown.

    ``row_count`` is the number of rows in the answer; None: they are shown as they come. Raises as ``reads.record_read`` does.
    """
    if config.audit.record_reads:
        context = click.get_current_context()
        names = context.command_path.split(" ")[1 if context.parent else 0 :]
        record_read(connection, config.audit.audit_schema, " ".join(names), _asked(context), row_count)


def _asked(context: click.Context) -> Mapping[str, object]:
    """What was given on the command line, but for connections: they may hold a password."""
    hidden = {"dsn", "config_file", *FLAGS}
    return {
        name: value
        for name, value in context.params.items()
        if name not in hidden and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def moment(text: str | None) -> datetime | None:
    """The time that an option says. Raises UsageError."""
    return None if text is None else parse_time(text, datetime.now(UTC))


def terminal_width() -> int:
    """Columns of the terminal; 160 if there is none."""
    return shutil.get_terminal_size((160, 24)).columns


def echo_json(value: object) -> None:
    """A line of JSON in which what a terminal would not print as itself is escaped."""
    click.echo(printable(orjson.dumps(value).decode()))


def echo_csv(lines: Iterable[str]) -> None:
    """CSV as it is for a program, and for a terminal with what could move its cursor escaped.

    click would take escape sequences out of what goes to a program, and could so uncover a formula that stood behind one.
    """
    is_terminal = sys.stdout.isatty()
    for line in lines:
        click.echo(shown(line) if is_terminal else line, color=True)
