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

from cdc_audit.model.jsonb import ValueFormatError, string

TextConverter: TypeAlias = Callable[[str], bytes]

_MAX_DIMENSIONS = 6  # MAXDIM in c.h
_SHORT = 100_000  # characters; the regular expression for a whole array takes 170 bytes of memory an element
_PLAIN_NUMBERS = b"0123456789-.,{}NUL"
_BRACKETS = bytes.maketrans(b"{}", b"[]")


def array(element: TextConverter, delimiter: str = ",") -> TextConverter:
    """A converter of array text; bounds are dropped, as to_jsonb does."""
    mark = re.escape(delimiter)
    item = rf'"[^"\\]*"|[^"\\{{}}{mark}]+'
    flat = re.compile(rf"\{{(?:{item})(?:{mark}(?:{item}))*\}}")
    items = re.compile(rf'"([^"\\]*)"|([^"\\{{}}{mark}]+)')
    pieces = re.compile(rf"{items.pattern}|([{{}}{mark}])")

    def convert(text: str) -> bytes:
        if text[:1] == "[":
            text = text.partition("=")[2]
        if "\\" in text:
            text = _without_escapes(text)
        if len(text) > _SHORT or flat.fullmatch(text) is None:
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
    if text[:1] != "(" or text[-1:] != ")":
        raise ValueFormatError("malformed composite text")
    if '"' not in text:
        return [item or None for item in text[1:-1].split(",")]
    values: list[str | None] = []
    at, last = 1, len(text) - 1
    while True:
        if text.startswith('"', at):
            end = text.find('"', at + 1)
            while end >= 0 and text.startswith('"', end + 1):
                end = text.find('"', end + 2)
            # quotes and backslashes are doubled, independently of each other
            values.append(text[at + 1 : end].replace('""', '"').replace("\\\\", "\\"))
            at = end + 1
        else:
            end = text.find(",", at)
            end = last if end < 0 else end
            values.append(text[at:end] or None)
            at = end
        if at == last:
            return values
        if at == 0 or text[at : at + 1] != ",":
            raise ValueFormatError("malformed composite text")
        at += 1


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
    return element(quoted.replace("\0q", '"').replace("\0b", "\\") if "\0" in quoted else quoted)


def _without_escapes(text: str) -> str:
    """Array text with NUL q and NUL b for escaped quotes and backslashes: each quote left is a delimiter.

    Pairs of backslashes may be cut out from the left: a backslash and what follows it stand together.
    """
    if "\0" in text:
        raise ValueFormatError("malformed array text")
    return text.replace("\\\\", "\0b").replace('\\"', "\0q")
