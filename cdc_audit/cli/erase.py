"""``cdc-audit erase``: takes a person's values out of the trail, and leaves the proof whole."""

from __future__ import annotations

import click
import orjson
from psycopg import Connection

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.postgres import connect
from cdc_audit.schema.migrate import quoted
from cdc_audit.seal.parquet import require_pyarrow
from cdc_audit.sink import erasure
from cdc_audit.sink.signing import load_signer
from cdc_audit.trail.archive_rows import rows_with
from cdc_audit.trail.archive_store import open_store
from cdc_audit.trail.archived import archived, manifest_of
from cdc_audit.trail.query import parse_table

_LONGEST_REASON = 1_000
_SHOWN_RANGES = 20


@click.command(
    epilog="Example: cdc-audit erase --table crm.customers --record 4711 --reason 'request 2026-118, GDPR 17'"
)
@click.option("--user", metavar="ID", help="The personal context values of all rows with this user_id.")
@click.option("--table", metavar="NAME", help="Table, or schema.table; with --record.")
@click.option("--record", metavar="ID", help="The personal values in this record's images; as in the log.")
@click.option(
    "--reason", metavar="TEXT", required=True, help="Why. Kept in the ledger for ever: name nobody in it."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_config
def command(
    config: Config,
    *,
    user: str | None,
    table: str | None,
    record: str | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Erase personal values (mode personal in [[redact.rules]], [redact] personal_context). Can't be undone.

    --user takes what is known of who acted: e-mail address, IP address, user agent. --table and --record take what the
    record's rows hold. Both may be given. Rows stay, with commitments in place of the values; verify goes on giving its
    verdict, and counts what was erased. The daemon may be running. Who erases, why and in which rows goes into the ledger;
    which user or record was asked for does not.

    Archives hold commitments only, so none is changed, whatever locks it; they are read, to find the rows in them that are meant.
    While they can't be read, nothing is erased.

    Old versions of the values leave the data files with: vacuum full <schema>.personal_values. Backups, replicas and WAL keep
    them as long as you keep those.

    Connects with [audit] admin_dsn and signs with [ledger] signing_key_file.

    Exit codes: 0 done (also if there was nothing), 2 usage, 69 the audit database is away, 75 the daemon was faster each time,
    77 not permitted, 78 configuration or key.
    """
    reason = reason.strip()
    if not reason or len(reason) > _LONGEST_REASON:
        raise UsageError(f"--reason must have 1 to {_LONGEST_REASON:,} characters")
    if (table is None) != (record is None) or (user is None and table is None):
        raise UsageError(
            "nothing to look for", remedy="give --user ID, or --table NAME with --record ID, or both"
        )
    signer = load_signer(config.ledger.signing_key_file)
    schema = config.audit.audit_schema
    with connect(require_dsn(config.audit.one_time_dsn, "audit"), side="audit") as audit:
        pieces: list[erasure.Piece] = []
        if user is not None:
            pieces += erasure.by_user(audit, schema, user, _archived(audit, config, {"user_id": user}))
        if table is not None and record is not None:
            schema_name, name = parse_table(table)
            wanted = {"table_name": name, "record_id": record}
            wanted |= {"schema_name": schema_name} if schema_name is not None else {}
            there = _archived(audit, config, wanted)
            pieces += erasure.by_record(audit, schema, schema_name, name, record, there)
        blocks: list[int] = []
        if pieces and not dry_run:
            blocks = erasure.erase(audit, schema, pieces, reason=reason, signer=signer)
    click.echo(_json(pieces, blocks, dry_run) if as_json else _text(pieces, blocks, dry_run, schema))


def _archived(audit: Connection, config: Config, wanted: dict[str, str]) -> list[erasure.ArchivedRow]:
    """The rows that are meant in archives, of months that have personal values left."""
    schema = config.audit.audit_schema
    found: list[erasure.ArchivedRow] = []
    for one in archived(audit, schema):
        if not one.purged and erasure.values_left(audit, schema, one.ids):
            require_pyarrow()
            store = open_store(config.retention.archive)
            rows = rows_with(store, manifest_of(store, one), wanted)
            found += (erasure.ArchivedRow(row_id, schema_name) for row_id, schema_name in rows)
    return found


def _json(pieces: list[erasure.Piece], blocks: list[int], dry_run: bool) -> str:
    shown = {
        "dry_run": dry_run,
        "values": sum(one.values for one in pieces),
        "pieces": [one._asdict() for one in pieces],
        "blocks": blocks,
    }
    return orjson.dumps(shown).decode()


def _text(pieces: list[erasure.Piece], blocks: list[int], dry_run: bool, schema: str) -> str:
    if not pieces:
        return "no personal values found"
    lines = []
    for number, one in enumerate(pieces):
        done = "would be erased" if dry_run else f"erased by block {blocks[number]}"
        lines.append(
            f"{one.values:,} values ({', '.join(one.parts)}) in {one.rows:,} rows {done}: {_ids(one.ids)}"
        )
    if not dry_run:
        lines.append(f"to take them out of the data files, too: vacuum full {quoted(schema)}.personal_values")
    return "\n".join(lines)


def _ids(ranges: list[tuple[int, int]]) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_SHOWN_RANGES]]
    more = len(ranges) - len(shown)
    return f"ids {', '.join(shown)}" + (f" and {more:,} more ranges" if more else "")
