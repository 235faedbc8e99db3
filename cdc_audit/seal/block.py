r"""Blocks: the header's canonical line, its hash, and the chain.

A header's line is the ledger row as ``COPY ledger (block, ..., key_id) TO STDOUT`` prints it in UTC: all columns but block_hash and
signature, in the table's column order. ``block_hash`` is SHA-256(0x02 || line); ``prev_hash`` is the block_hash of block -
1, and 32 zero bytes in block 0. ``rows_root`` is the RFC 6962 root over the leaf hashes of the block's rows, in order of id.
``signature``: see ``cdc_audit.seal.signature``.
"""

from __future__ import annotations

from hashlib import sha256

from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.seal.copy_text import NULL, bytea, escape, json_field, optional, unescape

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
    return header_hash(header_line(block))


def header_hash(line: bytes) -> bytes:
    """The block_hash of a header's line."""
    return sha256(b"\2" + line).digest()


def parse_header(line: bytes) -> Block:
    """The block of a header's line. Raises ValueError for what isn't one."""
    fields = line.split(b"\t")
    if len(fields) != len(Block._fields):
        raise ValueError("not a header")
    nullable = {9, 13, 14}
    if any(value == NULL for number, value in enumerate(fields) if number not in nullable):
        raise ValueError("a header without a value")
    texts = ["" if value == NULL else unescape(value).decode() for value in fields]
    return Block(
        int(texts[0]),
        texts[1],
        int(texts[2]),
        int(texts[3]),
        texts[4],
        int(texts[5]),
        texts[6],
        parse_lsn(texts[7]),
        parse_lsn(texts[8]),
        texts[9],
        texts[10],
        _bytes(texts[11]),
        _bytes(texts[12]),
        texts[13],
        texts[14],
    )


def _bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError("not a bytea in hex format")
    return bytes.fromhex(text[2:])
