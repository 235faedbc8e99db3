"""``cdc-audit archive``: old months into files that can be verified without any database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import orjson
from psycopg import Connection

from cdc_audit import failpoint, memory
from cdc_audit.cli.archive_plan import Planned, plan, plan_archived
from cdc_audit.cli.fetch import command as fetch_command
from cdc_audit.cli.key import read_public
from cdc_audit.cli.months import chosen, month_options, none_meant
from cdc_audit.cli.purge import command as purge_command
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import (
    CheckFailedError,
    IncompleteEvidenceError,
    SettingError,
    UnavailableError,
    UsageError,
)
from cdc_audit.model.retention import Step, due_at, span_text
from cdc_audit.postgres import connect
from cdc_audit.schema.drain import drain_default
from cdc_audit.seal.parquet import require_pyarrow
from cdc_audit.seal.signature import Signer, key_id
from cdc_audit.sink import ledger, retirement
from cdc_audit.sink.signing import load_signer
from cdc_audit.trail import archive
from cdc_audit.trail.archive_store import Store, open_store
from cdc_audit.trail.archive_verify import verify_archives
from cdc_audit.trail.archived import archived
from cdc_audit.trail.restore import restore

_FILE = click.Path(path_type=Path, dir_okay=False)
_json_lines = click.option("--json", "as_json", is_flag=True, help="A JSON object for each month.")


@click.group("archive")
def command() -> None:
    """Months older than [retention] hot become Parquet files with a signed manifest, and leave the audit database.

    Where archives are is said in [retention] archive: a folder (file:/mnt/elsewhere/archive) or a bucket (s3://bucket/prefix).
    Needs the extra: pip install 'cdc-audit[archive]'.

    plan, run, list, restore and purge connect with [audit] admin_dsn; run and purge sign with [ledger] signing_key_file. fetch
    and verify need no database.

    Exit codes: 0 done, 1 something is not what was written, 2 usage, 3 evidence is missing, 69 the audit database or the archive
    is away or too busy, 75 another run is at work, 77 not permitted, 78 configuration or key.

    Example: cdc-audit archive plan && cdc-audit archive run
    """
    memory.let_arrow_give_back()


@command.command("plan", epilog="Example: cdc-audit archive plan --json | jq .step")
@_json_lines
@with_config
def plan_command(config: Config, *, as_json: bool) -> None:
    """Say what run and purge would do with each month, and why. Changes nothing.

    archive: run would archive it and drop its partition. purge: purge would delete its archive's rows. held: it would be due, but
    has rows under a legal hold. locked: it would be purged, but Object Lock keeps it, and until when.
    """
    with _connection(config) as audit:
        months = [*(planned for _, planned in plan_archived(audit, config)), *plan(audit, config)]
    for one in months:
        if as_json:
            click.echo(orjson.dumps(one._asdict()).decode())
        else:
            size = f"{one.bytes:>15,} bytes" if one.bytes else " " * 21
            click.echo(
                f"{one.month}  {one.where:<8}  {one.rows:>12,} rows  {size}  {one.step:<8} {one.why}".rstrip()
            )
    if not as_json:
        policy = config.retention.policy
        click.echo(f"hot: {span_text(policy.hot)}, keep: {span_text(policy.keep)}")


@command.command("run", epilog="Example: cdc-audit archive run --months 1")
@click.option(
    "--months", "most", type=click.IntRange(min=1), help="So many months at most, the oldest first."
)
@_json_lines
@with_config
def run_command(config: Config, *, most: int | None, as_json: bool) -> None:
    """Archive each month that is due: write its files, read them back, compare each row and block with the ledger, write the signed
    manifest; then, in one transaction, drop its partition and append the retention block that says where its rows are.

    Can be killed at any moment and repeated: a month is here or, proven, in its archive. The daemon may be running; when a
    partition is dropped it waits for a moment. Rows in the default partition are moved to their months first. Months with rows
    under a legal hold stay. Of personal values an archive holds
    commitments only: what opens them stays in the audit database, where cdc-audit erase reaches it. Nothing is purged.
    """
    require_pyarrow()
    signer = load_signer(config.ledger.signing_key_file)
    if signer is None:
        raise SettingError(
            "an archive is signed, but no key is given",
            remedy="let [ledger] signing_key_file name the ledger's key: cdc-audit key generate FILE",
        )
    store = open_store(config.retention.archive)
    schema = config.audit.audit_schema
    with _connection(config) as audit, retirement.only_one(audit, schema):
        ledger.require_version(audit, schema)
        _drain(audit, schema)
        due = [one for one in plan(audit, config) if one.step is Step.ARCHIVE][:most]
        for one in due:
            _archive(audit, config, one, store, signer, as_json=as_json)
            memory.give_back()
    if not due and not as_json:
        click.echo("nothing to archive")


@command.command("list", epilog="Example: cdc-audit archive list")
@_json_lines
@with_config
def list_command(config: Config, *, as_json: bool) -> None:
    """Show which months are archived, as the ledger says, and through when they have to be kept."""
    keep = config.retention.policy.keep
    with _connection(config) as audit:
        found = archived(audit, config.audit.audit_schema)
    for one in found:
        until = due_at(one.month, keep)
        if as_json:
            click.echo(orjson.dumps(one._asdict() | {"kept_until": until}).decode())
            continue
        fate = f"purged {one.purged_at:%Y-%m-%d}" if one.purged else f"kept until {until:%Y-%m-%d}"
        where = f"{one.archive}/{one.manifest}" if one.manifest else "never archived"
        click.echo(f"{one.name}  {one.rows:>12,} rows  {fate}  {where}")
    if not found and not as_json:
        click.echo("nothing is archived")


@command.command(
    "verify",
    epilog="Example: cdc-audit archive verify --public-key signing.pem.pub --archive file:/mnt/archive",
)
@click.option("--public-key", "key_files", type=_FILE, multiple=True, help="A public key that you trust.")
@click.option(
    "--archive", "place", metavar="URL", help="Where the archives are, if not in [retention] archive."
)
@month_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_config
def verify_command(
    config: Config,
    *,
    key_files: Sequence[Path],
    place: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Verify all archives of a ledger, with no database: manifests, files, every row, every block, signatures.

    With --since or --until: of other months only manifests, as cdc-audit archive fetch brings them.

    Names what was altered or removed. That the newest archive was taken away, manifest and files, only the ledger can tell:
    cdc-audit verify --archive.
    """
    keys = {key_id(one): one for one in map(read_public, key_files)}
    is_meant = chosen(since, until)
    store = open_store(place or config.retention.archive)
    found = verify_archives(store, config.audit.audit_schema, keys, lambda said: is_meant(said.month))
    if found.others and not (found.archives or found.purged or found.harms):
        raise none_meant()
    rows = sum(one.rows for one in found.archives)
    code = 1 if found.harms else 3 if found.missing else 0
    if as_json:
        verdict = {0: "verified", 1: "tampered", 3: "incomplete evidence"}[code]
        shown = {
            "exit_code": code,
            "verdict": verdict,
            "archives": len(found.archives),
            "rows": rows,
            "purged": len(found.purged),
            "others": len(found.others),
            "findings": [one._asdict() for one in found.harms],
            "missing": found.missing,
        }
        click.echo(orjson.dumps(shown).decode())
    else:
        click.echo(
            f"{len(found.archives):,} archives with {rows:,} rows, checked with {len(keys)} public keys"
        )
        if found.purged:
            click.echo(f"{len(found.purged):,} archives were purged, their headers are here")
        if found.others:
            click.echo(f"{len(found.others):,} archives of other months: only their manifests")
        for line in map(str, found.harms):
            click.echo(line)
        if not found.harms:
            for line in [f"missing evidence: {reason}" for reason in found.missing] or ["verified"]:
                click.echo(line)
    if found.harms:
        raise CheckFailedError(f"archives are not what was written: {len(found.harms):,} findings")
    if found.missing:
        raise IncompleteEvidenceError(f"incomplete evidence: {found.missing[0]}")


@command.command(
    "restore", epilog="Example: cdc-audit archive restore --since 2024-01 --until 2024-03 --into restored"
)
@month_options
@click.option(
    "--into", default="restored", show_default=True, help="A schema of its own, made where it is missing."
)
@with_config
def restore_command(config: Config, *, since: str | None, until: str | None, into: str) -> None:
    """Bring archived months back as a table: audit_logs in a schema of its own, with the same columns and indexes.

    Each archive is verified as it comes in, against the manifest that the ledger names; a month is there whole or not at all, and
    once, however often this is repeated. The trail itself is not touched. To be rid of it: drop schema restored cascade.
    """
    require_pyarrow()
    is_meant = chosen(since, until)
    schema = config.audit.audit_schema
    if into == schema:
        raise UsageError("--into is the trail's own schema", remedy="name another one")
    store = open_store(config.retention.archive)
    with _connection(config) as audit:
        wanted = [one for one in archived(audit, schema) if is_meant(one.name)]
        for one in wanted:
            if one.purged:
                click.echo(f"{one.name}: purged, as block {one.purged} says", err=True)
                continue
            restore(audit, schema, into, store, one)
            click.echo(f"{one.name}: {one.rows:,} rows in {into}.audit_logs")
    if not wanted:
        raise none_meant()


def _drain(audit: Connection, schema: str) -> None:
    """Rows that missed their month's partition are archived with it. Where the trail is too busy for that, another run does it."""
    try:
        for moved in drain_default(audit, schema):
            click.echo(f"{moved.month}: {moved.rows:,} rows moved out of the default partition", err=True)
    except UnavailableError as error:
        click.echo(error.message, err=True)


def _archive(
    audit: Connection, config: Config, one: Planned, store: Store, signer: Signer, *, as_json: bool
) -> None:
    schema = config.audit.audit_schema
    before = [found.sha256 for found in archived(audit, schema) if found.manifest]
    source = archive.Source(schema, one.name, one.month)
    dsn = require_dsn(config.audit.one_time_dsn, "audit")
    made = archive.make(dsn, source, store, signer, before[-1] if before else "")
    if made is None:
        return
    said = made.manifest
    size = said.rows_file.bytes + said.blocks_file.bytes
    block = retirement.retire(
        audit,
        schema,
        retirement.Retirement(
            one.name,
            one.month,
            said.ids,
            said.rows,
            made.name,
            made.sha256,
            store.name,
            size,
            config.retention.policy,
        ),
        signer,
    )
    failpoint.reached("month-retired")
    if as_json:
        shown = {
            "month": one.month,
            "rows": said.rows,
            "bytes": size,
            "block": block.block,
            "manifest": made.name,
        }
        click.echo(orjson.dumps(shown).decode())
    else:
        click.echo(
            f"{one.month}: {said.rows:,} rows in {size:,} bytes of {store.name}, ledger block {block.block}"
        )


def _connection(config: Config) -> Connection:
    return connect(require_dsn(config.audit.one_time_dsn, "audit"), side="audit")


command.add_command(fetch_command)
command.add_command(purge_command)
