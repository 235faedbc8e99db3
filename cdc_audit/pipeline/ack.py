"""What may be acknowledged to the source. Pure.

Only the ``end_lsn`` of a block whose COMMIT returned. A position at which nothing happened is first written as a heartbeat block
and then acknowledged like any other, so the slot is never ahead of the ledger.
"""

from __future__ import annotations

# An idle ledger still says once an hour that nothing happened.
LONGEST_SILENCE = 3600.0


def idle_position(*, committed_lsn: int, wal_end: int, in_transaction: bool) -> int:
    """Through where everything that the source has to tell has been received: the last commit's end, or, outside of a
    transaction, the server's own word for what it has sent.
    """
    return committed_lsn if in_transaction else max(committed_lsn, wal_end)


def is_heartbeat_due(
    *, since_last_block: float, interval: float, ledger_lsn: int, idle_lsn: int, has_rows: bool
) -> bool:
    """Whether to write a block without rows: WAL moved and the interval is over, or an hour is. Durations in seconds."""
    if has_rows:
        return False
    moved = idle_lsn > ledger_lsn
    return since_last_block >= (interval if moved else max(LONGEST_SILENCE, interval))
