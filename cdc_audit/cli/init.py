"""``cdc-audit init``: everything that has to be there before the daemon runs."""

from __future__ import annotations

import click
import psycopg

from cdc_audit import lake
from cdc_audit.cli import snapshot
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.cli.source import publication_lines
from cdc_audit.config import Config
from cdc_audit.errors import SettingError
from cdc_audit.model.lsn import format_lsn
from cdc_audit.postgres import connect
from cdc_audit.schema import migrate, partitions
from cdc_audit.sink import ledger
from cdc_audit.sink.signing import load_signer
from cdc_audit.source import facts, hardening, install, slot, tables

_HARDEN = "to have it in the trail: cdc-audit source install --harden"


@click.command("init")
@click.option(
    "--snapshot",
    "with_snapshot",
    is_flag=True,
    help="Then write the tables' present rows into the trail, too.",
)
@with_config
def command(config: Config, with_snapshot: bool) -> None:
    """Set everything up and say what was done: audit schema and roles, source functions, slot, the ledger's first block.

    Can be repeated: what is there already stays. Connects with admin_dsn of both sections where it is set; the slot is
    made with [source] dsn, so that it is one that the daemon may read.

    Example: CDC_AUDIT_SOURCE_DSN=... CDC_AUDIT_AUDIT_DSN=... cdc-audit init
    """
    source_dsn = require_dsn(config.source.one_time_dsn, "source")
    if config.audit.kind == "iceberg":
        with connect(source_dsn, side="source") as source:
            _lake(config)
            _source_functions(config, source)
            _slot(config, source)
            click.echo("ledger: the daemon begins it")
            _tables(config, source)
    else:
        audit_dsn = require_dsn(config.audit.one_time_dsn, "audit")
        with connect(source_dsn, side="source") as source, connect(audit_dsn, side="audit") as audit:
            _audit_schema(config, audit)
            _source_functions(config, source)
            _slot_and_ledger(config, source, audit)
            _tables(config, source)
    if with_snapshot:
        snapshot.take(config, reason="init")
    click.echo("ready: start the daemon with `cdc-audit run`")


def _audit_schema(config: Config, audit: psycopg.Connection) -> None:
    schema = config.audit.audit_schema
    login = migrate.login_of(config.audit.dsn)
    applied = migrate.migrate(audit, schema, login)
    partitions.ensure_ahead(audit, schema)
    click.echo(f"audit schema {schema}: " + (f"applied {', '.join(applied)}" if applied else "up to date"))


def _lake(config: Config) -> None:
    made = lake.make_tables(config.audit.catalog, config.audit.audit_schema)
    said = f"made {', '.join(made)}" if made else "there already"
    click.echo(f"tables of namespace {config.audit.audit_schema} in catalog {config.audit.catalog}: {said}")


def _source_functions(config: Config, source: psycopg.Connection) -> None:
    role = migrate.login_of(config.source.dsn)
    before = install.install(source, prefix=config.context.prefix, daemon_role=role)
    click.echo("source functions: " + ("installed in schema cdc_audit" if before is None else "up to date"))
    hardened = hardening.found(source)
    if hardened.broken:
        click.echo(f"DDL: event triggers are gone or disabled: {', '.join(hardened.broken)}; {_HARDEN}")
    else:
        click.echo("DDL: " + ("told by event triggers" if hardened.was_hardened else f"not told; {_HARDEN}"))


def _slot_and_ledger(config: Config, source: psycopg.Connection, audit: psycopg.Connection) -> None:
    name, schema = config.source.slot, config.audit.audit_schema
    signer = load_signer(config.ledger.signing_key_file)
    existed = slot.status(source, name) is not None
    last = ledger.last_block(audit, schema)
    if last is not None and not existed:
        raise SettingError(
            f"the ledger ends at {format_lsn(last[0].end_lsn)}, but replication slot {name} does not exist",
            remedy='cdc-audit slot recreate --reason "why the slot is gone"',
        )
    info = _slot(config, source)
    start = format_lsn(info.confirmed_flush_lsn)
    if last is None:
        system = facts.identify(config.source.slot_dsn, slot=name, plugin=config.source.plugin)
        ledger.genesis(
            audit,
            schema,
            system_identifier=system.system_identifier,
            timeline=system.timeline,
            slot=name,
            lsn=info.confirmed_flush_lsn,
            detail={"database": info.database, "plugin": info.plugin},
            signer=signer,
        )
        click.echo(f"ledger: the trail begins after {start}")
    else:
        click.echo(f"ledger: {last[0].block + 1} blocks, through {format_lsn(last[0].end_lsn)}")


def _slot(config: Config, source: psycopg.Connection) -> slot.SlotInfo:
    name = config.source.slot
    existed = slot.status(source, name) is not None
    if config.source.plugin == "pgoutput":
        for line in publication_lines(config, source):
            click.echo(line)
    with connect(require_dsn(config.source.slot_dsn, "source"), side="source") as daemon:
        info = slot.create(daemon, name, config.source.plugin)
    start = format_lsn(info.confirmed_flush_lsn)
    click.echo(f"slot {name} ({info.plugin}): " + ("there already" if existed else f"created at {start}"))
    return info


def _tables(config: Config, source: psycopg.Connection) -> None:
    """Say which tables won't give whole old rows, or none at all."""
    states = [
        state
        for state in tables.tables(source, config.source.tables, config.source.exclude)
        if state.kind == "table"
    ]
    blind = tables.without_identity(states)
    partial = [state for state in states if state.can_capture_changes and not state.can_capture_old]
    click.echo(f"tables in scope: {len(states)}")
    if blind:
        click.echo(f"  {len(blind)} of them hide which row an UPDATE or DELETE changed: {_some(blind)}")
    if partial:
        click.echo(f"  {len(partial)} give only the key of the old row: {_some(partial)}")
    if blind or partial:
        click.echo(
            "  whole old rows: cdc-audit source tables --set-full 'schema.table'  (patterns with * are fine)"
        )


def _some(states: list[tables.TableState]) -> str:
    names = ", ".join(state.name for state in states[:5])
    return names + (", ..." if len(states) > 5 else "")
