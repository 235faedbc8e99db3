"""How the rows of one shape are written: everything about a line that does not depend on the row's values, computed once."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Literal, NamedTuple

import orjson

from cdc_audit.model.event import RowValues, Shape
from cdc_audit.seal.copy_text import NULL, array, array_element, escape, field, json_field, optional
from cdc_audit.seal.personal import Openings
from cdc_audit.seal.redact import Redaction, Rewrite

_Pick = Callable[[RowValues], tuple[bytes, ...]]


class Image(NamedTuple):
    """How a row image is made of its values: ``pick`` puts them into jsonb's key order, ``template`` takes them by ``%``.

    ``rewrites`` are the positions, among the image's columns, of values that redaction changes before, each with how.
    ``pieces`` say the same as template and pick: what stands before each value in its field, and the value's position.
    """

    template: bytes
    pick: _Pick
    rewrites: tuple[tuple[int, Rewrite], ...]
    pieces: tuple[tuple[bytes, int], ...]


class Plan(NamedTuple):
    """What all lines of one shape share, in the order of the line's fields.

    ``names`` is ``schema<tab>table``, ``tail`` is ``capture<tab>unchanged_toast<tab>partition``. ``changed`` are the
    columns' names as array elements where changed fields can be told (both images whole), else empty. ``record`` makes the
    record_id field of an image's values, already rewritten; ``record_in_old`` says of which, and ``record_at`` where among them
    a key of one column stands: -1 without a key, None of more columns. ``is_personal`` says that values are personal: rows have
    openings.
    """

    action: str
    action_field: bytes
    table: str
    names: bytes
    new: Image | None
    old: Image | None
    changed: tuple[bytes, ...]
    record: Callable[[RowValues], bytes]
    record_at: int | None
    record_in_old: bool
    tail: bytes
    is_personal: bool


def make_plan(shape: Shape, redaction: Redaction, openings: Openings) -> Plan:
    """The plan of a shape. Personal values' openings go into ``openings``."""
    names = escape(shape.schema.encode()) + b"\t" + escape(shape.table.encode())
    new = _image(shape, "new_data", redaction, openings) if shape.action != "DELETE" else None
    old = _image(shape, "old_data", redaction, openings) if shape.old_columns else None
    can_compare = shape.action == "UPDATE" and shape.old_is_full and shape.new_columns == shape.old_columns
    in_old = bool(set(shape.key) & set(shape.old_columns))
    columns = shape.old_columns if in_old else shape.new_columns
    capture = b"full" if shape.action == "INSERT" or shape.old_is_full else b"partial"
    if shape.is_lossy:
        capture = b"lossy"
    if shape.action == "SNAPSHOT":
        capture = b"snapshot"
    toast = array(shape.unchanged_toast) if shape.unchanged_toast else NULL
    places = _key_places(columns, shape.key)
    modes = {redaction.mode_in(shape, column) for column in (*shape.new_columns, *shape.old_columns)}
    return Plan(
        shape.action,
        shape.action.encode(),
        f"{shape.schema}.{shape.table}",
        names,
        new,
        old,
        tuple(map(array_element, shape.new_columns)) if can_compare else (),
        _record(places),
        None if len(places) > 1 else places[0] if places else -1,
        in_old,
        b"\t".join([capture, toast, optional(shape.partition)]),
        "personal" in modes,
    )


def _image(
    shape: Shape, part: Literal["new_data", "old_data"], redaction: Redaction, openings: Openings
) -> Image:
    columns = shape.new_columns if part == "new_data" else shape.old_columns
    modes = [redaction.mode_in(shape, column) for column in columns]
    kept = [(column.encode(), i) for i, column in enumerate(columns) if modes[i] != "drop"]
    kept.sort(key=lambda item: (len(item[0]), item[0]))  # jsonb's order of keys: by length, then by bytes
    keys = [orjson.dumps(key.decode()).replace(b"%", b"%%") for key, _ in kept]
    template = b"{" + b", ".join(key + b": %b" for key in keys) + b"}"
    rewrites: list[tuple[int, Rewrite]] = []
    for i, column in enumerate(columns):
        rewrite = redaction.rewrite(shape, column)
        if rewrite is not None:
            rewrites.append((i, rewrite))
        if modes[i] == "personal":
            rewrites.append(
                (i, openings.committer(part, column))
            )  # last: secrets inside have no opening either
    starts = [b", " if number else b"{" for number in range(len(kept))]
    pieces = [
        (json_field(b"%b%b: " % (start, orjson.dumps(key.decode()))), i)
        for start, (key, i) in zip(starts, kept, strict=True)
    ]
    return Image(template, _picker([i for _, i in kept]), tuple(rewrites), tuple(pieces))


def _picker(positions: list[int]) -> _Pick:
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        only = positions[0]
        return lambda values: (values[only],)
    return itemgetter(*positions)


def _key_places(columns: tuple[str, ...], key: tuple[str, ...]) -> list[int]:
    """Where an image's columns have the key's, in column order; empty if they lack one."""
    positions = [columns.index(column) for column in key if column in columns]
    return positions if len(positions) == len(key) else []


def _record(positions: list[int]) -> Callable[[RowValues], bytes]:
    """The record_id field: the key's text, or for a composite key a JSON array of texts in column order."""
    if not positions:
        return lambda _: NULL
    if len(positions) == 1:
        only = positions[0]
        return lambda values: _as_text(values[only])
    return lambda values: json_field(b"[" + b", ".join([_quoted(values[i]) for i in positions]) + b"]")


def _as_text(token: bytes) -> bytes:
    """A JSON value's text, as a COPY field: a string without its quotes, anything else as it is."""
    if token[:1] != b'"':
        return json_field(token) if token != b"null" else NULL
    return token[1:-1] if b"\\" not in token else field(orjson.loads(token))


def _quoted(token: bytes) -> bytes:
    """A JSON value as a JSON string of its text."""
    return token if token[:1] == b'"' or token == b"null" else orjson.dumps(token.decode())
