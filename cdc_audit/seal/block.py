r"""Blocks: the header's canonical line, its hash, and the chain.

A header's line is the ledger row as ``COPY ledger (block, ..., key_id) TO STDOUT`` prints it in UTC: all columns but block_hash and
signature, in the table's column order. ``block_hash`` is SHA-256(0x02 || line); ``prev_hash`` is the block_hash of block -
1, and 32 zero bytes in block 0. ``rows_root`` is the RFC 6962 root over the leaf hashes of the block's rows, in order of id.
"""

from __future__ import annotations

from hashlib import sha256

from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.seal.copy_text import bytea, escape, json_field, optional

NO_HASH = bytes(32)
EMPTY_ROOT = sha256().digest()


def header_line(block: Block) -> bytes:
    """The header's canonical text, without a line end."""
    return b"\t".join(
        [
            str(block.block).encode(),
            escape(block.kind.encode()),
            str(block.first_id).encode(),
            str(block.row_count).encode(),
            escape(block.system_identifier.encode()),
            str(block.timeline).encode(),
            escape(block.slot.encode()),
            format_lsn(block.start_lsn).encode(),
            format_lsn(block.end_lsn).encode(),
            optional(block.last_commit_at),
            escape(block.written_at.encode()),
            bytea(block.rows_root),
            bytea(block.prev_hash),
            json_field(block.detail.encode()) if block.detail else b"\\N",
            optional(block.key_id),
        ]
    )


def block_hash(block: Block) -> bytes:
    """The hash that the next block's ``prev_hash`` repeats."""
    return sha256(b"\2" + header_line(block)).digest()
