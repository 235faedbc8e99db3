"""What came of a chaos run: as text, as JSON, and whether the promise held. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.plan import WEIGHTS
from tests.support.comparison import Difference

COUNTS = ("lost", "duplicated", "wrong", "reordered", "misattributed")
_SLOWEST = 5  # that are told
RETAINED_LIMIT = 32 * 1024 * 1024  # bytes of WAL that the source may keep for the slot
DRAIN = 60.0  # seconds within which it must be under the limit again
_RECOVERY_LIMIT = 5.0  # seconds from a fault's end, for 95 of 100 faults
_SLOPE_LIMIT = 1.0  # MB of memory an hour
_LONG = 290.0  # seconds of a run from which on its speed counts: shorter ones go on beside other tests
PART = 100.0  # seconds of each of ``memory_floors``: long enough that one of them has little to do
_WARM_UP = 3  # of these
_ENOUGH = 9  # of these must follow


@dataclass(slots=True)
class Retention:
    """The WAL that the source keeps for the slot: ``note`` what it is now and then."""

    last: int = 0  # bytes
    most: int = 0  # bytes
    longest: float = 0.0  # seconds at a time over the limit
    _over_since: float | None = None

    @property
    def is_under(self) -> bool:
        return self._over_since is None

    def note(self, now: float, size: int | None) -> None:
        """``size`` in bytes, None while the source can't be asked; ``now`` in seconds."""
        self.last = self.last if size is None else size
        self.most = max(self.most, self.last)
        if self.last < RETAINED_LIMIT:
            self._over_since = None
        else:
            self._over_since = now if self._over_since is None else self._over_since
            self.longest = max(self.longest, now - self._over_since)


@dataclass(slots=True)
class Report:
    """Filled while it runs. ``problems`` are sentences about what must not be; any of them fails the run."""

    seed: int
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0  # under load
    transactions: int = 0
    changes: int = 0
    done: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    unseen: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    is_verified: bool = False
    verified: str = ""
    recoveries: list[tuple[str, float]] = field(default_factory=list)  # fault and seconds
    noticed: list[float] = field(default_factory=list)  # seconds until a half-open connection was given up
    peak_memory: float = 0.0  # MB
    memory_floors: list[float] = field(default_factory=list)  # MB, the least in each ``PART``
    retention: Retention = field(default_factory=Retention)
    problems: list[str] = field(default_factory=list)

    def add(self, difference: Difference) -> None:
        """What the oracle says about a part of the run."""
        for name in COUNTS:
            self.counts[name] += getattr(difference, name)
        self.changes += difference.rows
        if not difference.is_none:
            self.examples += [f"{kind}: {one}" for kind, some in difference.examples.items() for one in some]

    @property
    def memory_slope(self) -> tuple[float, float] | None:
        """MB an hour, by least squares through the floors after the warm-up, and its standard error; None for too few, and for
        a run with kills.

        There processes live for seconds, and at the same age they differ by 20 MB, as the backlog was after the fault that they
        began with: such a line is up to 10 MB an hour steep by chance, either way, and says nothing about one process. Of one
        process the floors differ by a tenth of a MB once it remembers all it may: half an hour tells a slope to that much an hour.
        """
        floors = self.memory_floors[_WARM_UP:]
        if len(floors) < _ENOUGH or "kill" not in self.left_out:
            return None
        hours = [number * PART / 3600 for number in range(len(floors))]
        slope, start = statistics.linear_regression(hours, floors)
        squares = sum((floor - start - slope * hour) ** 2 for hour, floor in zip(hours, floors, strict=True))
        spread = statistics.variance(hours) * (len(hours) - 1)
        return slope, math.sqrt(squares / (len(hours) - 2) / spread)

    @property
    def failures(self) -> list[str]:
        """Why the run failed; empty if the promise held."""
        different = [f"{self.counts[name]} {name}" for name in COUNTS if self.counts[name]]
        unverified = [] if self.is_verified else ["verify is not green"]
        is_kept = not self.retention.is_under or self.retention.longest > DRAIN
        kept = ["the source keeps too much WAL for the slot"] if is_kept else []
        return [*different, *unverified, *kept, *self._slow(), *self.problems]

    def _slow(self) -> Iterator[str]:
        recovery = _quantile([seconds for _, seconds in self.recoveries], 95)
        if self.seconds >= _LONG and recovery is not None and recovery > _RECOVERY_LIMIT:
            yield f"the trail takes {recovery} s to go on"
        if self.memory_slope is not None:
            slope, error = self.memory_slope
            if slope > _SLOPE_LIMIT:
                yield f"the daemon's memory grows by {slope:.1f} MB an hour (standard error {error:.1f})"

    def as_json(self) -> dict[str, Any]:
        """The same as ``as_text``, for programs."""
        seconds = [one for _, one in self.recoveries]
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "transactions": self.transactions,
            "transactions_per_second": round(self.transactions / max(self.seconds, 1), 1),
            "changes": self.changes,
            "faults": {kind: {"done": self.done[kind], "seen": self.seen[kind]} for kind in WEIGHTS},
            "left_out": list(self.left_out),
            "unseen": self.unseen,
            **{name: self.counts[name] for name in COUNTS},
            "examples": self.examples,
            "verify": "green" if self.is_verified else self.verified,
            "recovery_p50": _quantile(seconds, 50),
            "recovery_p95": _quantile(seconds, 95),
            "recovery_max": round(max(seconds, default=0.0), 2),
            "slowest_recoveries": [
                [fault, round(seconds, 1)]
                for fault, seconds in sorted(self.recoveries, key=lambda one: -one[1])[:_SLOWEST]
            ],
            "half_open_noticed_max": round(max(self.noticed, default=0.0), 1),
            "memory_peak_mb": round(self.peak_memory, 1),
            "memory_floors_mb": [round(one, 1) for one in self.memory_floors],
            "memory_slope_mb_per_hour": None if self.memory_slope is None else round(self.memory_slope[0], 2),
            "memory_slope_error": None if self.memory_slope is None else round(self.memory_slope[1], 2),
            "retained_bytes_most": self.retention.most,
            "retained_bytes_at_end": self.retention.last,
            "longest_over_limit": round(self.retention.longest, 1),
            "failures": self.failures,
        }

    def as_text(self) -> str:
        """The report that people read."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        facts = self.as_json()
        yield f"chaos, seed {self.seed}: {self.seconds:.0f} s under load"
        rate = f"{facts['transactions_per_second']} a second"
        yield f"  {self.transactions:,} transactions ({rate}), {self.changes:,} changes"
        yield f"  {'fault':14}{'done':>6}{'seen':>6}"
        for kind in WEIGHTS:
            missing = "  (left out)" if kind in self.left_out else ""
            yield f"  {kind:14}{self.done[kind]:6}{self.seen[kind]:6}{missing}"
        yield f"  {'all':14}{self.done.total():6}{self.seen.total():6}"
        if self.unseen:
            yield f"  not seen: {'; '.join(self.unseen)}"
        yield "  " + "  ".join(f"{name} {self.counts[name]}" for name in COUNTS)
        yield from (f"    {example}" for example in self.examples)
        yield f"  verify: {'green' if self.is_verified else self.verified}"
        recovery = (
            f"p50 {facts['recovery_p50']} s, p95 {facts['recovery_p95']} s, longest {facts['recovery_max']} s"
        )
        yield f"  from a fault's end until the trail holds what came after it: {recovery}"
        slowest = (f"{seconds} s after {fault}" for fault, seconds in facts["slowest_recoveries"])
        yield f"    {'; '.join(slowest)}"
        if self.noticed:
            yield f"  half-open connections: {len(self.noticed)} given up, after {max(self.noticed):.1f} s at most"
        slope = (
            "no daemon lives for long enough to tell a slope"
            if self.memory_slope is None
            else "{:+.1f} MB an hour after warm-up (standard error {:.1f})".format(*self.memory_slope)
        )
        floors = self.memory_floors or [0.0]
        least = f"the least of each {PART:.0f} s {min(floors):.1f} to {max(floors):.1f} MB"
        yield f"  the daemon's memory: {self.peak_memory:.0f} MB at most, {least}: {slope}"
        kept = (
            f"{self.retention.most / 2**20:.0f} MB at most, {self.retention.last / 2**20:.0f} MB at the end"
        )
        yield f"  WAL kept for the slot: {kept}, at most {self.retention.longest:.0f} s at a time over 32 MB"
        yield "  FAILED: " + "; ".join(self.failures) if self.failures else "  the promise held"


def _quantile(values: list[float], percent: int) -> float | None:
    if len(values) < 2:
        return round(values[0], 2) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)
