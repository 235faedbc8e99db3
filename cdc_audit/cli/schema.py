"""``cdc-audit schema``: the audit database's tables, roles and partitions."""

from __future__ import annotations

from collections.abc import Sequence

import click
import orjson
from psycopg import Connection

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError
from cdc_audit.postgres import connect
from cdc_audit.schema import migrate, partitions, view
from cdc_audit.schema.drain import drain_default


@click.group()
def command() -> None:
    """Migrate the audit schema, show its state, make partitions.

    Connects with [audit] admin_dsn, or with dsn where there is none.

    Exit codes: 0 done, 69 the audit database is away, 77 the role may not, 78 configuration or server.

    Example: cdc-audit schema migrate
    """


@command.command(
    "migrate",
    epilog="Example: CDC_AUDIT_AUDIT_ADMIN_DSN='host=audit user=postgres' cdc-audit schema migrate",
)
@click.option(
    "--print-sql", is_flag=True, help="Only print what would be run, for psql -1 -f by a superuser."
)
@with_config
def migrate_command(config: Config, *, print_sql: bool) -> None:
    """Make or update schema, roles, tables and partitions. Can be repeated; never changes a row.

    Needs a superuser, or a role with CREATEROLE that may create schemas. The role of [audit] dsn is made a
    member of audit_writer. Grant audit_admin to those who read the trail.
    """
    schema = config.audit.audit_schema
    with _connection(config) as connection:
        if print_sql:
            click.echo(migrate.script(connection, schema, migrate.login_of(config.audit.dsn)), nl=False)
            return
        applied = migrate.migrate(connection, schema, migrate.login_of(config.audit.dsn))
    for name in applied:
        click.echo(f"applied {name}")
    click.echo(f"schema {schema} is at version {migrate.LATEST}")


@command.command("status", epilog="Example: cdc-audit schema status --json | jq .installed")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: schema, installed, latest, pending."
)
@with_config
def status_command(config: Config, *, as_json: bool) -> None:
    """Show the version and pending migrations. Changes nothing."""
    schema = config.audit.audit_schema
    with _connection(config) as connection:
        installed = migrate.installed_version(connection, schema)
    pending = migrate.pending(installed)
    if as_json:
        click.echo(
            orjson.dumps(
                {"schema": schema, "installed": installed, "latest": migrate.LATEST, "pending": pending}
            )
        )
        return
    version = "not installed" if installed is None else f"version {installed}"
    click.echo(f"schema {schema}: {version}, latest {migrate.LATEST}")
    for name in pending:
        click.echo(f"pending: {name}")
    if pending:
        click.echo("to apply: cdc-audit schema migrate")


@command.command("partitions", epilog="Example: cdc-audit schema partitions --ahead 12")
@click.option(
    "--ahead", type=click.IntRange(0, 23), help="First make those of this month and of so many after it."
)
@click.option("--drain", is_flag=True, help="First move rows of the default partition to their months.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: name, lower, upper, rows, bytes.")
@with_config
def partitions_command(config: Config, *, ahead: int | None, drain: bool, as_json: bool) -> None:
    """Show the monthly partitions, or make them ahead.

    Bounds are in UTC, rows are estimated. The daemon makes what it needs by itself. Rows of a month whose partition could not be
    made are in the default partition, until --drain (or archive run) moves them, in one transaction in which readers and the daemon
    wait; rows of years out of all reason stay there.
    """
    schema = config.audit.audit_schema
    with _connection(config) as connection:
        for moved in drain_default(connection, schema) if drain else []:
            click.echo(f"{moved.month}: {moved.rows:,} rows moved out of the default partition", err=True)
        left = [] if ahead is None else partitions.ensure_ahead(connection, schema, ahead)
        found = partitions.partitions(connection, schema)
    for month in left:
        click.echo(f"{month}: not made; its rows are in the default partition, or that is busy", err=True)
    if as_json:
        for one in found:
            click.echo(orjson.dumps(one, option=orjson.OPT_UTC_Z))
        return
    click.echo(f"{'partition':<20} {'from':<10} {'to':<10} {'rows':>12} {'bytes':>15}")
    for one in found:
        lower, upper = (f"{bound:%Y-%m-%d}" if bound else "-" for bound in (one.lower, one.upper))
        click.echo(f"{one.name:<20} {lower:<10} {upper:<10} {one.rows:>12,} {one.bytes:>15,}")


@command.command("index", epilog="Example: cdc-audit schema index")
@click.option("--check", is_flag=True, help="Build nothing: name what is missing, exit 1 if anything is.")
@with_config
def index_command(config: Config, *, check: bool) -> None:
    """Build the look-up indexes of months that are over, and digest the rows of the others.

    The daemon does it by itself: indexes a day after a month's end, digests every ten minutes. This does it now: for months from
    before an upgrade, or where another program writes. It can be stopped and repeated at any time. Readers are not held up; rows
    that come late to the month whose index is being built wait until it is.

    Exit codes: 0 done, 1 --check found some missing, 69 the audit database is away or such a month is being written to, 77 the
    role may not, 78 configuration or server.
    """
    schema = config.audit.audit_schema
    with _connection(config) as connection:
        missing = partitions.missing_indexes(connection, schema)
        built = [] if check else partitions.build_indexes(connection, schema)
        for name in built:
            click.echo(f"built {name}")
        if not check:
            for _ in partitions.digest_rows(connection, schema):
                pass
    if not check:
        click.echo("no look-up index is missing" if not missing else "done")
    elif missing:
        click.echo("\n".join(f"missing {name}" for name in missing))
        raise CheckFailedError(f"{len(missing)} look-up indexes are missing", remedy="cdc-audit schema index")


@command.command("view", epilog="Example: cdc-audit schema view audit_all audit_1 audit_2")
@click.argument("name", metavar="NAME")
@click.argument("schemas", metavar="SCHEMA...", nargs=-1, required=True)
@with_config
def view_command(config: Config, *, name: str, schemas: Sequence[str]) -> None:
    """Make NAME.audit_logs, a view over the trails of several slots of one source database.

    For tables that are shared out over slots: each slot has its daemon, with its own [source] slot and tables, and [audit] schema.
    The view has the columns of audit_logs and, first, ledger: the schema that a row is of. order by commit_lsn, ledger, seq is the
    order of commits; xid and commit_lsn together are a transaction, in whichever ledgers its rows are.

    What is no table's change (events that applications log, DDL, contexts that came too late) goes to every slot, and is in every
    ledger. Can be repeated, for other schemas too.

    Exit codes: 0 done, 2 usage, 69 the audit database is away, 77 the role may not, 78 configuration or server.
    """
    with _connection(config) as connection:
        view.make(connection, name, schemas)
    click.echo(f"made {name}.audit_logs over {', '.join(schemas)}")


def _connection(config: Config) -> Connection:
    return connect(require_dsn(config.audit.one_time_dsn, "audit"), side="audit")
