"""The times of the trail's partitions, as the search for the newest rows takes them, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """From ``since`` (inclusive) to ``until`` (exclusive); None: without end on that side.

    ``is_over``: it lies in a month that has its look-up indexes.
    """

    since: datetime | None
    until: datetime | None
    is_over: bool


def spans(partitions: Sequence[Span], since: datetime | None, until: datetime | None) -> Iterator[Span]:
    """All time from ``since`` to ``until`` cut where a partition begins or ends, newest first.

    Each lies in one of the partitions with bounds, or in none of them: then its rows are in the default partition.
    """
    over = {one.since for one in partitions if one.is_over}
    cuts = {bound for one in partitions for bound in (one.since, one.until) if bound is not None}
    lower = max((cut for cut in cuts if since is not None and cut <= since), default=None)
    inside = [cut for cut in cuts if (since is None or cut > since) and (until is None or cut < until)]
    for end, begin in pairwise([until, *sorted(inside, reverse=True), since]):
        yield Span(begin, end, (begin if begin in cuts else lower) in over)
