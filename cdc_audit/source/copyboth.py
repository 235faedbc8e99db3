"""The streaming replication protocol's messages inside COPY BOTH, as bytes. Pure.

https://www.postgresql.org/docs/current/protocol-replication.html: XLogData is ``w``, start, walEnd, send time (8 bytes each,
big-endian) and the plugin's output; a keepalive is ``k``, walEnd, send time, and a byte that asks for a reply; a standby
status update is ``r``, written, flushed and applied position, time, and such a byte. Times are microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, TypeAlias

XLOGDATA = ord("w")
KEEPALIVE = ord("k")
HEADER_LENGTH = 25
_POSITIONS = struct.Struct(">xQQq")
_KEEPALIVE = struct.Struct(">xQqB")
_STATUS = struct.Struct(">cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


GetCopyData: TypeAlias = Callable[[int], tuple[int, memoryview]]
"""psycopg's ``PGconn.get_copy_data``: a message's length and itself, 0 where none has arrived, -1 at the stream's end."""
Libpq: TypeAlias = tuple[int, int, int]
"""Addresses in memory: a PGconn, PQgetCopyData and PQfreemem."""
Drained: TypeAlias = tuple[int | None, memoryview | None, int, bytes]
"""What ``drain`` ended with (length and message; None for no more room), the bytes that it took, the last one's header."""


class Keepalive(NamedTuple):
    """Up to ``wal_end`` the server has decoded, and sent all that is to be sent."""

    wal_end: int
    sent_at: int
    reply_requested: bool


def _drain_in_python(
    get_copy_data: GetCopyData, items: list[object], room: int, _libpq: Libpq | None = None
) -> Drained:
    """Append what XLogData messages hold to ``items``, until they are ``room`` bytes or something else comes.

    The compiled loop takes, too, where it finds what ``get_copy_data`` calls.
    """
    size, header = 0, b""
    append = items.append
    while size < room:
        length, data = get_copy_data(1)
        if length < HEADER_LENGTH or data[0] != XLOGDATA:
            return length, data, size, header
        message = data.tobytes()
        header = message[:HEADER_LENGTH]
        append(message[HEADER_LENGTH:])
        size += length
    return None, None, size, header


drain: Callable[[GetCopyData, list[object], int, Libpq | None], Drained] = _drain_in_python
try:
    from cdc_audit.source._drain import drain_past_psycopg
except ImportError:  # also where an older version was compiled
    pass
else:
    drain = drain_past_psycopg


def xlogdata_positions(message: bytes | memoryview) -> tuple[int, int, int]:
    """Start, walEnd and send time of an XLogData message; its payload begins at HEADER_LENGTH."""
    start, wal_end, sent_at = _POSITIONS.unpack_from(message)
    return start, wal_end, sent_at


def parse_keepalive(message: bytes | memoryview) -> Keepalive:
    """A primary keepalive message."""
    wal_end, sent_at, reply = _KEEPALIVE.unpack_from(message)
    return Keepalive(wal_end, sent_at, bool(reply))


def status_update(*, written: int, flushed: int, now_us: int) -> bytes:
    """A standby status update. ``written`` is what was received, ``flushed`` what is durable: the slot moves there.

    Both the same and stale would make the server answer each update with a keepalive.
    """
    return _STATUS.pack(b"r", written, flushed, flushed, now_us, 0)


def microseconds(moment: datetime) -> int:
    """A time in the protocol's unit."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def as_text(microseconds_: int) -> str:
    """A time of the protocol as PostgreSQL prints it in UTC."""
    seconds, fraction = divmod(microseconds_, 1_000_000)
    text = _second_as_text(seconds)
    return f"{text}.{fraction:06}".rstrip("0") + "+00" if fraction else text + "+00"


@lru_cache(4)
def _second_as_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
