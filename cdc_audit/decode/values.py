"""A column's value as to_jsonb writes it into a row image: byte for byte what PostgreSQL's jsonb prints.

Two families, by where a value comes from: ``from_wal2json`` takes the JSON token of a wal2json line,
``from_text`` the text of the type's output function (pgoutput sends it, array elements and composite fields
are it). The session settings DateStyle ISO, IntervalStyle postgres, bytea_output hex, extra_float_digits 3
and lc_monetary C are presumed; timestamptz keeps the offset that it is given, UTC's with TimeZone UTC.

Contract of every converter: it raises nothing but ValueFormatError, whose text never holds the value. It
looks at a value as closely as converting it needs: what a plugin prints of an integer or a jsonb is taken for
one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from orjson import JSONDecodeError, loads

from cdc_audit.decode.arrays import TextConverter, array, composite, number_array, vector
from cdc_audit.decode.built_in_types import ARRAYS, BOX_ARRAY, INT2VECTOR, OIDVECTOR, SCALARS
from cdc_audit.errors import UnknownTypeError
from cdc_audit.model.catalog import TypeInfo, TypeKind
from cdc_audit.model.jsonb import NotJsonbError, ValueFormatError, canonical, number, string

__all__ = [
    "WAL2JSON_CONVERTERS",
    "TextConverter",
    "TokenConverter",
    "ValueFormatError",
    "from_text",
    "from_wal2json",
]

TokenConverter: TypeAlias = Callable[[bytes], bytes]
Types: TypeAlias = Mapping[int, TypeInfo | None]

_OFFSET = re.compile(r"([+-]\d\d)( BC)?\Z", re.ASCII)
_NOT_NUMBERS = {b"NaN": b'"NaN"', b"Infinity": b'"Infinity"', b"-Infinity": b'"-Infinity"'}
_BOOLEANS = {"t": b"true", "f": b"false"}


def from_wal2json(type_oid: int, types: Types, *, quoted_numbers: bool = False) -> TokenConverter | None:
    """A converter for a column's token in a wal2json line; None where the token already is what jsonb prints.

    ``types`` holds the user-defined types that were looked up; UnknownTypeError names all that it lacks.
    ``quoted_numbers`` says that wal2json was asked for numeric-data-types-as-string (2.6 and newer).
    The token ``null`` stays ``null``.
    """
    if type_oid in _TOKENS:
        return (_QUOTED_TOKENS if quoted_numbers else _TOKENS)[type_oid]
    convert = from_text(type_oid, types)
    if convert is string:
        return None
    return _SAME_AS_TEXT.get(convert) or _through_text(convert)


def from_text(type_oid: int, types: Types) -> TextConverter:
    """A converter for the text that a type's output function prints; ``types`` is as in ``from_wal2json``."""
    missing = _missing(type_oid, types)
    if missing:
        raise UnknownTypeError(missing, frozenset())
    return _text_converter(type_oid, types, frozenset())


def _missing(type_oid: int, types: Types) -> frozenset[int]:
    """Of a type and all that it consists of, what is neither built in nor looked up."""
    missing: set[int] = set()
    seen: set[int] = set()
    ahead = [type_oid]
    while ahead:
        oid = ahead.pop()
        if oid in seen or oid in SCALARS or oid in ARRAYS:
            continue
        seen.add(oid)
        if oid not in types:
            missing.add(oid)
        elif (info := types[oid]) is not None:
            if info.kind is TypeKind.ARRAY:
                ahead.append(info.element)
            elif info.kind is TypeKind.COMPOSITE:
                ahead.extend(field_type for _, field_type in info.fields)
            else:
                ahead.append(info.base)
    return frozenset(missing)


def _text_converter(type_oid: int, types: Types, within: frozenset[int]) -> TextConverter:
    if type_oid in SCALARS:
        return _TEXTS.get(type_oid, string)
    if type_oid in ARRAYS:
        return _array(_text_converter(ARRAYS[type_oid], types, within), ";" if type_oid == BOX_ARRAY else ",")
    info = types[type_oid]
    if info is None:
        return string
    if info.base in SCALARS or info.base in ARRAYS:
        return _text_converter(info.base, types, within)
    if type_oid in within:
        raise ValueFormatError(f"type {type_oid} contains itself")
    within |= {type_oid}
    if info.kind is TypeKind.ARRAY:
        return _array(_text_converter(info.element, types, within), info.delimiter)
    if info.kind is TypeKind.COMPOSITE:
        return composite([(name, _text_converter(oid, types, within)) for name, oid in info.fields])
    return string if info.base == type_oid else _text_converter(info.base, types, within)


def _array(element: TextConverter, delimiter: str) -> TextConverter:
    return number_array(element) if element is _number_text else array(element, delimiter)


# From text


def _number_text(text: str) -> bytes:
    """int2, int4, int8, numeric, float4, float8."""
    raw = text.encode("ascii", "replace")
    return raw if raw.isdigit() else _number(raw)


def _number(raw: bytes) -> bytes:
    digits = raw.replace(b".", b"", 1)
    if digits.isdigit() or (digits[:1] == b"-" and digits[1:].isdigit() and digits[1:2] != b"0"):
        return raw
    return _NOT_NUMBERS.get(raw) or number(raw)


def _boolean_text(text: str) -> bytes:
    try:
        return _BOOLEANS[text]
    except KeyError:
        raise ValueFormatError("not a boolean") from None


def _timestamp_text(text: str) -> bytes:
    return string(text.replace(" ", "T", 1))


def _timestamptz_text(text: str) -> bytes:
    text = text.replace(" ", "T", 1)
    return string(text + ":00" if text.endswith("+00") else _OFFSET.sub(r"\1:00\2", text))


def _json_text(text: str) -> bytes:
    try:
        return canonical(text)
    except NotJsonbError:
        return string(text)


def _jsonb_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueFormatError("jsonb text holds a lone surrogate") from None


_TEXTS: dict[int, TextConverter] = {
    16: _boolean_text,
    **dict.fromkeys((20, 21, 23, 700, 701, 1700), _number_text),
    INT2VECTOR: vector(_number_text),
    OIDVECTOR: vector(string),
    114: _json_text,
    3802: _jsonb_text,
    1114: _timestamp_text,
    1184: _timestamptz_text,
}


# From wal2json's tokens. wal2json escapes strings by the same function as jsonb's output does (json.c,
# escape_json), so what to_jsonb writes as a string needs no converter.


def _unquoted(token: bytes) -> str:
    try:
        text = loads(token)
    except JSONDecodeError:
        raise ValueFormatError("not a JSON string") from None
    if type(text) is not str:
        raise ValueFormatError("not a JSON string")
    return text


def _through_text(convert: TextConverter) -> TokenConverter:
    def from_token(token: bytes) -> bytes:
        return token if token == b"null" else convert(_unquoted(token))

    return from_token


def _quoted_number_token(token: bytes) -> bytes:
    """A number that may stand in quotation marks; ``"NaN"`` and infinities keep theirs."""
    if token.startswith(b'"'):
        return _number_text(_unquoted(token))
    return token if token == b"null" else _number(token)


def _float_token(token: bytes) -> bytes:
    digits = token.replace(b".", b"", 1)
    if digits.isdigit() or (digits[:1] == b"-" and digits[1:].isdigit() and digits[1:2] != b"0"):
        return token
    return _quoted_number_token(token)


def _oid_token(token: bytes) -> bytes:
    """to_jsonb writes an oid as a string."""
    if token.isdigit():
        return b'"' + token + b'"'
    return token if token == b"null" else string(_unquoted(token))


def _bytea_token(token: bytes) -> bytes:
    """wal2json leaves out the backslash and x that the text begins with."""
    return token.replace(b'"', b'"\\\\x', 1)


def _timestamp_token(token: bytes) -> bytes:
    return token.replace(b" ", b"T", 1)


def _timestamptz_token(token: bytes) -> bytes:
    if token.endswith(b'+00"'):
        return token.replace(b" ", b"T", 1).replace(b'+00"', b'+00:00"')
    return token if token == b"null" else _timestamptz_text(_unquoted(token))


def _json_token(token: bytes) -> bytes:
    try:
        return token if token == b"null" else canonical(_unquoted(token))
    except NotJsonbError:
        return token


def _jsonb_token(token: bytes) -> bytes:
    return token if token == b"null" else _unquoted(token).encode()


_TOKENS: dict[int, TokenConverter | None] = {
    **dict.fromkeys((16, 20, 21, 23, 1700)),
    **dict.fromkeys((700, 701), _float_token),
    17: _bytea_token,
    26: _oid_token,
}
_QUOTED_TOKENS = {**_TOKENS, **dict.fromkeys((20, 21, 23, 700, 701, 1700), _quoted_number_token)}
_SAME_AS_TEXT: dict[TextConverter, TokenConverter] = {
    _timestamp_text: _timestamp_token,
    _timestamptz_text: _timestamptz_token,
    _json_text: _json_token,
    _jsonb_text: _jsonb_token,
}
WAL2JSON_CONVERTERS = (_timestamptz_token, _timestamp_token, _jsonb_token)
"""Those that the compiled decoder has, too, in its order."""
