"""The ledger's blocks: what the audit database holds durably, and through which position of the source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple


class Block(NamedTuple):
    """One row of ``<schema>.ledger``, in column order but for ``block_hash`` and ``signature``, which follow from it.

    ``kind``: genesis, data, heartbeat, gap, divergence, poison, timeline, key, ... ``first_id`` is the id of the block's first
    row, or the next id to be given where the block has no rows. LSNs are integers. ``last_commit_at`` and ``written_at`` are
    as PostgreSQL prints timestamptz in UTC; ``last_commit_at`` is "" where no commit is known. ``detail`` is the text that
    jsonb prints, or "".
    """

    block: int
    kind: str
    first_id: int
    row_count: int
    system_identifier: str
    timeline: int
    slot: str
    start_lsn: int
    end_lsn: int
    last_commit_at: str
    written_at: str
    rows_root: bytes
    prev_hash: bytes
    detail: str
    key_id: str


class Receipt(NamedTuple):
    """What the sink has durably committed. Only the ``end_lsn`` of a receipt is ever acknowledged to the source."""

    block: Block
    block_hash: bytes
    write_seconds: float
    signature: bytes = b""


def timestamp(moment: datetime) -> str:
    """A time as PostgreSQL prints timestamptz in UTC: no trailing zeros in the fraction."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "+00"
