"""At most one log line a minute for each kind of thing; what is held back is counted, not forgotten. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

INTERVAL_SECONDS = 60.0

_Key = TypeVar("_Key", bound=Hashable)


class Throttle(Generic[_Key]):
    """Counts by key. Times are monotonic seconds."""

    def __init__(self, interval: float = INTERVAL_SECONDS) -> None:
        self._interval = interval
        self._quiet_until: dict[_Key, float] = {}
        self._held: dict[_Key, int] = {}
        self._next_due = float("inf")

    def add(self, key: _Key, amount: int, now: float) -> int:
        """How many to report now, those held back before included; 0 while the key has to keep quiet."""
        amount += self._held.pop(key, 0)
        if now < self._quiet_until.get(key, now):
            self._held[key] = amount
            self._next_due = min(self._next_due, self._quiet_until[key])
            return 0
        self._quiet_until[key] = now + self._interval
        return amount

    def due(self, now: float) -> list[tuple[_Key, int]]:
        """What was held back and may be reported now; cheap enough for every turn of a loop."""
        if now < self._next_due:
            return []
        ready = [(key, count) for key, count in self._held.items() if self._quiet_until[key] <= now]
        for key, _ in ready:
            del self._held[key]
            self._quiet_until[key] = now + self._interval
        self._next_due = min((self._quiet_until[key] for key in self._held), default=float("inf"))
        return ready
