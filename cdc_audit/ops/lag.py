"""How many seconds the trail is behind its source. Pure: the caller brings the clock and the positions.

The commit time of the last durable block alone would mislead: on a database where nobody has written since
yesterday, any WAL of a neighbour would look like a lag of a day. So each look at the source's insert position
is remembered with its time; once the durable position has passed it, everything committed before that time is
known to be durable.
"""

from __future__ import annotations

from collections import deque

_MOST_SAMPLES = 1024
_STALE_SECONDS = 10.0


class Lag:
    """Written by one thread; ``seconds`` may be read from any. Times are unix seconds."""

    def __init__(self, started_at: float) -> None:
        self._durable_lsn = 0
        self._complete_until = started_at
        self._behind = False
        self._looked_at = started_at
        self._samples: deque[tuple[float, int]] = deque()  # (seen at, insert position), both rising

    def saw_source(self, now: float, insert_lsn: int, confirmed_lsn: int) -> None:
        """The source wrote up to ``insert_lsn`` at ``now``, and up to ``confirmed_lsn`` was acknowledged."""
        if insert_lsn < self._durable_lsn or (self._samples and insert_lsn < self._samples[-1][1]):
            self._durable_lsn = 0  # another server, whose positions are behind the old one's
            self._samples.clear()
        self._behind = insert_lsn > confirmed_lsn
        self._looked_at = now
        self._samples.append((now, insert_lsn))
        if len(self._samples) > _MOST_SAMPLES:
            self._samples = deque(list(self._samples)[::2])  # stuck for hours: coarser steps do
        self.made_durable(confirmed_lsn, 0.0)

    def made_durable(self, lsn: int, committed_at: float) -> None:
        """Everything up to ``lsn`` is durable; its last commit was at ``committed_at`` (0: not known)."""
        self._durable_lsn = max(self._durable_lsn, lsn)
        self._complete_until = max(self._complete_until, committed_at)
        while self._samples and self._samples[0][1] <= self._durable_lsn:
            self._complete_until = max(self._complete_until, self._samples.popleft()[0])

    def seconds(self, now: float, is_streaming: bool = True) -> float:
        """0 when caught up, else how long ago the last moment is up to which nothing is missing.

        What was caught up, but isn't streaming or couldn't be seen since, may be behind by all that time.
        """
        if is_streaming and not self._behind and now - self._looked_at <= _STALE_SECONDS:
            return 0.0
        return max(0.0, now - self._complete_until)
