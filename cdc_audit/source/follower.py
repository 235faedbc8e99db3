"""Following the server's log: each line about a read is sent into the source once, together with the position behind it.

A read that has a transaction id waits until its transaction has ended, so that the stream has shown that transaction's context
before (``join.reading``); at most ``PATIENCE_S``, since what comes after it in the file waits with it.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from psycopg import Connection

from cdc_audit.decode.pgaudit import Statement, UnreadableLineError, read_line, to_message
from cdc_audit.model.read import LogFile, Taken
from cdc_audit.source import log_position, reads
from cdc_audit.source.log_files import LogFolder

PATIENCE_S = 5.0
_CHUNK_BYTES = 1024 * 1024
_MOST_READS = 500
# Lines without reads move the position in memory only, until they are this many bytes: a sending may be logged itself.
_SKIPPED_BYTES = 1024 * 1024
_LOOKS = 3  # a look may miss a file that is being renamed


class FollowObserver(Protocol):
    """Is told what was done."""

    def taken(self, lines: int, sent: int) -> None:
        """Lines were read, and reads among them sent."""

    def gap(self, reason: str, file: str, position: int) -> None:
        """Lines may be missing, and a row of the trail says so."""

    def behind(self, size: int) -> None:
        """So many bytes are waiting to be taken."""


class _Entry(NamedTuple):
    """A line: where it ends, the transaction to wait for (0: none), and what is sent of it, a JSON text or None."""

    end: int
    xid: int
    text: str | None


class Follower:
    """Follows the files of one folder under a ``name`` of its own; one for each host of a server."""

    def __init__(
        self,
        folder: LogFolder,
        name: str,
        statement: Statement,
        observer: FollowObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._name = name
        self._statement = statement
        self._observer = observer
        self._clock = clock

    def connect(self, connection: Connection, facts: reads.Facts, *, from_start: bool = False) -> bool:
        """Work on this connection from here on; whether it is the first time ever. Then it begins where the files end now, or,
        with ``from_start``, at their beginnings.
        """
        self._connection = connection
        self._database = facts.database
        self._zone = _zone(facts.log_timezone)
        self._encoding = _codec(facts.encoding)
        files = [] if from_start else self._folder.look()
        ends = [Taken(file.fingerprint, file.name, self._folder.end(file), False) for file in files]
        is_first = reads.start(connection, self._name, ends)
        self._taken = {one.fingerprint: one for one in reads.positions(connection, self._name)}
        self._skipped: dict[bytes, int] = {}  # positions behind lines without reads, in memory only
        self._checked: set[bytes] = set()
        self._missed: dict[bytes, int] = {}
        self._waits: dict[bytes, float] = {}
        self._waited: dict[bytes, int] = {}
        return is_first

    @property
    def is_waiting(self) -> bool:
        """Whether a read waits for its transaction's end."""
        return bool(self._waits)

    def round(self) -> bool:
        """Take what is there; whether anything was. Raises our errors: after UnavailableError ``connect`` has to come first."""
        files = self._folder.look()
        moved = self._note_gone(files)
        last = log_position.last_written(files)
        for file in log_position.in_order(files):
            taken = self._taken.get(file.fingerprint)
            if taken is None or not taken.is_final or taken.position != file.size:
                moved |= self._follow(file, is_over=file.mtime_ns < last)
        self._observer.behind(log_position.behind(files, self._taken))
        return moved

    def _note_gone(self, files: list[LogFile]) -> bool:
        """A file that went away before all of it was taken is a gap, once several looks in a row have not found it."""
        gone = log_position.gone(self._taken.values(), files)
        self._missed = {one.fingerprint: self._missed.get(one.fingerprint, 0) + 1 for one in gone}
        moved = False
        for one in gone:
            if self._missed[one.fingerprint] >= _LOOKS:
                self._send_gap(one, one._replace(is_final=True), "file removed before it was over")
                moved = True
        return moved

    def _follow(self, file: LogFile, *, is_over: bool) -> bool:
        """Take a file to its end as the look saw it."""
        mark = file.fingerprint
        taken = self._taken.get(mark, Taken(mark, file.name, 0, False))
        if not self._continues(file, taken):
            self._send_gap(taken, taken._replace(position=self._folder.end(file)), "file cut off")
            return True
        moved, more = False, True
        while more:
            start = self._skipped.pop(mark, taken.position)
            entries = self._ready(file, self._entries(file, start, is_over))
            end = entries[-1].end if entries else start
            after = Taken(mark, file.name, end, is_over and end == file.size)
            texts = [entry.text for entry in entries if entry.text is not None]
            if texts or end - taken.position >= _SKIPPED_BYTES or (after.is_final and not taken.is_final):
                reads.send(self._connection, self._name, taken.position, after, texts)
                self._taken[mark] = taken = after
                moved = True
            elif end > taken.position:
                self._skipped[mark] = end
            self._observer.taken(len(entries), len(texts))
            more = start < end < file.size
        if taken.is_final:
            self._folder.release(mark)
        else:
            self._folder.hold(file)
        return moved

    def _continues(self, file: LogFile, taken: Taken) -> bool:
        """Whether a file still is what it was up to where it was taken. A crash of the machine may have cut it."""
        if file.size < taken.position:
            return False
        if file.fingerprint in self._checked or not taken.position or taken.is_final:
            return True
        self._checked.add(file.fingerprint)
        return self._folder.read(file, taken.position - 1, 1) in {b"\n", b""}

    def _entries(self, file: LogFile, start: int, is_over: bool) -> list[_Entry]:
        """The next lines, up to so many reads. A line without its end is left, unless the end will never come."""
        size = _CHUNK_BYTES
        data = self._folder.read(file, start, size)
        while len(data) == size and b"\n" not in data:
            size *= 4
            data = self._folder.read(file, start, size)
        at_end = start + len(data) == file.size
        block = log_position.whole_lines(data, start, with_rest=is_over and at_end)
        entries: list[_Entry] = []
        count = 0
        for line, end in zip(block.lines, block.ends, strict=True):
            entry = self._entry(file, line, end)
            entries.append(entry)
            count += entry.text is not None
            if count == _MOST_READS:
                break
        return entries

    def _entry(self, file: LogFile, line: bytes, end: int) -> _Entry:
        try:
            read = read_line(line, zone=self._zone, encoding=self._encoding) if line else None
        except UnreadableLineError:
            start = end - len(line) - 1
            self._observer.gap("line can't be read", file.name, start)
            return _Entry(end, 0, _gap("line can't be read", file.name, start, end))
        if read is None or read.database != self._database:
            return _Entry(end, 0, None)
        return _Entry(end, read.xid, orjson.dumps(to_message(read, self._statement)).decode())

    def _ready(self, file: LogFile, entries: list[_Entry]) -> list[_Entry]:
        """The entries before the first that has to wait for its transaction."""
        mark = file.fingerprint
        waited = self._waited.get(mark, 0)
        xids = [0 if entry.end <= waited else entry.xid for entry in entries]
        count = len(entries)
        if any(xids):
            count = log_position.first_open(reads.snapshot(self._connection), xids)
        if count == len(entries):
            self._waits.pop(mark, None)
        elif self._clock() - self._waits.setdefault(mark, self._clock()) > PATIENCE_S:
            del self._waits[mark]
            self._waited[mark] = file.size
            return entries
        return entries[:count]

    def _send_gap(self, before: Taken, after: Taken, reason: str) -> None:
        text = _gap(reason, before.name, before.position, after.position)
        reads.send(self._connection, self._name, before.position, after, [text])
        self._taken[after.fingerprint] = after
        self._skipped.pop(after.fingerprint, None)
        self._observer.gap(reason, before.name, before.position)


def _gap(reason: str, file: str, start: int, end: int) -> str:
    return orjson.dumps({"gap": reason, "file": file, "from": start, "to": end}).decode()


def _zone(name: str) -> ZoneInfo | None:
    """The zone of that name, if this host knows it; a time of which the zone isn't known is sent as it was logged."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _codec(encoding: str) -> str:
    """Python's codec for a server's encoding; Latin 1, byte for byte, where there is none."""
    name = encoding.lower().replace("win", "cp")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "latin-1"
