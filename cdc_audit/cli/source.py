"""``cdc-audit source``: what is installed in the source, and what its tables let the trail see."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click
import orjson
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.postgres import connect
from cdc_audit.source import hardening, publication, reads
from cdc_audit.source import install as installation
from cdc_audit.source import tables as source_tables
from cdc_audit.source.tables import TableState


@click.group("source")
def command() -> None:
    """Install or uninstall the functions that say who acts; look after the tables.

    Example: cdc-audit source tables
    """


@command.command("install")
@click.option("--guc", metavar="NAME", help="Also send this setting of the application's as context.")
@click.option("--sessions", is_flag=True, help="Also send whose session it is, where nothing else is said.")
@click.option(
    "--tables",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="With --guc or --sessions: on which tables; default [source] tables.",
)
@click.option(
    "--revoke-emit", is_flag=True, help="Also take pg_logical_emit_message from PUBLIC (as a superuser)."
)
@click.option(
    "--harden", is_flag=True, help="That, and event triggers that tell the trail of DDL (as a superuser)."
)
@click.option(
    "--reads",
    "follower",
    metavar="ROLE",
    help="Also let ROLE follow pgAudit's reads (as a superuser): cdc-audit reads follow.",
)
@click.option("--print-sql", is_flag=True, help="Only print what would be run.")
@with_config
def install(
    config: Config,
    *,
    guc: str | None,
    sessions: bool,
    patterns: Sequence[str],
    revoke_emit: bool,
    harden: bool,
    follower: str | None,
    print_sql: bool,
) -> None:
    """Install or upgrade schema cdc_audit: set_context, log_event, and the key that signs. Can be repeated.

    With --guc an application that calls set_config('app.current_user', '{"user_id": "u42"}', true) needs no
    change: a trigger on each table sends the setting as context, once a transaction.

    With --sessions a trigger on each table says which database user, application and address a change comes from, once in a
    transaction that has said nothing: psql, migrations, jobs. Repeat it for tables made since.

    With --harden DDL leaves rows in the trail, too, and the daemon warns of what would hide changes from it.

    With --reads the role may send what pgAudit logs, and pgAudit logs nothing of what the role itself does in this database.

    Example: cdc-audit source install --guc app.current_user --tables 'shop.*'
    """
    if patterns and not (guc or sessions):
        raise UsageError("--tables needs --guc or --sessions: it says on which tables those are sent")
    if print_sql and (guc or sessions or revoke_emit or follower):
        raise UsageError(
            "--print-sql prints the installation and --harden, not --guc, --sessions, --reads or --revoke-emit"
        )
    role = daemon_role(config)
    with _source(config) as source:
        if print_sql:
            version = source.info.server_version
            text = installation.script(version, prefix=config.context.prefix, daemon_role=role, harden=harden)
            click.echo(text, nl=False)
            return
        before = installation.install(source, prefix=config.context.prefix, daemon_role=role)
        click.echo("schema cdc_audit " + ("installed" if before is None else "was there: brought up to date"))
        if role is not None:
            click.echo(f"role {role} may read the signing keys")
        where = _patterns(patterns) or config.source.tables
        if guc:
            done = installation.install_guc_bridge(source, guc, where, config.source.exclude)
            _report(done, f"send {guc} as context")
        if sessions:
            done = installation.install_session_triggers(source, where, config.source.exclude)
            _report(done, "say whose session it is, where nothing else is said")
        if follower:
            reads.install(source, follower)
            click.echo(f"role {follower} may send reads, and pgAudit logs nothing of it in this database")
        if harden:
            installation.harden(source)
            click.echo("event triggers tell the trail of DDL: " + ", ".join(hardening.EVENT_TRIGGERS))
        elif revoke_emit:
            installation.revoke_emit(source)
        if harden or revoke_emit:
            click.echo("EXECUTE on pg_logical_emit_message revoked from PUBLIC")


@command.command("uninstall")
@click.option("--yes", is_flag=True, help="Don't ask.")
@with_config
def uninstall(config: Config, yes: bool) -> None:
    """Remove schema cdc_audit with functions, keys and triggers. Applications that still call it will fail.

    Example: cdc-audit source uninstall --yes
    """
    with _source(config) as source:
        if not yes:
            click.confirm(
                "Remove schema cdc_audit? Applications that call its functions will fail", abort=True
            )
        removed = installation.uninstall(source)
        removed += [f"publication {name}" for name in publication.drop(source, config.source.slot)]
        for what in removed:
            click.echo(f"removed {what}")
        if not removed:
            click.echo("nothing was installed")
        if installation.emit_is_revoked(source):
            click.echo("pg_logical_emit_message stays revoked from PUBLIC; see \\df+ pg_logical_emit_message")


@command.command("tables")
@click.option(
    "--set-full", metavar="PATTERN", help="Give matching tables REPLICA IDENTITY FULL: whole old rows."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@with_config
def tables(config: Config, set_full: str | None, as_json: bool) -> None:
    """Show what the trail can see of each table in scope: UPDATE and DELETE at all, and all old values.

    Example: cdc-audit source tables --set-full 'public.*'
    """
    with _source(config) as source:
        if set_full is not None:
            changed = source_tables.set_full(source, _patterns([set_full])[0])
            if not as_json:
                _report(changed, "now have REPLICA IDENTITY FULL")
        published = publication_lines(config, source) if config.source.plugin == "pgoutput" else []
        states = source_tables.tables(source, config.source.tables, config.source.exclude)
    for state in states:
        if as_json:
            click.echo(
                orjson.dumps({**asdict(state), "root": ".".join(state.root) if state.root else None}).decode()
            )
    if not as_json:
        _print(states)
        for line in published:
            click.echo(line)


def publication_lines(config: Config, connection: Connection) -> list[str]:
    """Bring the publications that pgoutput needs in step with the tables, and say what was done."""
    source = config.source
    report = publication.keep_in_step(connection, source.slot, source.tables, source.exclude)
    lines = [f"publication {name}: made" for name in report.made]
    for names, what in (
        (report.added, "added to"),
        (report.moved, "moved in"),
        (report.removed, "removed from"),
    ):
        lines += [f"{what} the publications: {', '.join(names)}"] if names else []
    lines += [
        f"  {name}: UPDATE and DELETE can't be captured: {reason}" for name, reason in report.inserts_only
    ]
    lines += [f"  {name}: can't be captured: {reason}" for name, reason in report.unpublishable]
    return lines or ["publications: up to date"]


@command.command("keys")
@with_config
def keys(config: Config) -> None:
    """Print the signing keys, JSON lines, for [context] key_file. A secret: who has them can forge contexts.

    For a daemon whose role may not read them in the source.

    Example: (umask 077; cdc-audit source keys > /etc/cdc-audit/context-keys)
    """
    with _source(config) as source:
        for key in installation.export_keys(source):
            pads = {"inner_pad": key.inner_pad.hex(), "outer_pad": key.outer_pad.hex()}
            click.echo(orjson.dumps({"key_id": key.key_id, **pads}).decode())


def daemon_role(config: Config) -> str | None:
    """The role that the daemon's own DSN names; None where libpq decides."""
    user = conninfo_to_dict(config.source.dsn).get("user") if config.source.dsn else None
    return str(user) if user else None


def _print(states: Sequence[TableState]) -> None:
    """A table for people: narrow columns first, the reason last."""
    if not states:
        click.echo("no table is in scope; see [source] tables and exclude")
        return
    rows = [("table", "identity", "update/delete", "old values", "primary key", "remark")]
    rows += [
        (
            state.name,
            state.replica_identity if state.kind == "table" else "(partitioned)",
            "yes" if state.can_capture_changes else "NO",
            "all" if state.can_capture_old else "key" if state.can_capture_changes else "-",
            ", ".join(state.primary_key) or "-",
            state.reason or (f"partition of {'.'.join(state.root)}" if state.root else ""),
        )
        for state in states
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    bold = sys.stdout.isatty()
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.secho(line, bold=bold and number == 0)


def _report(names: Sequence[str], what: str) -> None:
    click.echo(f"{len(names)} {'table' if len(names) == 1 else 'tables'} {what}" + (":" if names else ""))
    for name in names:
        click.echo(f"  {name}")


def _patterns(given: Sequence[str]) -> list[str]:
    for pattern in given:
        schema, dot, table = pattern.partition(".")
        if not (schema and dot and table):
            raise UsageError(f"{pattern!r}: a pattern is schema.table, with * as wildcard")
    return list(given)


def _source(config: Config) -> Connection:
    return connect(require_dsn(config.source.one_time_dsn, "source"), side="source")
