"""When a block is closed. Pure."""

from __future__ import annotations

from cdc_audit.config import Batch

# Lines go to the audit database in pieces of this size; the server works on one while the next is being made.
CHUNK_BYTES = 262_144


def is_full(settings: Batch, *, rows: int, size: int) -> bool:
    """Whether a block with this many rows and bytes is closed at the next commit, however young it is."""
    return rows >= settings.max_rows or size >= settings.max_bytes


def is_due(settings: Batch, *, rows: int, age: float, is_dry: bool, is_writer_idle: bool) -> bool:
    """Whether a block with rows is closed now. ``age`` is in seconds since its first transaction came in.

    At interval 0 the input running dry closes it; while the writer is busy with the last one, the next may as well grow.
    """
    if not rows:
        return False
    if settings.flush_interval == 0:
        return is_dry and is_writer_idle
    return age >= settings.flush_interval
