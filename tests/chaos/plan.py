"""Which fault comes when: drawn from the seed alone, so that a seed repeats the same decisions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

# Per cent. A kind that can't be done here is left out, and the others share its part.
WEIGHTS = {
    "kill": 35,
    "audit crash": 15,
    "source crash": 10,
    "network": 20,
    "stop": 10,
    "full disk": 5,
    "duplicate": 5,
}
_SHORTEST, _LONGEST = 1.0, 4.0  # seconds between two faults

# Each kind's variants with their shares, and how many seconds each lasts (0: it is done at once).
_VARIANTS: dict[str, dict[str, tuple[int, float, float]]] = {
    "kill": {"sigkill": (1, 0, 0)},
    "audit crash": {"immediate": (1, 0, 0.5), "sigkill": (1, 0, 0.5)},
    "source crash": {"immediate": (1, 0, 0.5), "sigkill": (1, 0, 0.5)},
    "network": {
        "cut source": (6, 0, 0),
        "cut audit": (6, 0, 0),
        "stall source": (3, 1, 3),
        "stall audit": (3, 1, 3),
        "half-open source": (1, 0, 0),
        "half-open audit": (1, 0, 0),
    },
    "stop": {"short": (5, 1, 3), "past the walsender's patience": (1, 7, 8)},
    "full disk": {"under the ledger": (1, 0.5, 2)},
    "duplicate": {"standby": (1, 2, 6), "no standby": (1, 0, 0)},
}


class Fault(NamedTuple):
    """``at`` seconds after the start, for ``seconds``; ``number`` counts from 1."""

    number: int
    at: float
    kind: str
    variant: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.number}. {self.kind} ({self.variant})"


def plan(seed: int | str, seconds: float, *, without: Sequence[str] = ()) -> list[Fault]:
    """The faults of so many seconds, in order; the last ones are left time to be done. ``without`` names kinds."""
    random = Random(f"{seed}/faults")
    weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in without}
    faults: list[Fault] = []
    at = random.uniform(_SHORTEST, _LONGEST)
    while at < seconds - _LONGEST:
        (kind,) = random.choices(list(weights), list(weights.values()))
        variants = _VARIANTS[kind]
        (variant,) = random.choices(list(variants), [share for share, _, _ in variants.values()])
        _, shortest, longest = variants[variant]
        faults.append(Fault(len(faults) + 1, at, kind, variant, random.uniform(shortest, longest)))
        at += random.uniform(_SHORTEST, _LONGEST)
    return faults
