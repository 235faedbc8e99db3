"""Is the daemon alive, is it ready? Pure functions on a frozen state that ``ops.watch`` replaces.

All times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

LIVE_SECONDS = 60.0
STALLED_SECONDS = 300.0  # writing one transaction of 10,000,000 rows takes two minutes, and that is progress


@dataclass(frozen=True, slots=True)
class State:
    """The pipeline's state, and when it last showed a sign of life or of progress.

    ``name`` and ``reason`` as in ``Observer.state``. ``progressed_at``: when a block last became durable or
    the slot had nothing left to read. ``stalled_after``: so many seconds without progress aren't ready.
    """

    name: str
    reason: str | None
    ticked_at: float
    progressed_at: float
    lag_bytes: int = 0
    stalled_after: float = STALLED_SECONDS


def not_ready(state: State, now: float) -> str | None:
    """Why the trail isn't being written at this moment, or None if it is."""
    if state.name != "streaming":
        return f"{state.name}: {state.reason}" if state.reason else state.name
    stuck = not_live(state, now)
    if stuck:
        return stuck
    idle = now - state.progressed_at
    if state.lag_bytes > 0 and idle > state.stalled_after:
        return f"not progressing: no block for {idle:.0f} s, {state.lag_bytes} bytes behind"
    return None


def not_live(state: State, now: float) -> str | None:
    """Why the process should be restarted, or None. The databases' state never is a reason."""
    silent = now - state.ticked_at
    return f"the loop has not gone round for {silent:.0f} s" if silent > LIVE_SECONDS else None
