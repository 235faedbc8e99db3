"""Between making lines and storing them: a queue bounded in bytes, and the task that empties it into the writer.

So decoding and COPY overlap, nothing that is made waits for a round trip, and a slow audit database slows down the reader
instead of filling the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from cdc_audit.model.ledger import Receipt
from cdc_audit.seal.builder import Sealed
from cdc_audit.sink.sink import Sink

_LIMIT_BYTES = 4 * 1024 * 1024
_PING_INTERVAL = 3.0  # seconds without anything to write
_HEADER_BYTES = 1024  # what a block's header counts for


class Delivery:
    """``put_lines`` and ``put_block`` in order; ``run`` delivers them in that order until it is cancelled or fails.

    ``confirm`` comes before each COMMIT, when all of the block was received, and raises if it must not be stored.
    """

    def __init__(
        self,
        writer: Sink,
        on_receipt: Callable[[Receipt, Sealed], None],
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._writer = writer
        self._on_receipt = on_receipt
        self._confirm = confirm
        self._queue: deque[tuple[bytes, str, bytes] | Sealed] = deque()
        self._size = 0
        self._is_busy = False
        self._waiting_since = 0.0
        self._changed = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether all that was put is durable, or only waits for its block's end."""
        return not self._queue and not self._is_busy

    def stalled_for(self) -> float:
        """Seconds since the writer last got anything done, 0 if it has nothing to do."""
        return 0.0 if self.is_idle else time.monotonic() - self._waiting_since

    async def put_lines(self, lines: bytes, month: str, openings: bytes = b"") -> None:
        """Lines of the open block, whose rows lie in ``month`` ("2026-11"), and the openings of their personal values.

        Waits while too much is queued.
        """
        await self._put((lines, month, openings), len(lines) + len(openings))

    async def put_block(self, sealed: Sealed) -> None:
        """The end of the open block."""
        await self._put(sealed, _HEADER_BYTES)

    async def drained(self) -> None:
        """Return when all that was put is durable."""
        while not self.is_idle:
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Deliver for ever. Raises what the writer and ``confirm`` raise."""
        while True:
            while not self._queue:
                await self._rest()
            item = self._queue.popleft()
            self._is_busy = True
            if isinstance(item, Sealed):
                if self._confirm is not None:
                    await self._confirm()
                receipt = await self._writer.commit(item.block, item.block_hash)
                self._size -= _HEADER_BYTES
                self._on_receipt(receipt, item)
            else:
                await self._writer.write(*item)
                self._size -= len(item[0]) + len(item[2])
            self._is_busy = False
            self._waiting_since = time.monotonic()
            self._changed.set()

    async def _rest(self) -> None:
        """Until there is something to do; after a while, see whether the writer's server is still there."""
        self._changed.clear()
        try:
            async with asyncio.timeout(_PING_INTERVAL):
                await self._changed.wait()
        except TimeoutError:
            await self._writer.ping()

    async def _put(self, item: tuple[bytes, str, bytes] | Sealed, size: int) -> None:
        while self._size and self._size + size > _LIMIT_BYTES:
            self._changed.clear()
            await self._changed.wait()
        if self.is_idle:
            self._waiting_since = time.monotonic()
        self._queue.append(item)
        self._size += size
        self._changed.set()
