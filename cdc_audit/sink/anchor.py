"""Anchors: block hashes kept where an administrator of the audit database can't reach them.

An anchor is one line of JSON, in UTF-8, with these keys in this order::

    {"schema":"audit","block":4711,"hash":"<64 hex digits>","signature":"<128 hex digits>"|null,"key_id":"<16>"|null,
     "written_at":"2026-11-22 19:19:02.123+00"}

``hash`` is the block's block_hash, ``signature`` and ``written_at`` are the ledger's too. A line stands for a block that was
durable before the line was written, and with it for all blocks before. In a file, a line that was cut short (it stands for
nothing) is followed by an empty one, unless it is the last; an endpoint gets the line as a body, S3 as an object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

import orjson

from cdc_audit import failpoint
from cdc_audit.model.anchor import AnchorKind, parse_target
from cdc_audit.model.ledger import Receipt
from cdc_audit.remote import attempt
from cdc_audit.sink.anchor_targets import Anchor, Target, open_target

INTERVAL = 60.0
LIMIT = 10.0  # no target is waited for longer than this, also not at the stop

OnResult: TypeAlias = Callable[[AnchorKind, str, str | None], None]


def anchor_line(schema: str, receipt: Receipt) -> bytes:
    """The line of a block, without line end."""
    return orjson.dumps(
        {
            "schema": schema,
            "block": receipt.block.block,
            "hash": receipt.block_hash.hex(),
            "signature": receipt.signature.hex() or None,
            "key_id": receipt.block.key_id or None,
            "written_at": receipt.block.written_at,
        }
    )


class Anchors:
    """Gives the newest durable block to each target: at most every ``INTERVAL`` seconds, and on ``close``.

    Targets know nothing of each other. One that fails is reported and gets the next block; it never stops anything else, and
    holds nothing up for longer than ``LIMIT``.
    """

    def __init__(
        self, targets: Sequence[str], schema: str, on_result: OnResult, *, token_file: str = ""
    ) -> None:
        """``on_result`` is told a target's kind and name, and why it failed, None if it did not.

        Raises SettingError where boto3 is needed and missing, ValueError for a target that isn't one.
        """
        opened = [open_target(parse_target(target), token_file) for target in targets]
        self._lanes = [_Lane(target, on_result) for target in opened]
        self._schema = schema
        self._newest: Receipt | None = None
        self._arrived = asyncio.Event()

    def note(self, receipt: Receipt) -> None:
        """A block is durable."""
        if self._lanes:
            self._newest = receipt
            self._arrived.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._arrived.wait()
            self._offer()
            await asyncio.sleep(INTERVAL)

    async def close(self) -> None:
        """Write the newest block now, unless it was given to the targets already, and wait for them: within ``LIMIT``."""
        self._offer()
        tasks = [lane.task for lane in self._lanes if lane.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _offer(self) -> None:
        receipt, self._newest = self._newest, None
        self._arrived.clear()
        if receipt is not None:
            anchor = Anchor(self._schema, receipt.block.block, anchor_line(self._schema, receipt))
            for lane in self._lanes:
                lane.offer(anchor)


class _Lane:
    """One target, one attempt at a time. Its threads are daemons: one that hangs keeps neither loop nor process."""

    def __init__(self, target: Target, on_result: OnResult) -> None:
        self._target = target
        self._on_result = on_result
        self._wanted: Anchor | None = None
        self._is_busy = False
        self.task: asyncio.Task[None] | None = None

    def offer(self, anchor: Anchor) -> None:
        """Write it, after what is being written; an older one that waits is passed over."""
        self._wanted = anchor
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Report each attempt within ``LIMIT``. Raises nothing."""
        while self._wanted is not None:
            anchor, self._wanted = self._wanted, None
            try:
                failpoint.reached("before-anchor")
                async with asyncio.timeout(LIMIT):
                    reason = await self._attempt(anchor)
            except TimeoutError:
                reason = f"no answer within {LIMIT:.0f} s"
            except asyncio.CancelledError:
                self._report("not written before the stop")
                raise
            except Exception as error:
                reason = type(error).__name__
            self._report(reason)

    def _report(self, reason: str | None) -> None:
        self._on_result(self._target.kind, self._target.name, reason)

    async def _attempt(self, anchor: Anchor) -> str | None:
        if self._is_busy:
            return "still busy with an earlier block"

        def work() -> None:
            try:
                self._target.append(anchor)
            finally:
                self._is_busy = False

        self._is_busy = True
        try:
            return await attempt(work, f"anchor {self._target.kind}")
        except RuntimeError:  # no more threads are to be had
            self._is_busy = False
            raise
