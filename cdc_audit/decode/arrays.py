"""PostgreSQL's text of arrays, vectors and composites into JSON text.

Elements and fields are converted by what is handed in. It reads what array_out, record_out and int2vectorout
print (manual: "Array Input and Output Syntax", "Composite Type Input and Output Syntax"), not all that their
input functions take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from orjson import JSONDecodeError, loads

from cdc_audit.decode.jsonb import ValueFormatError, string

TextConverter: TypeAlias = Callable[[str], bytes]

_MAX_DIMENSIONS = 6  # MAXDIM in c.h
_QUOTED = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_FIELD = re.compile(r'(?:"([^"\\]*+(?:(?:\\\\|"")[^"\\]*+)*+)"|([^"\\,()]*+))([,)])')
_PLAIN_NUMBERS = b"0123456789-.,{}NUL"
_BRACKETS = bytes.maketrans(b"{}", b"[]")


def array(element: TextConverter, delimiter: str = ",") -> TextConverter:
    """A converter of array text; bounds are dropped, as to_jsonb does."""
    mark = re.escape(delimiter)
    item = rf'"{_QUOTED}"|[^"\\{{}}{mark}]++'
    flat = re.compile(rf"\{{(?:{item})(?:{mark}(?:{item}))*+\}}", re.DOTALL)
    items = re.compile(rf'"({_QUOTED})"|([^"\\{{}}{mark}]++)', re.DOTALL)
    pieces = re.compile(rf'"({_QUOTED})"|([^"\\{{}}{mark}]++)|([{{}}{mark}])', re.DOTALL)

    def convert(text: str) -> bytes:
        if text[:1] == "[":
            text = text.partition("=")[2]
        if flat.fullmatch(text) is None:
            return b"[]" if text == "{}" else _nested(text, element, pieces)
        tokens = [_element(quoted, bare, element) for quoted, bare in items.findall(text, 1, len(text) - 1)]
        return b"[" + b", ".join(tokens) + b"]"

    return convert


def number_array(element: TextConverter) -> TextConverter:
    """``array`` for numbers: the usual ones need no look at each element."""
    any_array = array(element)

    def convert(text: str) -> bytes:
        raw = text.encode("ascii", "replace")
        if raw[:1] == b"{" and b"-0" not in raw and not raw.translate(None, _PLAIN_NUMBERS):
            token = raw.translate(_BRACKETS).replace(b",", b", ").replace(b"NULL", b"null")
            try:
                loads(token)
            except JSONDecodeError:  # malformed, NaN, or more digits than a double takes
                return any_array(text)
            return token
        return any_array(text)

    return convert


def vector(element: TextConverter) -> TextConverter:
    """A converter of int2vector and oidvector text: elements between single spaces, no nulls."""

    def convert(text: str) -> bytes:
        return b"[" + b", ".join(map(element, text.split())) + b"]"

    return convert


def composite(fields: Sequence[tuple[str, TextConverter]]) -> TextConverter:
    """A converter of composite text; ``fields`` are (name, converter) in column order."""
    converters = [converter for _, converter in fields]
    names = [string(name) for name, _ in fields]
    # jsonb's order of keys, by the bytes of the names themselves
    order = sorted(range(len(fields)), key=lambda i: (len(fields[i][0].encode()), fields[i][0]))
    prefixes = [(names[i] + b": ", i) for i in order]

    def convert(text: str) -> bytes:
        values = _field_values(text) if fields else []
        if len(values) != len(converters):
            raise ValueFormatError("a composite value has more or fewer fields than its type")
        tokens = [
            b"null" if value is None else converter(value)
            for converter, value in zip(converters, values, strict=True)
        ]
        return b"{" + b", ".join([prefix + tokens[i] for prefix, i in prefixes]) + b"}"

    return convert


def _field_values(text: str) -> list[str | None]:
    if text[:1] != "(":
        raise ValueFormatError("malformed composite text")
    if '"' not in text and text.find(")") == len(text) - 1 and "\\" not in text and text.find("(", 1) < 0:
        return [item or None for item in text[1:-1].split(",")]
    values: list[str | None] = []
    at, last = 1, ","
    while last == ",":
        match = _FIELD.match(text, at)
        if match is None:
            raise ValueFormatError("malformed composite text")
        quoted, bare, last = match.groups()
        # both are doubled independently of each other
        values.append((bare or None) if quoted is None else quoted.replace('""', '"').replace("\\\\", "\\"))
        at = match.end()
    if at != len(text):
        raise ValueFormatError("malformed composite text")
    return values


def _nested(text: str, element: TextConverter, pieces: re.Pattern[str]) -> bytes:
    """Array text of more than one dimension, or malformed."""
    levels: list[list[bytes]] = []
    at = 0
    value_may_come = True
    while match := pieces.match(text, at):
        at = match.end()
        quoted, bare, mark = match.groups("")
        if mark == "{":
            if not value_may_come or len(levels) == _MAX_DIMENSIONS:
                break
            levels.append([])
        elif mark == "}":
            if not levels or (value_may_come and levels[-1]):
                break
            token = b"[" + b", ".join(levels.pop()) + b"]"
            if not levels:
                if at == len(text):
                    return token
                break
            levels[-1].append(token)
            value_may_come = False
        elif mark:
            if value_may_come or not levels:
                break
            value_may_come = True
        else:
            if not value_may_come or not levels:
                break
            levels[-1].append(_element(quoted, bare, element))
            value_may_come = False
    raise ValueFormatError("malformed array text")


def _element(quoted: str, bare: str, element: TextConverter) -> bytes:
    if bare:
        return b"null" if bare == "NULL" else element(bare)
    if "\\" in quoted:
        # a backslash and what follows it stand together, so pairs of backslashes can be cut out from the left
        quoted = "\\".join([part.replace('\\"', '"') for part in quoted.split("\\\\")])
    return element(quoted)
