"""The streaming replication protocol's messages inside COPY BOTH, as bytes. Pure.

https://www.postgresql.org/docs/current/protocol-replication.html: XLogData is ``w``, start, walEnd, send time (8 bytes each,
big-endian) and the plugin's output; a keepalive is ``k``, walEnd, send time, and a byte that asks for a reply; a standby
status update is ``r``, written, flushed and applied position, time, and such a byte. Times are microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

XLOGDATA = ord("w")
KEEPALIVE = ord("k")
HEADER_LENGTH = 25
_POSITIONS = struct.Struct(">xQQq")
_KEEPALIVE = struct.Struct(">xQqB")
_STATUS = struct.Struct(">cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Keepalive(NamedTuple):
    """Up to ``wal_end`` the server has decoded, and sent all that is to be sent."""

    wal_end: int
    sent_at: int
    reply_requested: bool


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
    text = (_EPOCH + timedelta(microseconds=microseconds_)).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "+00"
