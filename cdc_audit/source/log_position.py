"""What to do with log files, given what a look at their folder shows and how far each was taken. Pure.

A file is known by its fingerprint, never by its name: names are used again, files are renamed, copied and cut off. The server
writes one file at a time, so a file is over once another one was written later; it may still be taken up again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from cdc_audit.model.read import LogFile, Taken

HEAD_BYTES = 1024


class Block(NamedTuple):
    """Whole lines of a file, without their newlines, and where each of them ends (the newline counts)."""

    lines: tuple[bytes, ...]
    ends: tuple[int, ...]


def fingerprint(head: bytes) -> bytes | None:
    """What tells a file that begins with these ``HEAD_BYTES`` (less where it is shorter) from others; None while it is too
    short to tell: its first line is not there yet.
    """
    first, newline, _ = head.partition(b"\n")
    return sha256(first).digest() if newline or len(head) >= HEAD_BYTES else None


def gone(taken: Iterable[Taken], files: Iterable[LogFile]) -> list[Taken]:
    """Files that are no longer there, and of which lines may be missing. What is final is remembered for ever: it may come back."""
    there = {file.fingerprint for file in files}
    return [file for file in taken if not file.is_final and file.fingerprint not in there]


def last_written(files: Iterable[LogFile]) -> int:
    """When the server last wrote any file. One that it wrote before is over."""
    return max((file.mtime_ns for file in files), default=0)


def in_order(files: Iterable[LogFile]) -> list[LogFile]:
    """The files in the order in which the server last wrote them."""
    return sorted(files, key=lambda file: (file.mtime_ns, file.name))


def behind(files: Iterable[LogFile], taken: Mapping[bytes, Taken]) -> int:
    """How many bytes of all files haven't been taken."""
    places = {fingerprint: one.position for fingerprint, one in taken.items()}
    return sum(max(file.size - places.get(file.fingerprint, 0), 0) for file in files)


def whole_lines(data: bytes, start: int, *, with_rest: bool) -> Block:
    """The whole lines of ``data``, which stands at ``start`` in its file. ``with_rest``: what comes after the last newline is a
    line as well, whose end will never come.
    """
    parts = data.split(b"\n")
    rest = parts.pop()
    ends: list[int] = []
    end = start
    for part in parts:
        end += len(part) + 1
        ends.append(end)
    if rest and with_rest:
        parts.append(rest)
        ends.append(end + len(rest))
    return Block(tuple(parts), tuple(ends))


def last_line_end(tail: bytes, size: int) -> int:
    """Where the last whole line ends of a file of ``size`` bytes that ends with ``tail``; 0 where there is none in it."""
    return size - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail else 0


def is_open(snapshot: str, xid: int) -> bool:
    """Whether a transaction (32 bits) was open in a snapshot, printed as pg_snapshot is: ``xmin:xmax:xip,xip``."""
    _, xmax, listed = snapshot.split(":")
    distance = (xid - int(xmax)) & 0xFFFFFFFF
    if distance < 0x80000000:
        return True  # xmax is the first that had not ended, not the first that had not begun
    return str(int(xmax) + distance - 0x100000000) in listed.split(",")


def first_open(snapshot: str, xids: Sequence[int]) -> int:
    """The index of the first transaction in ``xids`` that is open, or their number; 0 stands for none."""
    known: dict[int, bool] = {0: False}
    for index, xid in enumerate(xids):
        if xid not in known:
            known[xid] = is_open(snapshot, xid)
        if known[xid]:
            return index
    return len(xids)
