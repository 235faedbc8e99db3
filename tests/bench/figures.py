"""What a measurement gives, as text and as JSON. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Series:
    """One figure: a value for each round."""

    label: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_text(self, width: int) -> str:
        """``label   median unit  (lowest to highest)``."""
        text = f"  {self.label:<{width}}  {_number(self.median):>10} {self.unit:<8}"
        if len(self.values) > 1:
            text += f"  ({_number(min(self.values))} to {_number(max(self.values))})"
        return text.rstrip()

    def as_dict(self) -> dict[str, Any]:
        bounds = {"median": self.median, "lowest": min(self.values), "highest": max(self.values)}
        return {"label": self.label, "unit": self.unit, **bounds, "values": self.values}


@dataclass(slots=True)
class Report:
    """A measurement's title, its series, and what a reader must know of them."""

    title: str
    series: list[Series] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, label: str, unit: str, values: Iterable[float]) -> None:
        """Append a series; one without values is left out."""
        if found := tuple(values):
            self.series.append(Series(label, unit, found))

    def as_text(self) -> str:
        width = max((len(one.label) for one in self.series), default=0)
        lines = [self.title, *(one.as_text(width) for one in self.series)]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "notes": self.notes,
            "series": [one.as_dict() for one in self.series],
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all values don't exceed (nearest rank)."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Round by round: only what was measured in turn may be compared."""
    return tuple(mine / other for mine, other in zip(ours, theirs, strict=True))


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
