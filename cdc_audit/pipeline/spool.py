"""pgoutput's transactions, held back until their commit.

pgoutput says only at a transaction's end where its commit record ends, but every row of the trail carries that position. So the
messages of a transaction wait for its Commit, up to 8 MB of them in memory, the rest in an unnamed temporary file of the daemon
(``TMPDIR``; it has no name, and ends with the daemon). wal2json says it at the beginning and needs none of this.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from cdc_audit.errors import StreamError, UnavailableError
from cdc_audit.source.stream import Notice

_MEMORY_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 262_144
_PIECE_MESSAGES = 2_000
_OVERHEAD = 64  # what a small message takes besides its bytes
_LENGTH = struct.Struct(">I")
_COMMIT = struct.Struct(">xBQQq")  # kind, flags, commit position, end position, commit time
_BEGIN_HEADER = struct.Struct(">xQqI")  # kind, commit position, commit time, xid
_BEGIN, _END = ord("B"), ord("C")


class Spool:
    """Takes the stream's messages in order, gives those of whole transactions in the same order."""

    def __init__(self) -> None:
        self._is_open = False
        self._messages: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None

    @property
    def is_holding(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._is_open

    @property
    def transaction(self) -> tuple[int, int]:
        """The xid of the transaction that has begun and not ended, and a position just past the start of its COMMIT, from which
        on it isn't sent again; (0, 0) for none.
        """
        if not self._is_open or len(self._messages[0]) != _BEGIN_HEADER.size:
            return 0, 0
        commit_lsn, _, xid = _BEGIN_HEADER.unpack(self._messages[0])
        return xid, commit_lsn + 1

    def feed(self, items: Iterable[bytes | Notice]) -> Iterator[list[bytes | Notice]]:
        """Pieces that can be decoded now. The Begin in them is 8 bytes longer: the end position, as ``decode.pgoutput`` takes it.

        Raises UnavailableError if the temporary file can't be written.
        """
        # pgoutput reports nothing about rows in notices
        messages = [item for item in items if isinstance(item, bytes)]
        kinds = bytes([message[0] if message else 0 for message in messages])
        ready: list[bytes | Notice] = []
        at = 0
        while at < len(messages):
            if not self._is_open:
                begin = kinds.find(_BEGIN, at)
                ready += messages[at : begin if begin >= 0 else None]
                if begin < 0:
                    break
                self._hold(messages[begin : begin + 1])
                at = begin + 1
            else:
                end = kinds.find(_END, at)
                self._hold(messages[at : end if end >= 0 else None])
                if end < 0:
                    break
                is_short = self._file is None and len(messages[end]) == _COMMIT.size
                if is_short and len(self._messages) + len(ready) <= _PIECE_MESSAGES:
                    ready += self._short(messages[end])  # a piece costs more than its few messages
                else:
                    yield ready
                    ready = []
                    yield from self._whole(messages[end])
                at = end + 1
        yield ready

    def close(self) -> None:
        """Forget what is held."""
        if self._file is not None:
            self._file.close()
        self._is_open, self._messages, self._size, self._file = False, [], 0, None

    def _hold(self, messages: list[bytes]) -> None:
        self._is_open = True
        self._messages += messages
        self._size += sum(map(len, messages)) + _OVERHEAD * len(messages)
        if self._size > _MEMORY_BYTES:
            self._spill()

    def _spill(self) -> None:
        """Move what is held, but for the Begin, to the file."""
        begin, *rest = self._messages
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="cdc-audit-")  # noqa: SIM115 - closed by close()
            self._file.write(
                b"".join(part for message in rest for part in (_LENGTH.pack(len(message)), message))
            )
        except OSError as error:
            raise UnavailableError(
                f"source transaction larger than memory: {error.strerror} in {tempfile.gettempdir()}",
                remedy="make room there, or set TMPDIR to a folder with room",
            ) from error
        self._messages, self._size = [begin], 0

    def _short(self, commit: bytes) -> list[bytes]:
        """All messages of a transaction that is in memory."""
        begin, *rest = self._messages
        self.close()
        return [begin + _end(commit), *rest, commit]

    def _whole(self, commit: bytes) -> Iterator[list[bytes | Notice]]:
        begin, *rest = self._messages
        yield [begin + _end(commit)]
        if self._file is not None:
            self._file.seek(0)
            yield from _pieces(self._file)
        self.close()
        rest.append(commit)
        for start in range(0, len(rest), _PIECE_MESSAGES):
            yield [*rest[start : start + _PIECE_MESSAGES]]


def _end(commit: bytes) -> bytes:
    """Where a commit's record ends, as its message has it."""
    if len(commit) != _COMMIT.size:
        raise StreamError("pgoutput: a COMMIT of wrong length")
    end: int = _COMMIT.unpack(commit)[2]
    return end.to_bytes(8, "big")


def _pieces(file: IO[bytes]) -> Iterator[list[bytes | Notice]]:
    """The messages in a file, about a megabyte at a time."""
    piece: list[bytes | Notice] = []
    size = 0
    while length := file.read(_LENGTH.size):
        message = file.read(_LENGTH.unpack(length)[0])
        piece.append(message)
        size += len(message)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    yield piece
