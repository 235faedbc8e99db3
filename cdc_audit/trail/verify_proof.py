"""Inclusion proofs out of the trail: a row, its block's header, and the path between. ``cdc_audit.seal.proof`` checks them."""

from __future__ import annotations

from hashlib import sha256

from psycopg import Connection

from cdc_audit.errors import CheckFailedError
from cdc_audit.seal.proof import PathBuilder, Proof, root_of
from cdc_audit.trail.archived import archived
from cdc_audit.trail.verify import composed, headers, rows


def prove(connection: Connection, schema: str, row_id: int) -> Proof:
    """The proof for a row. Raises CheckFailedError if there is no such row, or if it does not fit its block."""
    found = connection.execute(composed("block_of_row", schema), {"id": row_id}).fetchone()
    if found is None:
        raise CheckFailedError(f"no block holds row {row_id}")
    (header,) = headers(connection, schema, found[0], found[0])
    block = header.intact
    if block is None:
        raise CheckFailedError(f"block {header.number}: its header does not give its block_hash")
    builder = PathBuilder(row_id - block.first_id, block.row_count)
    line = b""
    count = 0
    for row in rows(connection, schema, block.first_id, block.first_id + block.row_count):
        one = bytes(row).rpartition(b"\t")[0]
        builder.add(sha256(b"\0" + one).digest())
        if one.startswith(b"%d\t" % row_id):
            line = one
        count += 1
    index, path = row_id - block.first_id, builder.path()
    root = root_of(sha256(b"\0" + line).digest(), index, block.row_count, path)
    if not count and (where := _archive_of(connection, schema, row_id)):
        raise CheckFailedError(
            f"row {row_id} is in an archive: {where}", remedy="cdc-audit archive restore brings it back"
        )
    if not line or count != block.row_count or root != block.rows_root:
        raise CheckFailedError(
            f"block {block.block} is no longer what it was", remedy="see what is wrong: cdc-audit verify"
        )
    return Proof(line.decode(), index, path, header.line.decode(), block.key_id, header.signature)


def _archive_of(connection: Connection, schema: str, row_id: int) -> str:
    """The manifest of the archive that holds a row, or ""."""
    found = (
        one for one in archived(connection, schema) if any(first <= row_id <= last for first, last in one.ids)
    )
    return next((one.manifest for one in found), "")
