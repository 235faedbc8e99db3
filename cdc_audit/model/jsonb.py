"""JSON text as PostgreSQL's jsonb prints it. Knows nothing of columns and types; stores and compares nothing.

The output is what ``text::jsonb::text`` gives in a UTF-8 database, byte for byte, since it is hashed. Rules:
object keys by length in bytes, then by bytes, the last of equal keys wins (jsonb_util.c); a blank after each
comma and colon; numbers as numeric prints them, with every digit; in strings only quotation marks,
backslashes and control characters are escaped (json.c, escape_json).
"""

from __future__ import annotations

import re
from json import JSONDecoder
from json.encoder import encode_basestring as _quote
from typing import Any, NoReturn

from orjson import JSONDecodeError, JSONEncodeError, dumps, loads

MAX_DEPTH = 500
"""Containers within containers; PostgreSQL's own bound depends on its max_stack_depth and is far above."""

MAX_BYTES = 0x0FFFFFFF
"""The size of a string, and of all that a container holds: 28 bits (jsonb.h, JENTRY_OFFLENMASK)."""

_MAX_WHOLE_DIGITS = 131072  # numeric.h: the weight is an int16 of base 10000 digits
_MAX_SCALE = 16383  # numeric.h: NUMERIC_DSCALE_MAX
_MAX_EXPONENT = 0x3FFFFFFF  # numeric.c refuses INT_MAX / 2, for zero too
_MAX_EXPANSION = (
    16_000_000  # digits that exponents may add to one document: 1e99999 is 7 bytes that become 100,000
)
_SHORT = 1000  # bytes in which numbers can't grow by more than _MAX_EXPANSION

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_FRACTION = re.compile(rb"[0-9]\.[0-9]")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_BLANKS = " \t\n\r"


class ValueFormatError(ValueError):
    """A value isn't written as its type's values are. The text never holds the value."""


class NotJsonbError(ValueFormatError):
    """A text isn't JSON, or is JSON that jsonb can't hold. The text never holds the value."""


class _NeedsDigitsError(Exception):
    """A number that a double can't hold as it was written."""


def string(text: str) -> bytes:
    """A JSON string as jsonb prints it; NotJsonbError for NUL, lone surrogates and over 268,435,455 bytes."""
    try:
        token = dumps(text)
    except JSONEncodeError:
        raise NotJsonbError("a string holds a lone surrogate") from None
    if "\0" in text:
        raise NotJsonbError("a string holds NUL")
    if len(token) > MAX_BYTES and len(text.encode()) > MAX_BYTES:
        raise NotJsonbError("a string is longer than jsonb allows")
    return token


def number(token: bytes) -> bytes:
    """A number as numeric prints it: no exponent, no negative zero, every digit after the point kept.

    ``token`` is a JSON number, or what float4 and float8 print. NotJsonbError for anything else and for what
    is beyond numeric's range.
    """
    if token.isdigit() and len(token) < _SHORT and token[0] != 48:
        return token
    try:
        return _plain(token.decode("ascii")).encode()
    except UnicodeDecodeError:
        raise NotJsonbError("not a number") from None


def canonical(text: str | bytes) -> bytes:
    """What PostgreSQL prints for ``text::jsonb``; NotJsonbError where it would refuse.

    Refused here, though PostgreSQL may take it: over 500 levels, what might exceed jsonb's 256 MB, and
    exponents that would blow a document up by over 16 MB.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise NotJsonbError("a string holds a lone surrogate") from None
    if b"\\u0000" in raw:
        _check_escapes(raw)
    # An element costs jsonb up to 16 bytes beside its text: an upper bound, cheap and on the safe side.
    if len(raw) > MAX_BYTES >> 4 and len(raw) + 16 * (raw.count(b",") + raw.count(b":")) > MAX_BYTES:
        raise NotJsonbError("a document is larger than jsonb allows")
    if b"." in raw and _FRACTION.search(raw):
        return _canonical_by_digits(raw)
    try:
        return _write(loads(raw), 0).encode()
    except (JSONDecodeError, _NeedsDigitsError):
        pass  # and leave the handler: an error below must not carry this one, which holds the document
    except RecursionError:
        raise NotJsonbError("JSON nested too deeply") from None
    return _canonical_by_digits(raw)


def _canonical_by_digits(raw: bytes) -> bytes:
    """``canonical`` where numbers must not pass through doubles; finds out what is wrong with a document."""
    if b"\\ud" in raw or b"\\uD" in raw:
        _check_escapes(raw)
    try:
        text = raw.decode().strip(_BLANKS)
        decoder = _DECODER if len(text) < _SHORT else _bounded_decoder()
        value, end = decoder.scan_once(text, 0)
        token = _write(value, 0).encode()
    except NotJsonbError:
        raise
    except (ValueError, StopIteration):
        raise NotJsonbError("not JSON") from None
    except RecursionError:
        raise NotJsonbError("JSON nested too deeply") from None
    if end != len(text):
        raise NotJsonbError("text after a JSON value")
    return token


def _exact(token: str) -> bytes:
    """A number as the bytes that jsonb prints, which no JSON string can be taken for."""
    if len(token) < _SHORT and token[0] != "-" and "e" not in token and "E" not in token:
        return token.encode()
    return _plain(token).encode()


def _bounded_decoder() -> Any:
    """A decoder like ``_DECODER`` that bounds how far a document's numbers may grow."""
    room = _MAX_EXPANSION

    def exact(token: str) -> bytes:
        nonlocal room
        plain = _exact(token)
        room -= max(0, len(plain) - len(token))
        if room < 0:
            raise NotJsonbError("a document's numbers are too long to be written out")
        return plain

    return JSONDecoder(parse_float=exact, parse_int=exact, parse_constant=_refuse_constant)


def _refuse_constant(_: str) -> NoReturn:
    raise NotJsonbError("NaN and infinities aren't JSON")


_DECODER: Any = JSONDecoder(parse_float=_exact, parse_int=_exact, parse_constant=_refuse_constant)


def _write(value: Any, depth: int) -> str:
    """A parsed value as jsonb prints it. One frame a level, so that MAX_DEPTH is within Python's bound."""
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            raise NotJsonbError("JSON nested too deeply")
        parts = []
        if kind is list:
            for item in value:
                parts.append(_quote(item) if type(item) is str else _write(item, depth + 1))  # noqa: PERF401
            return "[" + ", ".join(parts) + "]"
        for key, prefix in _LAYOUTS.get(tuple(value)) or _layout(tuple(value)):
            item = value[key]
            parts.append(prefix + (_quote(item) if type(item) is str else _write(item, depth + 1)))
        return "{" + ", ".join(parts) + "}"
    if kind is int:
        return str(value)
    if kind is bytes:  # a number, from the exact decoder
        digits: str = value.decode()
        return digits
    if kind is float:
        raise _NeedsDigitsError
    return "null" if value is None else "true" if value else "false"


# The keys of objects seen lately -> the same keys in the order of jsonb, each with what is printed before its
# value. Documents in one column have the same few sets of keys; this halves the time that they take.
_LAYOUTS: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
_MAX_LAYOUTS = 1000
_MAX_LAYOUT_LENGTH = 1000  # characters


def _layout(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The keys as jsonb orders them. UTF-8 compares as code points do; only lengths differ."""
    text = "".join(keys)
    ordered = sorted(keys)
    ordered.sort(key=len if text.isascii() else _utf8_length)
    layout = tuple((key, _quote(key) + ": ") for key in ordered)
    if len(text) <= _MAX_LAYOUT_LENGTH:
        if len(_LAYOUTS) >= _MAX_LAYOUTS:
            _LAYOUTS.clear()
        _LAYOUTS[keys] = layout
    return layout


def _utf8_length(key: str) -> int:
    return len(key.encode())


def _check_escapes(raw: bytes) -> None:
    """Raises for an escaped NUL or lone surrogate, also under a key that loses, as PostgreSQL does."""
    high_ends = -1  # where the low half of a pair must begin
    for match in _ESCAPE.finditer(raw):
        code = int(match[1], 16) if match[1] else -1
        if code == 0:
            raise NotJsonbError("a string holds NUL")
        is_low = 0xDC00 <= code <= 0xDFFF
        if is_low != (high_ends >= 0) or (is_low and match.start() != high_ends):
            raise NotJsonbError("a string holds a lone surrogate")
        high_ends = match.end() if 0xD800 <= code <= 0xDBFF else -1
    if high_ends >= 0:
        raise NotJsonbError("a string holds a lone surrogate")


def _plain(token: str) -> str:
    """A number without its exponent, by numeric.c's rules for the digits after the point."""
    match = _NUMBER.fullmatch(token)
    if match is None:
        raise NotJsonbError("not a number")
    sign, whole, fraction, power = match.groups("")
    exponent = _exponent(power) if power else 0
    scale = max(0, len(fraction) - exponent)
    digits = (whole + fraction).lstrip("0")
    if not digits:
        sign, point = "", 0
    else:
        point = len(digits) - len(fraction) + exponent  # digits before the decimal point, if positive
    if scale > _MAX_SCALE or point > _MAX_WHOLE_DIGITS:
        raise NotJsonbError("a number is beyond numeric's range")
    if point > 0:
        before, after = digits[:point].ljust(point, "0"), digits[point:]
    else:
        before, after = "0", digits.rjust(scale, "0")
    return f"{sign}{before}.{after}" if scale else sign + before


def _exponent(power: str) -> int:
    size = power.lstrip("+-").lstrip("0")
    if len(size) > 10 or int(size or "0") > _MAX_EXPONENT - 1:
        raise NotJsonbError("a number is beyond numeric's range")
    return -int(size or "0") if power[0] == "-" else int(size or "0")
