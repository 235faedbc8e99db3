"""A source, an audit database and a clock that exist only in memory, around the real session: ``Session`` and all below it.

They do what the real ones may do at their worst, and check at each step what must hold: a block is whole transactions and all of
them through its position; nothing is confirmed that no block holds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from cdc_audit.config import Config
from cdc_audit.errors import LedgerMovedError, UnavailableError
from cdc_audit.model.event import Begin, Commit, Decoded, Event, Message, Shape
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.pipeline.pump import Decoder
from cdc_audit.pipeline.session import Session
from cdc_audit.pipeline.spool import Spool
from cdc_audit.sink.writer import Writer
from cdc_audit.source.sidecar import Sidecar, TableTroubles
from cdc_audit.source.slot import SlotInfo
from cdc_audit.source.stream import Received, Stream, System

SHAPE = Shape("INSERT", "public", "t", "", ("id",), (), False, ("id",), ())
COMMITTED_AT = "2026-11-22 19:19:02.555107+00"
_MOMENT = 0.001  # seconds
_USER, _RECORD, _XID, _SEQ = 9, 4, 20, 22  # fields of a line, from 0


class Clock(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: where nothing is ready, it is later at once."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        """The same, for what asks the module ``time``."""
        return self._now

    def skip(self, seconds: float) -> None:
        """Later by so much, and a bit: what a program does takes time, too."""
        self._now += max(seconds, _MOMENT)


class _Skipping(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for something that never comes"
        self._clock.skip(timeout)
        return []


class Transaction(NamedTuple):
    """Committed on the source; ``first_row`` counts all rows, from 1."""

    xid: int
    end_lsn: int
    rows: int
    first_row: int
    user: str

    def messages(self) -> Iterator[Event]:
        yield Begin(self.xid, self.end_lsn, COMMITTED_AT)
        for n in range(self.rows):
            if n == 1 and self.user:  # the first row, too, takes it
                said = f'{{"user_id": "{self.user}"}}'
                yield Message(True, "cdc_audit.context", said, self.end_lsn)
            yield SHAPE, [b"%d" % (self.first_row + n)], []
        yield Commit(self.end_lsn)

    def stored(self) -> list[tuple[str, str, str, str]]:
        """What the trail must hold: record, user, transaction, place in it."""
        user = self.user if self.rows > 1 else ""
        return [(str(self.first_row + n), user, str(self.xid), str(n + 1)) for n in range(self.rows)]


@dataclass(slots=True)
class Source:
    """The server: its transactions in commit order, and the slot. ``saved_lsn`` is what a crash leaves of ``confirmed_lsn``."""

    wal: int = 100
    confirmed_lsn: int = 100
    saved_lsn: int = 100
    rows: int = 0
    transactions: list[Transaction] = field(default_factory=list)
    sends_again: bool = False  # it begins at the slot's position, wherever it is asked to
    stream: FakeStream | None = None

    def commit(self, rows: int, user: str) -> None:
        self.wal += 10
        xid = 700 + len(self.transactions)
        self.transactions.append(Transaction(xid, self.wal, rows, self.rows + 1, user))
        self.rows += rows

    def crash(self) -> None:
        self.confirmed_lsn = self.saved_lsn
        if self.stream is not None:
            self.stream.breaks()
        self.stream = None

    def wanted(self, lsn: int) -> list[tuple[str, str, str, str]]:
        """What the trail must hold through a position."""
        return [row for one in self.transactions if one.end_lsn <= lsn for row in one.stored()]


class FakeStream:
    """The replication connection. ``send`` and ``keepalive`` are the server's side."""

    def __init__(self, source: Source, store: Store) -> None:
        self._source = source
        self._store = store
        self._waiting: list[Event] = []  # of the transaction that is being sent
        self._sending: Transaction | None = None
        self._next = 0
        self._items: list[bytes | Any] = []
        self._events: list[Event] = []
        self._wal_end = 0
        self._wants_reply = False
        self._readable = asyncio.Event()
        self._is_broken = False
        self.is_streaming = False
        self.is_dead = False  # its process is: nothing that it does counts

    def begin(self, lsn: int) -> None:
        source = self._source
        start = source.confirmed_lsn if source.sends_again else max(lsn, source.confirmed_lsn)
        self._next = sum(one.end_lsn <= start for one in source.transactions)
        self.is_streaming = True
        source.stream = self

    def send(self, messages: int) -> None:
        """The server sends so many more messages, if it has them."""
        for _ in range(messages):
            if not self._waiting:
                self._sending = None
                if self._next == len(self._source.transactions):
                    break
                self._sending = self._source.transactions[self._next]
                self._waiting = list(self._sending.messages())
                self._next += 1
            self._items.append(b"%d" % len(self._events))
            self._events.append(self._waiting.pop(0))
        self._readable.set()

    def keepalive(self, *, wants_reply: bool) -> None:
        """As far ahead as a server may say: in a transaction its end, else just before the next one's."""
        unsent = self._source.transactions[self._next :]
        if self._waiting and self._sending:
            self._wal_end = max(self._wal_end, self._sending.end_lsn)
        else:
            self._wal_end = max(self._wal_end, unsent[0].end_lsn - 1 if unsent else self._source.wal)
        self._wants_reply = wants_reply
        self._readable.set()

    def breaks(self) -> None:
        self._is_broken = True
        self._readable.set()

    def decode(self, line: bytes) -> Event:
        return self._events[int(line)]

    def decode_many(
        self, items: Sequence[object], position: int, events: list[Decoded], *, through_commits: bool
    ) -> int:
        """Nothing is compiled here."""
        return position

    def decode_notice(self, text: str) -> None:
        """There are none."""

    async def identify(self) -> System:
        return System("77", 1, "", "app")

    async def wal_sender_timeout(self) -> float:
        return 6.0

    def receive(self) -> Received:
        if self._is_broken or not self.is_streaming:
            raise UnavailableError("source database: the stream broke off")
        items, self._items = self._items, []
        wants_reply, self._wants_reply = self._wants_reply, False
        self._readable.clear()
        return Received(items, 10 * len(items), self._wal_end, COMMITTED_AT, wants_reply)

    def wake(self) -> None:
        self._readable.set()

    async def wait(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._readable.wait()
        except TimeoutError:
            pass

    async def rest(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def report(self, flushed: int) -> None:
        if self.is_dead or not self.is_streaming:
            return
        if self._is_broken:
            raise UnavailableError("source database: the stream broke off")
        assert flushed <= self._store.end_lsn, "a position was confirmed that no block holds"
        self._source.confirmed_lsn = max(self._source.confirmed_lsn, flushed)

    async def close(self) -> None:
        self.is_streaming = False
        if self._source.stream is self:
            self._source.stream = None


@dataclass(slots=True)
class Store:
    """The audit database. The next COMMITs take ``delay`` seconds; one that is broken off counts if ``counts_broken_off``."""

    source: Source
    blocks: list[tuple[Block, bytes]] = field(default_factory=list)
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    delay: float = 0.0
    loses_answer: bool = False
    counts_broken_off: bool = False
    is_locked: bool = False

    @property
    def end_lsn(self) -> int:
        """Through where a block says that everything is stored."""
        return self.blocks[-1][0].end_lsn if self.blocks else 0

    def apply(self, block: Block, hash_: bytes, lines: list[bytes]) -> None:
        """COMMIT, and what must hold of it."""
        if block.block < len(self.blocks):
            raise LedgerMovedError("audit database: the number is taken")
        assert block.block == len(self.blocks), "a block is missing"
        if self.blocks:
            last, last_hash = self.blocks[-1]
            assert (block.prev_hash, block.start_lsn) == (last_hash, last.end_lsn), "the chain is broken"
            assert block.end_lsn >= last.end_lsn, "a block goes back"
        assert block.row_count == len(lines), "the header doesn't tell its rows"
        for n, line in enumerate(lines):
            fields = line.decode().split("\t")
            assert int(fields[0]) == len(self.rows) + 1 == block.first_id + n, "ids are not dense"
            user = fields[_USER].replace("\\N", "")
            self.rows.append((fields[_RECORD], user, fields[_XID], fields[_SEQ]))
        self.blocks.append((block, hash_))
        assert self.rows == self.source.wanted(block.end_lsn), (
            "the trail isn't the source through the block's position"
        )


class FakeWriter:
    """The connection to the audit database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: list[bytes] = []
        self._breaking = asyncio.Event()
        self._is_committing = False

    def breaks(self) -> None:
        """The server is gone, or the process that would have heard it."""
        self._breaking.set()

    async def ping(self) -> None:
        self.look()

    async def last_block(self) -> tuple[Block, bytes] | None:
        self.look()
        return self._store.blocks[-1] if self._store.blocks else None

    async def write(self, lines: bytes, month: str, openings: bytes = b"") -> None:
        self.look()
        self._lines += lines.splitlines()

    async def commit(self, block: Block, block_hash: bytes) -> Receipt:
        self.look()
        lines, self._lines = self._lines, []
        store = self._store
        try:
            async with asyncio.timeout(max(store.delay, 1e-6)):
                await self._breaking.wait()
        except TimeoutError:
            store.apply(block, block_hash, lines)
            if store.loses_answer:
                store.loses_answer = False
                raise UnavailableError("audit database: the connection broke") from None
            return Receipt(block, block_hash, store.delay)
        except asyncio.CancelledError:
            if store.counts_broken_off:
                store.apply(block, block_hash, lines)
            raise
        if store.counts_broken_off:
            store.apply(block, block_hash, lines)
        raise UnavailableError("audit database: the connection broke")

    def look(self) -> None:
        if self._breaking.is_set():
            raise UnavailableError("audit database: the connection broke")


class FakeSidecar:
    """The SQL connection to the source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def slot(self) -> SlotInfo:
        source = self._source
        lag = source.wal - source.confirmed_lsn
        return SlotInfo(
            "s", "wal2json", "app", source.stream is not None, None, source.confirmed_lsn, source.confirmed_lsn, lag, lag,
            "reserved", None, 0, False, None, None, True,
        )  # fmt: skip

    async def context_keys(self) -> Mapping[str, Any]:
        return {}

    async def tables(self) -> TableTroubles:
        return TableTroubles(0, (), ())

    async def harm_to_event_triggers(self) -> str:
        return ""


class SimulatedSession(Session):
    """The real session on connections to what is simulated. ``die`` is SIGKILL: nothing that it does afterwards counts."""

    source: Source
    store: Store

    async def _open_audit(self, connections: AsyncExitStack) -> None:
        self._writer = cast("Writer", FakeWriter(self.store))

    async def _open_sidecar(self, connections: AsyncExitStack) -> None:
        self._sidecar = cast("Sidecar", FakeSidecar(self.source))

    async def _open_stream(self, connections: AsyncExitStack) -> None:
        self._stream = cast("Stream", FakeStream(self.source, self.store))
        connections.push_async_callback(self._stream.close)

    async def _start_stream(self, config: Config, lsn: int) -> tuple[Decoder, Spool | None]:
        stream = cast("FakeStream", self._stream)
        stream.begin(lsn)
        return cast("Decoder", stream), None

    def die(self) -> None:
        if self._stream is not None:
            cast("FakeStream", self._stream).is_dead = True

    def lose_audit(self) -> None:
        if self._writer is not None:
            cast("FakeWriter", self._writer).breaks()
