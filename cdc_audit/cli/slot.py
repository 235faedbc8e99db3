"""``cdc-audit slot``: the slot, and the ledger's record of what is lost when it is made again or advanced."""

from __future__ import annotations

from dataclasses import asdict

import click
import orjson
from psycopg import Connection

from cdc_audit import failpoint
from cdc_audit.cli import snapshot
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError, SettingError, UsageError
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.pipeline.reconcile import SourceState, resume
from cdc_audit.postgres import connect
from cdc_audit.seal.signature import begins_signing
from cdc_audit.sink import ledger
from cdc_audit.sink.signing import load_signer
from cdc_audit.source import facts, slot
from cdc_audit.source.plugin import RECREATE

_REASON = click.option("--reason", required=True, help="Why changes are given up; goes into the ledger.")
_YES = click.option("--yes", is_flag=True, help="Don't ask.")


@click.group("slot")
def command() -> None:
    """Create, show, drop, recreate or advance the replication slot that [source] slot names.

    Example: cdc-audit slot status
    """


@command.command("create")
@click.option("--plugin", type=click.Choice(["wal2json", "pgoutput"]), help="Default: [source] plugin.")
@click.option(
    "--failover/--no-failover",
    default=None,
    help="Let standbys keep the slot in step (PostgreSQL 17 and newer). Default: where the server can.",
)
@with_config
def create(config: Config, plugin: str | None, failover: bool | None) -> None:
    """Create the slot. If it is there already and fit for use, it stays as it is.

    Waits for the transactions that are open on the source to end.

    Example: cdc-audit slot create --plugin pgoutput
    """
    with _source(config) as source:
        existed = slot.status(source, config.source.slot) is not None
        info = slot.create(source, config.source.slot, plugin or config.source.plugin, failover)
    verb = "exists already" if existed else "created"
    click.echo(f"slot {info.name} ({info.plugin}) {verb} at {format_lsn(info.confirmed_flush_lsn)}")


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_config
def status(config: Config, as_json: bool) -> None:
    """Show where the slot stands and how much WAL it holds back. Exit code 1 if there is none.

    Example: cdc-audit slot status --json | jq .retained_bytes
    """
    with _source(config) as source:
        info = slot.status(source, config.source.slot)
    if info is None:
        raise CheckFailedError(
            f'replication slot "{config.source.slot}" does not exist', remedy="cdc-audit slot create"
        )
    shown = _shown(info)
    if as_json:
        click.echo(orjson.dumps(shown).decode())
        return
    width = max(map(len, shown))
    for key, value in shown.items():
        click.echo(f"{key:<{width}}  {_text(key, value)}")


@command.command("drop")
@_YES
@with_config
def drop(config: Config, yes: bool) -> None:
    """Drop the slot. What the trail hasn't got yet is lost. Refused (75) while a daemon reads it.

    Example: cdc-audit slot drop --yes
    """
    name = config.source.slot
    with _source(config) as source:
        if slot.status(source, name) is not None and not yes:
            click.confirm(f"Drop slot {name}? What the trail has not got yet is lost", abort=True)
        dropped = slot.drop(source, name)
    click.echo(f"slot {name} dropped" if dropped else f"slot {name} is not there")


@command.command("recreate")
@_REASON
@click.option(
    "--snapshot", "with_snapshot", is_flag=True, help="Then write the present rows into the trail, too."
)
@_YES
@with_config
def recreate(config: Config, reason: str, with_snapshot: bool, yes: bool) -> None:
    """Drop the slot, if there is one, create it again, and record in the ledger what the trail misses.

    Can be repeated when it was cut short: a slot that is fit for use and already ahead of the ledger is kept,
    and the gap recorded. With --snapshot the gap has an end: what a row was like after it (see cdc-audit
    snapshot, which also goes on with it when that was cut short).

    Example: cdc-audit slot recreate --reason "slot was lost: disk full on the source, ticket 4711"
    """
    name, plugin = config.source.slot, config.source.plugin
    _check_reason(reason)
    with _source(config) as source, _audit(config) as audit:
        last = _last_block(config, audit)
        cluster = facts.identify(config.source.slot_dsn, slot=name, plugin=plugin)
        found = slot.status(source, name)
        durable = resume(last, _state(config, cluster, 0), plugin=plugin).lsn if last else 0
        if found is not None:
            slot.check_inactive(found)
        if found is not None and last is not None and _is_ahead(found, durable, plugin):
            click.echo(f"slot {name} is fit for use and ahead of the ledger: kept")
        else:
            slot.check_creatable(source, name, plugin)
            if not yes:
                click.confirm(
                    f"Drop and create slot {name}? Changes may be missing from the trail", abort=True
                )
            slot.drop(source, name)
            found = slot.create(source, name, plugin)
            click.echo(f"slot {name} ({plugin}) created at {format_lsn(found.confirmed_flush_lsn)}")
        _record_gap(config, audit, last, cluster, found, reason, "slot recreate")
    if with_snapshot:
        snapshot.take(config, reason=reason)


@command.command("advance")
@click.option("--to", "target", metavar="LSN", required=True, help="Where to go: X/Y, or now.")
@_REASON
@_YES
@with_config
def advance(config: Config, target: str, reason: str, yes: bool) -> None:
    """Skip what committed before an LSN, and record in the ledger what the trail misses. Can't be undone.

    For a transaction that can't be decoded: LSN is then the end of its commit record. Can be repeated when it
    was cut short.

    Example: cdc-audit slot advance --to 16/B374D848 --reason "1.2 GB message, ticket 4712"
    """
    name, plugin = config.source.slot, config.source.plugin
    _check_reason(reason)
    with _source(config) as source, _audit(config) as audit:
        last = _last_block(config, audit)
        cluster = facts.identify(config.source.slot_dsn, slot=name, plugin=plugin)
        found = slot.status(source, name)
        if found is None:
            raise SettingError(f'replication slot "{name}" does not exist', remedy=RECREATE)
        slot.check_fit(found, source.info.dbname, plugin)
        lsn = slot.position(source) if target == "now" else _parse(target)
        if last is not None:
            resume(last, _state(config, cluster, 0), plugin=plugin)
        if not yes:
            click.confirm(f"Skip what committed before {format_lsn(lsn)} and isn't in the trail?", abort=True)
        found = slot.advance(source, name, lsn)
        click.echo(f"slot {name} stands at {format_lsn(found.confirmed_flush_lsn)}")
        _record_gap(config, audit, last, cluster, found, reason, "slot advance")


def _record_gap(
    config: Config,
    audit: Connection,
    last: Block | None,
    cluster: facts.Cluster,
    found: slot.SlotInfo,
    reason: str,
    cause: str,
) -> None:
    """Write what the daemon would at its start with ``--accept-gap``: a turn of the timeline, and the gap."""
    if last is None:
        click.echo("the ledger is empty, so nothing is missing from it; it begins with: cdc-audit init")
        return
    failpoint.reached("slot-moved")
    signer = load_signer(config.ledger.signing_key_file)
    state = _state(config, cluster, found.confirmed_flush_lsn)
    blocks = resume(last, state, plugin=found.plugin, accept_gap=reason).blocks
    for block in blocks:
        written = ledger.append(
            audit,
            config.audit.audit_schema,
            block.kind,
            start_lsn=block.start_lsn,
            end_lsn=block.end_lsn,
            detail={**block.detail, "cause": cause, "plugin": found.plugin}
            if block.kind == "gap"
            else block.detail,
            timeline=cluster.timeline,
            signer=signer,
        )
        span = f"{format_lsn(block.start_lsn)} to {format_lsn(block.end_lsn)}"
        click.echo(f"ledger block {written.block}: {block.kind}, {span}")
    if not blocks:
        click.echo(f"the trail holds everything up to {format_lsn(last.end_lsn)}: no gap to record")


def _is_ahead(found: slot.SlotInfo, durable: int, plugin: str) -> bool:
    """Whether a recreation was cut short after its slot was made: only the record of the gap is wanting."""
    usable = found.is_here and not found.is_lost and found.plugin == plugin
    return usable and found.confirmed_flush_lsn > durable


def _state(config: Config, cluster: facts.Cluster, confirmed_flush_lsn: int) -> SourceState:
    return SourceState(
        cluster.system_identifier,
        cluster.timeline,
        cluster.history,
        config.source.slot,
        config.source.plugin,
        confirmed_flush_lsn,
    )


def _last_block(config: Config, audit: Connection) -> Block | None:
    """The chain's end, or None; refused now, not after the slot is changed, if the ledger is signed with another key."""
    last = ledger.last_block(audit, config.audit.audit_schema)
    if last is not None:
        begins_signing(last[0], load_signer(config.ledger.signing_key_file))
    return last[0] if last else None


def _source(config: Config) -> Connection:
    """As the daemon's role: what it needs anyway, and what it is allowed, is enough for all of this."""
    return connect(require_dsn(config.source.slot_dsn, "source"), side="source")


def _audit(config: Config) -> Connection:
    """As the daemon's role: it may append to the ledger, and nothing more is needed."""
    return connect(require_dsn(config.audit.dsn or config.audit.admin_dsn, "audit"), side="audit")


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise UsageError("--reason is empty: it is what an auditor will read beside the gap")


def _parse(target: str) -> int:
    try:
        return parse_lsn(target)
    except ValueError as error:
        raise UsageError(f"--to {target}: neither an LSN like 16/B374D848 nor now") from error


def _shown(info: slot.SlotInfo) -> dict[str, object]:
    """The slot's facts as they are printed: LSNs as PostgreSQL writes them."""
    shown = asdict(info)
    for key in ("confirmed_flush_lsn", "restart_lsn"):
        shown[key] = None if shown[key] is None else format_lsn(shown[key])
    return shown


def _text(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if key.endswith("_bytes") else str(value)
