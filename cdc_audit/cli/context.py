"""``cdc-audit context``: of which changes nobody said who acted, and whether what an application says arrives."""

from __future__ import annotations

import secrets
import time

import click

from cdc_audit.cli.reading import dsn_option, echo_json, moment, open_trail, record_reading
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.cli.source import publication_lines
from cdc_audit.config import Config
from cdc_audit.decode.scope import Scope
from cdc_audit.errors import CheckFailedError, SettingError
from cdc_audit.postgres import connect
from cdc_audit.source import scratch
from cdc_audit.trail import activity, render_activity
from cdc_audit.trail.query import Filters, parse_table

_POLL_S = 0.02


@click.group("context")
def command() -> None:
    """Find changes without a user, and try that what an application says arrives.

    Example: cdc-audit context missing --since 24h
    """


@command.command("missing", epilog="Example: cdc-audit context missing --since 24h --table shop.orders")
@click.option("--since", metavar="TIME", default="24h", show_default=True, help="As in the log.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option("--table", metavar="NAME", help="Table, or schema.table.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@dsn_option
@with_config
def missing(
    config: Config, *, since: str, until: str | None, table: str | None, as_json: bool, dsn: str | None
) -> None:
    """Changes for which nobody is named, by table and action, with transactions to look at: cdc-audit log --xid.

    Application and database user are known where the transaction went through the source's functions without naming
    anybody, or the table says whose session it is (source install --sessions); of others the stream says neither.

    Exit codes: 0 done (also if something is missing), 2 usage, 69 the audit database is away, 77 the role may not read,
    78 configuration.
    """
    schema_name, table_name = parse_table(table) if table is not None else (None, None)
    filters = Filters(
        schema_name=schema_name, table_name=table_name, since=moment(since), until=moment(until)
    )
    with open_trail(config, dsn) as connection:
        found = activity.nobody(connection, config.audit.audit_schema, filters)
        record_reading(config, connection, len(found))
    if as_json:
        for row in found:
            echo_json(row._asdict())
    elif found:
        click.echo("\n".join(render_activity.nobody(found)))
    else:
        click.echo("nothing", err=True)


@command.command("check", epilog="Example: cdc-audit context check --as 'host=db dbname=app user=shop'")
@click.option(
    "--as",
    "application",
    metavar="DSN",
    required=True,
    help="The application's own connection to the source.",
)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@dsn_option
@with_config
def check(config: Config, *, application: str, timeout: float, as_json: bool, dsn: str | None) -> None:
    """Make a change as the application's role, in a scratch table, and show what of it arrives in the trail, and when.

    The daemon must be running. The table is dropped again; its one row stays in the trail.

    Exit codes: 0 it arrived under its user, signed; 1 it didn't, 2 usage, 69 a database is away, 77 a right is missing,
    78 configuration.
    """
    if not Scope(config.source.tables, config.source.exclude).covers((scratch.SCHEMA, scratch.TABLE)):
        raise SettingError(
            f"[source] tables does not cover {scratch.SCHEMA}.{scratch.TABLE}",
            remedy=f'add "{scratch.SCHEMA}.*" to [source] tables and restart the daemon',
        )
    user = f"check-{secrets.token_hex(4)}"
    with (
        connect(require_dsn(config.source.one_time_dsn, "source"), side="source") as admin,
        connect(application, side="source", application_name="cdc-audit context check") as source,
        open_trail(config, dsn) as trail,
    ):
        with scratch.scratch_table(admin, source.info.user):
            if config.source.plugin == "pgoutput":
                publication_lines(config, admin)
            xid = scratch.change_as(source, user)
            committed = time.monotonic()
        filters = Filters(schema_name=scratch.SCHEMA, table_name=scratch.TABLE, xid=xid, since=moment("1h"))
        found = activity.arrived(trail, config.audit.audit_schema, filters)
        while found is None and time.monotonic() - committed < timeout:
            time.sleep(_POLL_S)
            found = activity.arrived(trail, config.audit.audit_schema, filters)
        latency = time.monotonic() - committed
    if found is None:
        raise CheckFailedError(
            f"the change did not arrive within {timeout:g} s",
            remedy="cdc-audit doctor, and is cdc-audit run running?",
        )
    if as_json:
        echo_json({**found._asdict(), "seconds": round(latency, 3), "xid": xid})
    else:
        click.echo(
            f"arrived after {latency:.3f} s: user {found.user_id or '-'} ({found.context_trust}),"
            f" database user {found.db_user or '-'}, application {found.application_name or '-'}, xid {xid}"
        )
    if (found.user_id, found.context_trust) != (user, "signed"):
        raise CheckFailedError(f"expected user {user} (signed)", remedy="cdc-audit doctor")
