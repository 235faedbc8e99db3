"""What the commands that read the trail have in common: whose connection it is, and how wide the terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import click
import orjson
from click.core import ParameterSource
from psycopg import Connection

from cdc_audit.cli.settings import FLAGS, require_dsn
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError
from cdc_audit.postgres import connect
from cdc_audit.trail.archived import archived
from cdc_audit.trail.image import printable
from cdc_audit.trail.query import parse_time
from cdc_audit.trail.reads import record_read
from cdc_audit.trail.render import shown

dsn_option = click.option("--dsn", metavar="DSN", help="The reader's own connection to the audit database.")
table_argument = click.argument("table", metavar="TABLE")


def open_trail(config: Config, dsn: str | None) -> Connection:
    """The reader's connection: ``--dsn``, else [audit] admin_dsn, else [audit] dsn. Says so where months are archived."""
    connection = connect(require_dsn(dsn or config.audit.one_time_dsn, "audit"), side="audit")
    with contextlib.suppress(CdcAuditError):  # what keeps it from being read is the command's own to say
        if gone := archived(connection, config.audit.audit_schema):
            rows, months = sum(one.rows for one in gone), sorted(f"{one.month:%Y-%m}" for one in gone)
            click.echo(
                f"not looked at: {rows:,} archived rows of {months[0]} to {months[-1]} (cdc-audit archive restore)",
                err=True,
            )
    return connection


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
