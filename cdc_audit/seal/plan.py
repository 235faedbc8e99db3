"""How the rows of one shape are written: everything about a line that does not depend on the row's values, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

import orjson

from cdc_audit.config import RedactRule
from cdc_audit.model.event import RowValues, Shape
from cdc_audit.seal.copy_text import NULL, array, array_element, escape, field, json_field, optional
from cdc_audit.seal.redact import REDACTED, mode_for

_Pick = Callable[[RowValues], tuple[bytes, ...]]


class Image(NamedTuple):
    """How a row image is made of its values: ``pick`` puts them into jsonb's key order, ``template`` takes them by ``%``.

    ``masked`` are the positions, among the shape's columns, of values that are replaced before.
    """

    template: bytes
    pick: _Pick
    masked: tuple[int, ...]


class Plan(NamedTuple):
    """What all lines of one shape share, in the order of the line's fields.

    ``names`` is ``schema<tab>table``, ``tail`` is ``capture<tab>unchanged_toast<tab>partition``. ``changed`` are the
    columns' names as array elements where changed fields can be told (both images whole), else empty. ``record`` makes the
    record_id field of an
    image's values; ``record_in_old`` says of which.
    """

    action: str
    table: str
    names: bytes
    new: Image | None
    old: Image | None
    changed: tuple[bytes, ...]
    record: Callable[[RowValues], bytes]
    record_in_old: bool
    tail: bytes


def make_plan(shape: Shape, rules: Sequence[RedactRule]) -> Plan:
    """The plan of a shape."""
    names = escape(shape.schema.encode()) + b"\t" + escape(shape.table.encode())
    new = _image(shape, shape.new_columns, rules) if shape.action != "DELETE" else None
    old = _image(shape, shape.old_columns, rules) if shape.old_columns else None
    can_compare = shape.action == "UPDATE" and shape.old_is_full and shape.new_columns == shape.old_columns
    in_old = bool(set(shape.key) & set(shape.old_columns))
    columns, image = (shape.old_columns, old) if in_old else (shape.new_columns, new)
    capture = b"full" if shape.action == "INSERT" or shape.old_is_full else b"partial"
    if shape.is_lossy:
        capture = b"lossy"
    toast = array(shape.unchanged_toast) if shape.unchanged_toast else NULL
    return Plan(
        shape.action,
        f"{shape.schema}.{shape.table}",
        names,
        new,
        old,
        tuple(map(array_element, shape.new_columns)) if can_compare else (),
        _record(columns, shape.key, image.masked if image else ()),
        in_old,
        b"\t".join([capture, toast, optional(shape.partition)]),
    )


def _image(shape: Shape, columns: tuple[str, ...], rules: Sequence[RedactRule]) -> Image:
    modes = [mode_for(rules, shape.schema, shape.table, column) for column in columns]
    kept = [(column.encode(), i) for i, column in enumerate(columns) if modes[i] != "drop"]
    kept.sort(key=lambda item: (len(item[0]), item[0]))  # jsonb's order of keys: by length, then by bytes
    keys = [orjson.dumps(key.decode()).replace(b"%", b"%%") for key, _ in kept]
    template = b"{" + b", ".join(key + b": %b" for key in keys) + b"}"
    masked = tuple(i for i, mode in enumerate(modes) if mode == "mask")
    return Image(template, _picker([i for _, i in kept]), masked)


def _picker(positions: list[int]) -> _Pick:
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        only = positions[0]
        return lambda values: (values[only],)
    return itemgetter(*positions)


def _record(
    columns: tuple[str, ...], key: tuple[str, ...], masked: tuple[int, ...]
) -> Callable[[RowValues], bytes]:
    """The record_id field: the key's text, or for a composite key a JSON array of texts in column order."""
    positions = [columns.index(column) for column in key if column in columns]
    if not positions or len(positions) != len(key):
        return lambda _: NULL

    def value(values: RowValues, position: int) -> bytes:
        return REDACTED if position in masked else values[position]

    if len(positions) == 1:
        only = positions[0]
        if only in masked:
            return lambda _: REDACTED[1:-1]
        return lambda values: _as_text(values[only])
    return lambda values: json_field(b"[" + b", ".join([_quoted(value(values, i)) for i in positions]) + b"]")


def _as_text(token: bytes) -> bytes:
    """A JSON value's text, as a COPY field: a string without its quotes, anything else as it is."""
    if token[:1] != b'"':
        return json_field(token) if token != b"null" else NULL
    return token[1:-1] if b"\\" not in token else field(orjson.loads(token))


def _quoted(token: bytes) -> bytes:
    """A JSON value as a JSON string of its text."""
    return token if token[:1] == b'"' or token == b"null" else orjson.dumps(token.decode())
