"""``cdc-audit show``: one row in full."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

import click
import orjson

from cdc_audit.cli.reading import dsn_option, echo_json, open_trail, record_reading, terminal_width
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError
from cdc_audit.seal.proof import Proof
from cdc_audit.trail.query import Filters, one_row, read_log
from cdc_audit.trail.render import json_line, table
from cdc_audit.trail.render_record import full
from cdc_audit.trail.verify import reading
from cdc_audit.trail.verify_proof import prove


@click.command(epilog="Example: cdc-audit show 4711")
@click.argument("row_id", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="At most so many of the transaction's other rows.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: row, proof, transaction (ids).")
@dsn_option
@with_config
def command(config: Config, *, row_id: int, limit: int, as_json: bool, dsn: str | None) -> None:
    """One row in full, with the proof that it is what was written, and its transaction's other rows.

    The proof: the row gives its hash; with the hashes that stand beside the other rows of its block, that gives the block's
    root; the block's header gives its hash. That those rows give their hashes, that the chain of blocks is whole, and that it
    is signed by the right key, is for cdc-audit verify to say.

    Exit codes: 0 done, 1 the row is not what was written, 2 usage (no such row), 69 the audit database is away, 77 the role
    may not read, 78 configuration.
    """
    schema = config.audit.audit_schema
    with open_trail(config, dsn) as connection:
        row = one_row(connection, schema, row_id)
        at = datetime.fromisoformat(row.created_at)
        same = Filters(
            xid=row.xid,
            commit_lsn=row.commit_lsn,
            since=at,
            until=at + timedelta(microseconds=1),
            limit=limit + 1,
            oldest_first=True,
        )
        others = [other for other in read_log(connection, schema, same) if other.id != row_id][:limit]
        record_reading(config, connection, 1 + len(others))
    failure: CheckFailedError | None = None
    try:
        with reading(require_dsn(dsn or config.audit.one_time_dsn, "audit"), schema) as connection:
            proof = prove(connection, schema, row_id, of_whole_block=False)
    except CheckFailedError as error:
        failure, said = error, {"holds": False, "why": error.message}
    else:
        said = {"holds": True, **_header(proof)}
    if as_json:
        ids = [other.id for other in others]
        shown = {"row": orjson.Fragment(json_line(row)), "proof": said, "transaction": ids}
        echo_json(shown)
    else:
        click.echo("\n".join(full(row)))
        if failure is None:
            signed = f"signed by key {said['key_id']}" if said["key_id"] else "not signed"
            click.echo(f"\nproof: leaf {said['leaf']} is in the root of block {said['block']}, {signed}")
        if others:
            click.echo(f"\nothers of its transaction (xid {row.xid}):")
            click.echo("\n".join(table(others, terminal_width())))
    if failure is not None:
        raise failure


def _header(proof: Proof) -> dict[str, object]:
    number = int(proof.header.partition("\t")[0])
    return {"block": number, "leaf": sha256(b"\0" + proof.line.encode()).hexdigest(), "key_id": proof.key_id}
