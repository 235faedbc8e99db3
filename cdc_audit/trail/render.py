"""Rows of the trail as text: a table for people, JSON lines and CSV for programs. Pure.

Data comes from anybody, so nothing in it can move a terminal's cursor, and nothing in it is a formula in a
spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

import orjson

from cdc_audit.trail.image import printable
from cdc_audit.trail.query import LogRow

_HEADINGS = ("time (UTC)", "user", "action", "table", "record", "notes", "what changed")
# The widest that a column gets, and how far it is narrowed so that a quarter is left for "what changed", which takes the rest.
# Where that is not enough, what changed gets less, and only then are names cut further. All fits into 80 columns with ten for the
# user and nine for the table.
_WIDEST = (19, 24, 10, 28, 18, 24)
_NARROW = (19, 10, 6, 9, 4, 4)
_NARROWEST = (19, 4, 6, 5, 4, 4)
_NOTES = _HEADINGS.index("notes")
_LEAST_CHANGES = 16
_GAP = "  "
_JSONB = ("old_data", "new_data", "context")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_MAX_CELL = 2_000
_DEEPEST = 6
_LONG_VALUE = 60


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def table(rows: Sequence[LogRow], width: int) -> Iterator[str]:
    """Lines of a table that is at most ``width`` columns wide (but not under 70), with a heading.

    What is cut ends in ``…``. Control characters and invisible characters are escaped. ``notes`` says how far
    the user can be believed unless that is signed, and what the row lacks; where there is nothing to say they are left out.
    """
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    places = [
        place for place in range(len(_WIDEST)) if place != _NOTES or any(row[place] for row in cells[1:])
    ]
    widths = _widths(cells, places, width)
    for row in cells:
        yield _line([*(row[place] for place in places), row[-1]], widths)


def stream(rows: Iterable[LogRow], width: int) -> Iterator[str]:
    """The same lines for rows that come one by one: every column is as wide as it may get."""
    widths = _widths([["x" * widest for widest in _WIDEST]], range(len(_WIDEST)), width)
    yield _line(_HEADINGS, widths)
    for row in rows:
        yield _line(_cells(row), widths)


def json_line(row: LogRow) -> str:
    """One row as a JSON object of all columns in table order; jsonb nests, with every digit. What a terminal would not print as
    itself is escaped, as JSON can.
    """
    fields = row._asdict()
    for name in _JSONB:
        if fields[name] is not None:
            fields[name] = orjson.Fragment(fields[name])
    return printable(orjson.dumps(fields).decode())


def csv_lines(rows: Iterable[LogRow]) -> Iterator[str]:
    """CSV (RFC 4180, lines end in LF) of all columns, with a heading; arrays are JSON, null is empty.

    A cell that a spreadsheet would run as a formula has a single quote before it.
    """
    yield csv_line(LogRow._fields)
    for row in rows:
        yield csv_line(tuple(csv_cell(value) for value in row))


def shown(text: str) -> str:
    """Text in which everything that isn't printed as itself is escaped: a terminal only ever prints it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def changes(row: LogRow) -> str:
    """What has changed, in one line: ``field: old → new`` of an UPDATE, the values of any other image."""
    if row.action == "UPDATE" and row.changed_fields is not None:
        return ", ".join(f"{name}: {' → '.join(_short(*pair))}" for name, *pair in differences(row))
    image = _image(row.new_data if row.new_data is not None else row.old_data)
    if isinstance(image, dict):
        return ", ".join(f"{name}: {_value(value)}" for name, value in image.items())
    return "" if image is None else _value(image)


def differences(row: LogRow) -> list[tuple[str, str, str]]:
    """Each changed field of an UPDATE with its old and new value; ``?`` where an image lacks it."""
    old, new = _image(row.old_data), _image(row.new_data)
    return [(name, _of(old, name), _of(new, name)) for name in row.changed_fields or ()]


def values(row: LogRow) -> list[tuple[str, str]]:
    """Each field of the image that a row is about, with its value: the new one, of a DELETE the old one."""
    image = _image(row.new_data if row.new_data is not None else row.old_data)
    return [(name, _value(value)) for name, value in image.items()] if isinstance(image, dict) else []


def actor(row: LogRow) -> str:
    """The user; of whom nobody named one, the database's user in parentheses, where that is known."""
    return row.user_id or row.user_email or (f"({row.db_user})" if row.db_user else "-")


def notes(row: LogRow) -> str:
    """How far the user can be believed, unless signed, and what the row lacks, unless it is full."""
    trust = "no context" if row.context_trust == "none" else row.context_trust
    return ", ".join([trust] * (row.context_trust != "signed") + [row.capture] * (row.capture != "full"))


def _cells(row: LogRow) -> tuple[str, ...]:
    name = f"{row.schema_name}.{row.table_name}" if row.schema_name not in {"", "public"} else row.table_name
    texts = (
        row.created_at[:19].replace("T", " "),
        actor(row),
        row.action,
        name,
        row.record_id if row.record_id is not None else "-",
        notes(row),
        changes(row),
    )
    return tuple(shown(text[:_MAX_CELL]) for text in texts)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(_fit(cell, room) for cell, room in zip(cells, widths, strict=True)).rstrip()


def _widths(rows: Sequence[Sequence[str]], places: Sequence[int], width: int) -> list[int]:
    """How wide these columns of the rows are, and the last one beside them."""
    widths = [min(max(columns(row[place]) for row in rows), _WIDEST[place]) for place in places]
    room = width - len(_GAP) * len(widths)
    for limits, least in ((_NARROW, width // 4), (_NARROW, _LEAST_CHANGES), (_NARROWEST, _LEAST_CHANGES)):
        while sum(widths) > room - max(least, _LEAST_CHANGES):
            spare = [have - limits[place] for have, place in zip(widths, places, strict=True)]
            most = max(range(len(widths)), key=spare.__getitem__)
            if spare[most] <= 0:
                break
            widths[most] -= 1
    return [*widths, max(_LEAST_CHANGES, room - sum(widths))]


def _fit(text: str, room: int) -> str:
    used = columns(text)
    if used <= room:
        return text + " " * (room - used)
    kept, used = [], 1
    for char in text:
        used += columns(char)
        if used > room:
            break
        kept.append(char)
    cut = "".join(kept) + "…"
    return cut + " " * (room - columns(cut))


def columns(text: str) -> int:
    """The terminal columns that printable text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _escape(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    code = ord(char)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _image(text: str | None) -> Any:
    """A row image with numbers as they are written. Too deep for a parser: its text, as one value."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except RecursionError:
        return _Number(text)


def _of(image: Any, name: str) -> str:
    return _value(image[name]) if isinstance(image, dict) and name in image else "?"


def _short(old: str, new: str) -> tuple[str, str]:
    """Both values, of long ones what is around the first difference."""
    if max(len(old), len(new)) <= _LONG_VALUE:
        return old, new
    same = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - _LONG_VALUE // 4)

    def part(text: str) -> str:
        end = start + _LONG_VALUE
        return "…" * (start > 0) + text[start:end] + "…" * (len(text) > end)

    return part(old), part(new)


def _value(value: Any, depth: int = 0) -> str:
    """A value on one line; strings without quotes, since the table isn't for programs."""
    if isinstance(value, str):
        return value[:_MAX_CELL]
    if isinstance(value, dict):
        if depth == _DEEPEST:
            return "{…}"
        return "{" + ", ".join(f"{key}: {_value(item, depth + 1)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return (
            "[…]" if depth == _DEEPEST else "[" + ", ".join(_value(item, depth + 1) for item in value) + "]"
        )
    return "null" if value is None else "true" if value else "false"


def csv_line(cells: Sequence[str]) -> str:
    """One line of CSV, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # it quotes only what its line terminator has
    return line.getvalue().removesuffix("\r\n")


def csv_cell(value: object) -> str:
    """The text of a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return "'" + text if text.startswith(_FORMULA_STARTS) else text
