"""Inclusion proofs out of the trail: a row, its block's header, and the path between. ``cdc_audit.seal.proof`` checks them.

Of the block's other rows the hashes that stand beside them are enough to prove one row: no others lead to the root in its header.
A proof for others to keep is only made of a block all of whose rows still give their hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import islice

from psycopg import Connection

from cdc_audit.errors import CheckFailedError
from cdc_audit.model.ledger import Block
from cdc_audit.seal.proof import PathBuilder, Proof, root_of
from cdc_audit.trail.archived import archived
from cdc_audit.trail.verify import composed, headers, rows

_HASH_BYTES = 32
_BATCH = 1 << 16  # rows


def prove(connection: Connection, schema: str, row_id: int, *, of_whole_block: bool = True) -> Proof:
    """The proof for a row. Raises CheckFailedError if there is no such row, or if it does not fit its block.

    ``of_whole_block``: also if another row of its block was altered; that reads them all.
    """
    found = connection.execute(composed("block_of_row", schema), {"id": row_id}).fetchone()
    if found is None:
        raise CheckFailedError(f"no block holds row {row_id}")
    (header,) = headers(connection, schema, found[0], found[0])
    block = header.intact
    if block is None:
        raise CheckFailedError(f"block {header.number}: its header does not give its block_hash")
    lines = [bytes(row).rpartition(b"\t")[0] for row in rows(connection, schema, row_id, row_id + 1)]
    if not lines and (where := _archive_of(connection, schema, row_id)):
        raise CheckFailedError(
            f"row {row_id} is in an archive: {where}", remedy="cdc-audit archive restore brings it back"
        )
    index = row_id - block.first_id
    hashes = (_recomputed if of_whole_block else _stored)(connection, schema, block)
    path = _path(hashes, index, block.row_count)
    if path is None or len(lines) != 1 or _root(lines[0], index, block, path) != block.rows_root:
        raise CheckFailedError(
            f"block {block.block} is no longer what it was", remedy="see what is wrong: cdc-audit verify"
        )
    return Proof(lines[0].decode(), index, path, header.line.decode(), block.key_id, header.signature)


def _root(line: bytes, index: int, block: Block, path: tuple[bytes, ...]) -> bytes | None:
    return root_of(sha256(b"\0" + line).digest(), index, block.row_count, path)


def _path(hashes: Iterator[bytes], index: int, size: int) -> tuple[bytes, ...] | None:
    """The path between; None if these are not ``size`` hashes."""
    builder = PathBuilder(index, size)
    count = 0
    for together in hashes:
        if len(together) % _HASH_BYTES:
            return None
        leaves = [together[at : at + _HASH_BYTES] for at in range(0, len(together), _HASH_BYTES)]
        builder.extend(leaves)
        count += len(leaves)
    return builder.path() if count == size else None


def _recomputed(connection: Connection, schema: str, block: Block) -> Iterator[bytes]:
    """The hashes of a block's rows, in order of id, many in one piece."""
    found = rows(connection, schema, block.first_id, block.first_id + block.row_count)
    while together := b"".join(
        sha256(b"\0" + bytes(row).rpartition(b"\t")[0]).digest() for row in islice(found, _BATCH)
    ):
        yield together


def _stored(connection: Connection, schema: str, block: Block) -> Iterator[bytes]:
    """The hashes that stand beside them, likewise."""
    end = block.first_id + block.row_count
    statement = composed("row_hashes", schema)
    with connection.cursor(binary=True) as cursor:
        for first in range(block.first_id, end, _BATCH):
            values = {"first": first, "end": min(end, first + _BATCH)}
            found = cursor.execute(statement, values, prepare=False).fetchone()
            yield bytes(found[0]) if found and found[0] else b""


def _archive_of(connection: Connection, schema: str, row_id: int) -> str:
    """The manifest of the archive that holds a row, or ""."""
    found = (
        one for one in archived(connection, schema) if any(first <= row_id <= last for first, last in one.ids)
    )
    return next((one.manifest for one in found), "")
