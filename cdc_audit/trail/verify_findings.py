"""What a verification finds: what kind of harm, and to which rows or blocks. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

_MOST = 1000  # findings that are kept apart; a trail that is harmed in more places is harmed enough


class Kind(StrEnum):
    """The kinds of harm. Each of them means that the trail isn't what the daemon wrote."""

    ALTERED = "altered"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT_OFF = "tail cut off"
    BROKEN = "chain broken"
    WRONG_KEY = "wrong key"
    UNSIGNED = "unsigned"


class Finding(NamedTuple):
    """One harm to rows (by id) or blocks ``first`` to ``last``, or to the trail as a whole. ``what`` says what was seen."""

    kind: Kind
    unit: Literal["row", "block", "trail"]
    first: int
    last: int
    what: str

    def __str__(self) -> str:
        if self.unit == "trail":
            return f"{self.kind}: {self.what}"
        numbers = f" {self.first}" if self.first == self.last else f"s {self.first}-{self.last}"
        return f"{self.kind}: {self.unit}{numbers}: {self.what}"


class Findings:
    """Collects; neighbours with the same harm become one finding."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._newest: dict[tuple[str, str, str], int] = {}
        self.uncounted = 0

    def __len__(self) -> int:
        return len(self._found)

    def add(
        self, kind: Kind, unit: Literal["row", "block", "trail"], first: int, last: int, what: str
    ) -> None:
        """One harm. Given in rising order of ``first`` for each kind."""
        key = kind, unit, what
        at = self._newest.get(key)
        if at is not None and self._found[at].first <= first <= self._found[at].last + 1:
            self._found[at] = self._found[at]._replace(last=max(last, self._found[at].last))
        elif len(self._found) < _MOST:
            self._newest[key] = len(self._found)
            self._found.append(Finding(kind, unit, first, last, what))
        else:
            self.uncounted += 1

    def extend(self, others: list[Finding]) -> None:
        """Harms found by somebody else, beyond those that are here."""
        for other in others:
            self.add(*other)

    def sorted(self) -> list[Finding]:
        """The trail, then blocks, then rows, each by number."""
        return sorted(
            self._found, key=lambda one: (("trail", "block", "row").index(one.unit), one.first, one.kind)
        )
