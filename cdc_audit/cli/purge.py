"""``cdc-audit archive purge``: rows that were kept for as long as they must be go for good; the proof of all others stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click
import orjson
from psycopg import Connection

from cdc_audit import failpoint
from cdc_audit.cli.archive_plan import Planned, plan, plan_archived
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import SettingError
from cdc_audit.model.retention import Step, span_text
from cdc_audit.postgres import connect
from cdc_audit.seal import manifest
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger, purging, retirement
from cdc_audit.sink.signing import load_signer
from cdc_audit.trail import archive
from cdc_audit.trail.archive_store import Store, open_store
from cdc_audit.trail.archived import Archived, archived, manifest_of


class Purged(NamedTuple):
    """A month whose rows went: as which block of the ledger says, and what was deleted."""

    month: str
    rows: int
    block: int
    name: str


@click.command(
    "purge",
    epilog="Example: cdc-audit archive plan && cdc-audit archive purge --dry-run && cdc-audit archive purge",
)
@click.option(
    "--without-archive",
    is_flag=True,
    help="Months in the audit database, too, although nothing archives them.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what stays and why.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each month.")
@with_config
def command(config: Config, *, without_archive: bool, dry_run: bool, as_json: bool) -> None:
    """Delete the rows of months that ended longer ago than [retention] keep. Can't be undone.

    Of an archive the file of rows goes; its signed manifest, its blocks' headers and a signed note that the rows were purged stay,
    so archive verify goes on giving its verdict. Each purge is a block of the ledger, which comes first: killed at any moment, it
    is to be repeated. The personal values of these rows are erased in the same transaction.

    Months in the audit database are purged only with --without-archive, for who archives nothing: their partitions are dropped as
    archive run does. Headers stay in the ledger.

    What is under a legal hold stays. So does what Object Lock protects: that is never bypassed, and each month's last date is told.
    Run it by hand, or from a timer of its own: archive run never purges.

    Exit codes: 0 done (also if there was nothing), 1 an archive is not what the ledger says, or a hold came just now, 69 the audit
    database or the archive is away, 75 another run is at work, 77 not permitted or locked, 78 configuration or key.
    """
    signer = load_signer(config.ledger.signing_key_file)
    if signer is None and not dry_run:
        raise SettingError(
            "a purge is signed, but no key is given",
            remedy="let [ledger] signing_key_file name the ledger's key: cdc-audit key generate FILE",
        )
    schema = config.audit.audit_schema
    with (
        connect(require_dsn(config.audit.one_time_dsn, "audit"), side="audit") as audit,
        retirement.only_one(audit, schema),
    ):
        ledger.require_version(audit, schema)
        if signer is not None and not dry_run:
            _finish(audit, config, signer)
        seen = purging.newest_block(audit, schema)
        archives = list(plan_archived(audit, config))
        months = list(_counted(audit, config)) if without_archive else []
        _stays([*months, *(planned for _, planned in archives)], as_json)
        due: list[tuple[Archived | None, Planned]] = [
            *((one, planned) for one, planned in archives if planned.step is Step.PURGE),
            *((None, planned) for planned in months if planned.step is Step.PURGE),
        ]
        for one, planned in due:
            if signer is None or dry_run:
                _say(Purged(planned.month, planned.rows, 0, planned.name), as_json)
            elif one is not None:
                _say(_purge(audit, config, one, seen, signer), as_json)
            else:
                _say(_drop(audit, config, planned, signer), as_json)
    if not due and not as_json:
        click.echo(f"nothing to purge: keep is {span_text(config.retention.policy.keep)}")


def _counted(audit: Connection, config: Config) -> Iterator[Planned]:
    """Months in the audit database that are past ``keep`` and not empty."""
    for one in plan(audit, config, needs_archive=False):
        if one.step is not Step.KEEP:
            rows = retirement.rows_of(audit, config.audit.audit_schema, one.name)
            if rows:
                yield one._replace(rows=rows)


def _stays(planned: list[Planned], as_json: bool) -> None:
    """Say what would have gone, but for a hold or a lock."""
    for one in planned:
        if one.step in (Step.HELD, Step.LOCKED) and not as_json:
            click.echo(f"{one.month}: {one.rows:,} rows stay: {one.why}")


def _say(one: Purged, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(one._asdict()).decode())
    else:
        done = f"purged, ledger block {one.block}" if one.block else "would be purged"
        click.echo(f"{one.month}: {one.rows:,} rows {done}: {one.name}")


def _purge(audit: Connection, config: Config, one: Archived, seen: int, signer: Signer) -> Purged:
    store = open_store(config.retention.archive)
    file = manifest_of(store, one).rows_file.name
    wanted = purging.Purge(
        one.name, [(first, last) for first, last in one.ids], one.rows, one.manifest, one.sha256, one.archive, file,
        config.retention.policy.keep, seen,
    )  # fmt: skip
    block = purging.purge(audit, config.audit.audit_schema, wanted, signer)
    failpoint.reached("purge-recorded")
    _delete(store, one._replace(purged=block.block), block.written_at, signer)
    return Purged(one.name, one.rows, block.block, f"{one.archive}/{file}")


def _delete(store: Store, one: Archived, at: str, signer: Signer) -> None:
    """The note first, so that who finds the rows gone finds why; repeating it is safe."""
    said = manifest_of(store, one)
    file = said.rows_file.name
    note = manifest.Purge(said.schema, said.month, one.manifest, one.sha256, file, one.purged, at)
    archive.keep_text(store, manifest.note_name(said), manifest.write(note, signer))
    failpoint.reached("purge-noted")
    store.delete(file)
    failpoint.reached("purge-deleted")


def _finish(audit: Connection, config: Config, signer: Signer) -> None:
    """Delete what purges left that were cut short after their block."""
    begun = [one for one in archived(audit, config.audit.audit_schema) if one.purged and one.manifest]
    if not begun:
        return
    store = open_store(config.retention.archive)
    names = set(store.names(f"{config.audit.audit_schema}/"))
    for one in begun:
        said = manifest_of(store, one)
        if said.rows_file.name in names or manifest.note_name(said) not in names:
            _delete(store, one, str(one.purged_at), signer)


def _drop(audit: Connection, config: Config, planned: Planned, signer: Signer) -> Purged:
    policy = config.retention.policy
    going = retirement.without_archive(planned.name, planned.month, policy)
    block = retirement.retire(audit, config.audit.audit_schema, going, signer)
    rows = orjson.loads(block.detail)["rows"]
    return Purged(planned.month, rows, block.block, planned.name)
