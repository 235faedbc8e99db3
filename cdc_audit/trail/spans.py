"""The times of the trail's partitions, as the search for the newest rows takes them, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """From ``since`` (inclusive) to ``until`` (exclusive); None: without end on that side.

    ``partition``: the one in which it lies; "": the default one. ``is_over``: that has its look-up indexes.
    """

    since: datetime | None
    until: datetime | None
    is_over: bool
    partition: str = ""


def spans(partitions: Sequence[Span], since: datetime | None, until: datetime | None) -> Iterator[Span]:
    """All time from ``since`` to ``until`` cut where a partition begins or ends, newest first.

    Each lies in one of the partitions with bounds, or in none of them: then its rows are in the default partition.
    """
    at: dict[datetime | None, Span] = {one.since: one for one in partitions if one.since is not None}
    cuts = {bound for one in partitions for bound in (one.since, one.until) if bound is not None}
    lower = max((cut for cut in cuts if since is not None and cut <= since), default=None)
    inside = [cut for cut in cuts if (since is None or cut > since) and (until is None or cut < until)]
    for end, begin in pairwise([until, *sorted(inside, reverse=True), since]):
        one = at.get(begin if begin in cuts else lower)
        yield Span(begin, end, one is not None and one.is_over, one.partition if one else "")
