"""What all wal2json lines with the same text around their values share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cdc_audit.model.event import Shape

VALUE = b',"value":'
Converter = Callable[[bytes], bytes]


class Form(NamedTuple):
    """How such a line is cut and read.

    A line cut at its values is the head and, for each value, the value and its tail: ``tails`` begins with an empty one for the
    head, and positions count from the head's, 0. ``fixed_length`` is the length of all that is neither head nor value.
    ``shape`` is None where the table is out of scope. ``converters`` are (position of the value, that of the same column's
    value in the old image or 0, converter). ``new`` and ``old`` are the images' positions. ``types`` are all values' types.
    ``never_null`` are the positions of values that may not be null: where one is, the plugin has lost a NaN or infinity.
    ``around`` is the text around the values.
    """

    tails: tuple[bytes, ...]
    fixed_length: int
    shape: Shape | None
    converters: tuple[tuple[int, int, Converter], ...]
    new: slice | list[int]
    old: slice
    types: frozenset[int]
    never_null: tuple[int, ...]
    table: tuple[str, str]
    around: bytes


def paired(
    converters: list[Converter | None], new: list[tuple[str, int]], old: list[tuple[str, int]]
) -> tuple[tuple[int, int, Converter], ...]:
    """``Form.converters``: a column of both images, with the same type in both, has one entry."""
    places = {column: i for i, column in enumerate(old, start=len(new) + 1)}
    paired = [
        (i, places.pop(column, 0), convert)
        for i, (column, convert) in enumerate(zip(new, converters, strict=False), start=1)
        if convert is not None
    ]
    alone = [
        (places[column], 0, convert)
        for column, convert in zip(old, converters[len(new) :], strict=True)
        if convert is not None and column in places
    ]
    return (*paired, *alone)
