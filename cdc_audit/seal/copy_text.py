r"""COPY's text format, exactly as ``COPY ... TO STDOUT`` prints it: what is hashed is what is stored.

https://www.postgresql.org/docs/current/sql-copy.html (Text Format): fields are parted by a tab, null is ``\N``; backslash and the
control characters 8 to 13 are written ``\\ \b \t \n \v \f \r``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NULL = b"\\N"
_SPECIAL = re.compile(rb"[\\\x08-\x0d]")
_ESCAPED = {
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\t": b"\\t",
    b"\n": b"\\n",
    b"\v": b"\\v",
    b"\f": b"\\f",
    b"\r": b"\\r",
}
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_UNESCAPED = {code[1:]: special for special, code in _ESCAPED.items()}
_ARRAY_QUOTED = re.compile(rb'[{}",\\\s]')
_ARRAY_SPECIAL = re.compile(rb'["\\]')


def field(text: str | None) -> bytes:
    """One field's text; None is null."""
    return NULL if text is None else escape(text.encode())


def optional(text: str) -> bytes:
    """One field's text; "" is null."""
    return escape(text.encode()) if text else NULL


def escape(data: bytes) -> bytes:
    """Any field's value."""
    if _SPECIAL.search(data) is None:
        return data
    return _SPECIAL.sub(lambda match: _ESCAPED[match[0]], data)


def unescape(data: bytes) -> bytes:
    """A field's value; null is the caller's to tell."""
    return _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[1]), data) if b"\\" in data else data


def json_field(data: bytes) -> bytes:
    """A JSON text's field: JSON has no raw control characters, so only backslashes are doubled."""
    return data.replace(b"\\", b"\\\\")


def bytea(data: bytes) -> bytes:
    """A bytea's field, in hex format."""
    return b"\\\\x" + data.hex().encode()


def array_element(text: str) -> bytes:
    """One element of a text[] as array_out prints it, escaped for its field; elements are joined by ``,``.

    array_out quotes what is empty, is NULL in any case, or holds braces, quotes, commas, backslashes or white space.
    """
    data = text.encode()
    if not data or data.upper() == b"NULL" or _ARRAY_QUOTED.search(data):
        data = b'"' + _ARRAY_SPECIAL.sub(rb"\\\g<0>", data) + b'"'
    return escape(data)


def array(texts: Iterable[str]) -> bytes:
    """A text[]'s field."""
    return b"{" + b",".join(map(array_element, texts)) + b"}"
