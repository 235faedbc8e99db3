"""When a block is closed, and how much is gathered before the next look at the stream. Pure."""

from __future__ import annotations

from datetime import datetime

from cdc_audit.config import Batch

# Lines go to the audit database in pieces of this size; the server works on one while the next is being made.
CHUNK_BYTES = 65_536
# Bytes of messages that a look should find: looking costs as much as some kB of them, and a Unix socket holds about 80 kB.
_NEXT_TO_NOTHING = 16_384
_FEW = 40_960
_MANY = 81_920
# Seconds; who is further behind had better look.
_ABREAST = 0.25
_SHORTEST_NAP = 0.001
_LONGEST_NAP = 0.05


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


def seconds_behind(*, committed_at: str, sent_at: str) -> float:
    """How long after its commit something was sent, by the server's clock, as PostgreSQL prints it; 0 if a time isn't known."""
    try:
        return (datetime.fromisoformat(sent_at) - datetime.fromisoformat(committed_at)).total_seconds()
    except ValueError:
        return 0.0


def nap(settings: Batch, *, size: int, last: float, behind: float) -> float:
    """Seconds to let messages gather before the next look, after one that found ``size`` bytes when they had ``last`` seconds.

    They grow while looks find few and shrink while they find many, or if the last transaction was sent ``behind`` seconds after
    its commit: then the server has more to send, and waits for whoever naps. A block gets older by a twentieth of flush_interval
    at most; at 0 there are no naps.
    """
    if size > _MANY or behind > _ABREAST:
        wanted = last / 2
    elif size > _FEW:
        wanted = last
    else:
        wanted = max(2 * last, _SHORTEST_NAP if size < _NEXT_TO_NOTHING else 0.0)
    wanted = min(wanted, _LONGEST_NAP, settings.flush_interval / 20)
    return wanted if wanted >= _SHORTEST_NAP else 0.0
