"""When a block is closed, and how much is gathered before the next look at the stream. Pure."""

from __future__ import annotations

from cdc_audit.config import Batch

# Lines go to the audit database in pieces of this size; the server works on one while the next is being made.
CHUNK_BYTES = 65_536
# Bytes of messages that a look should find: looking costs as much as some kB of them, and a Unix socket holds about 80 kB. While it
# is full, the server waits.
_NEXT_TO_NOTHING = 16_384
_FEW = 40_960
_ALL_IT_HOLDS = 81_920
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


def nap(settings: Batch, *, size: int, last: float) -> float:
    """Seconds to let messages gather before the next look, after one that found ``size`` bytes when they had ``last`` seconds.

    They grow while looks find few and shrink while the server had to wait, so that there are none where it has more to send than
    is taken. A block gets older by a twentieth of flush_interval at most; at 0 there are no naps.
    """
    if size > _ALL_IT_HOLDS:
        wanted = last / 2
    elif size > _FEW:
        wanted = last
    else:
        wanted = max(2 * last, _SHORTEST_NAP if size < _NEXT_TO_NOTHING else 0.0)
    wanted = min(wanted, _LONGEST_NAP, settings.flush_interval / 20)
    return wanted if wanted >= _SHORTEST_NAP else 0.0
