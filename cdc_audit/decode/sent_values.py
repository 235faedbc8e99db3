"""A column's value as pgoutput sends it, the bytes of its type's output function, into what jsonb prints.

Where the bytes tell enough, a value does not become a str on its way. The contract of every converter is that of ``values``,
but that it may also raise KeyError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from orjson import dumps

from cdc_audit.decode.values import TextConverter, ValueFormatError, from_text
from cdc_audit.errors import UnknownTypeError
from cdc_audit.model.catalog import TypeInfo
from cdc_audit.model.jsonb import string

BytesConverter: TypeAlias = Callable[[bytes], bytes]
Types: TypeAlias = Mapping[int, TypeInfo | None]

_NOT_TEXT = re.compile("[\udc80-\udcff]")


def decoded(raw: bytes, encoding: str) -> str:
    """Text in the server's encoding. What isn't of it (in SQL_ASCII anything goes) is taken for LATIN1, byte by byte."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode(encoding, "surrogateescape")
        return _NOT_TEXT.sub(lambda match: chr(ord(match[0]) - 0xDC00), text)


def unknown_types(oids: Iterable[int], types: Types) -> frozenset[int]:
    """Which types have to be looked up before values of these can be read."""
    missing: set[int] = set()
    for oid in oids:
        try:
            from_text(oid, types)
        except UnknownTypeError as error:
            missing |= error.type_oids
    return frozenset(missing)


def from_sent(type_oid: int, types: Types, encoding: str, *, lenient: bool = False) -> BytesConverter | None:
    """A converter for a column's bytes in the server's ``encoding``; None where they already are what jsonb prints.

    ``types`` is as in ``values.from_text``. A ``lenient`` converter makes a string of a text that it does not understand.
    """
    if type_oid in _INTEGERS:
        return None
    if type_oid in _SPECIAL:
        return _SPECIAL[type_oid]
    convert = from_text(type_oid, types)
    if lenient:
        convert = _or_string(convert)
    if encoding != "utf-8":
        return lambda raw: convert(decoded(raw, encoding))
    return _FROM_UTF_8.get(convert) or (lambda raw: convert(decoded(raw, "utf-8")))


def _or_string(convert: TextConverter) -> TextConverter:
    def lenient(text: str) -> bytes:
        try:
            return convert(text)
        except ValueFormatError:
            return string(text)

    return lenient


def _numeric(raw: bytes) -> bytes:
    """A numeric ends with a digit, or is NaN or an infinity."""
    return raw if raw[-1:].isdigit() else _number_text(raw.decode("latin-1"))


def _number(raw: bytes) -> bytes:
    return raw if raw.isdigit() else _number_text(raw.decode("latin-1"))


def _timestamp(raw: bytes) -> bytes:
    return b'"%b"' % raw.replace(b" ", b"T", 1)


def _timestamptz(raw: bytes) -> bytes:
    if raw[-3:] == b"+00":
        return b'"%b:00"' % raw.replace(b" ", b"T", 1)
    return _timestamptz_text(raw.decode("latin-1"))


def _jsonb(raw: bytes) -> bytes:
    return decoded(raw, "utf-8").encode()


def _string(raw: bytes) -> bytes:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = decoded(raw, "utf-8")
    return string(text) if 0 in raw else dumps(text)


_INTEGERS = frozenset((20, 21, 23))
_number_text = from_text(1700, {})
_timestamptz_text = from_text(1184, {})
# By the type's oid: all these texts are ASCII, so the server's encoding doesn't matter
_SPECIAL: dict[int, BytesConverter] = {
    16: {b"t": b"true", b"f": b"false"}.__getitem__,
    1700: _numeric,
    **dict.fromkeys((700, 701), _number),
    1114: _timestamp,
    1184: _timestamptz,
}
_FROM_UTF_8: dict[TextConverter, BytesConverter] = {
    string: _string,
    from_text(3802, {}): _jsonb,
    _number_text: _number,
    _timestamptz_text: _timestamptz,
}
PGOUTPUT_CONVERTERS = (_string, _jsonb, _numeric, _timestamp, _timestamptz)
"""Those that the compiled decoder has, too, in its order."""
