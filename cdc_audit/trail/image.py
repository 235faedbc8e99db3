"""Row images as the raw JSON text of each column, so that every digit stays; and which columns are the key. Pure.

The trail holds a record's key as text (``record_id``), not the names of its columns. They are found by comparing: a column is the
key's if it has the key's text in every image at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from cdc_audit.trail.query import LogRow

Image = dict[str, str]

_DECODER = json.JSONDecoder()


def members(text: str | None) -> Image:
    """Column -> raw JSON of a jsonb object as PostgreSQL prints it (``{"a": 1, "b": null}``); of anything else nothing."""
    if text is None or not text.startswith('{"'):
        return {}
    image: Image = {}
    at = 1
    while text[at] == '"':
        name, start = _DECODER.raw_decode(text, at)
        start += 2  # the colon and a blank
        _, end = _DECODER.raw_decode(text, start)
        image[name] = text[start:end]
        if text[end] == "}":
            break
        at = end + 2
    return image


def printed(image: Image) -> str:
    """The image as one JSON object."""
    return (
        "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {raw}" for name, raw in image.items()) + "}"
    )


def printable(text: str) -> str:
    """JSON with every character that a terminal would not print as itself written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else json.dumps(char)[1:-1].replace("\x7f", "\\u007f") for char in text
    )


class Keys:
    """What a table's key columns are, by the rows given. Where several columns may be meant, all of them have to change before a
    key is taken for changed: then a change of key may be missed, but none is made up.
    """

    def __init__(self, rows: Iterable[LogRow]) -> None:
        seen = [
            (row.record_id, members(row.old_data if row.old_data is not None else row.new_data))
            for row in rows
            if row.record_id is not None
        ]
        self._is_composite = False
        self._columns = _matching([((key,), image) for key, image in seen])
        if not all(self._columns):
            parts = [(_parts(key), image) for key, image in seen]
            if parts and all(part is not None and len(part) > 1 for part, _ in parts):
                self._is_composite = True
                self._columns = _matching([(part, image) for part, image in parts if part])

    def after(self, row: LogRow) -> str | None:
        """The record's key after an UPDATE."""
        changed = set(row.changed_fields or ())
        if row.record_id is None or not changed:
            return row.record_id
        old: Sequence[str] | None = (row.record_id,)
        if self._is_composite:
            old = _parts(row.record_id)
        if old is None or len(old) != len(self._columns):
            return row.record_id
        new = members(row.new_data)
        key = [
            _text(new.get(min(columns))) if columns and columns <= changed else before
            for columns, before in zip(self._columns, old, strict=True)
        ]
        if None in key:
            return row.record_id
        return json.dumps(key, ensure_ascii=False) if self._is_composite else key[0]

    def columns_of(self, record: str) -> tuple[tuple[str, str], ...] | None:
        """(column, text) of each part of a key; None if the columns aren't known."""
        parts = _parts(record) if self._is_composite else [record]
        if parts is None or len(parts) != len(self._columns) or not all(self._columns):
            return None
        return tuple((min(columns), part) for columns, part in zip(self._columns, parts, strict=True))


def _matching(rows: Sequence[tuple[Sequence[str], Image]]) -> list[set[str]]:
    """For each part of the key the columns that have its text wherever they are."""
    parts = max((len(key) for key, _ in rows), default=1)
    fits: list[set[str]] = [set() for _ in range(parts)]
    differs: list[set[str]] = [set() for _ in range(parts)]
    for key, image in rows:
        texts = {name: _text(raw) for name, raw in image.items()}
        for place, part in enumerate(key):
            for name, text in texts.items():
                (fits if text == part else differs)[place].add(name)
    return [fit - differ for fit, differ in zip(fits, differs, strict=True)]


def _parts(key: str) -> list[str] | None:
    if not key.startswith("["):
        return None
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        return None
    return parts if all(isinstance(part, str) for part in parts) else None


def _text(raw: str | None) -> str | None:
    """The text of a raw JSON value, as ``->>`` gives it; None for null and what has parts."""
    if raw is None or raw == "null" or raw.startswith(("{", "[")):
        return None
    return str(json.loads(raw)) if raw.startswith('"') else raw
