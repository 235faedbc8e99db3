"""Anchors: block hashes kept where an administrator of the audit database can't reach them.

``file:/path`` is a file that only grows. Each anchor is one line of JSON, in UTF-8, with these keys in this order::

    {"schema":"audit","block":4711,"hash":"<64 hex digits>","signature":"<128 hex digits>"|null,"key_id":"<16>"|null,
     "written_at":"2026-11-22 19:19:02.123+00"}

``hash`` is the block's block_hash, ``signature`` and ``written_at`` are the ledger's too. A line stands for a block that was
durable before the line was written, and with it for all blocks before. A line that was cut short (it stands for nothing) is
followed by an empty one, unless it is the last.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from cdc_audit.errors import SettingError
from cdc_audit.model.ledger import Receipt

INTERVAL = 60.0
_SCHEME = "file:"


class FileAnchor:
    """An append-only file."""

    def __init__(self, target: str) -> None:
        """Raises SettingError if ``target`` isn't ``file:`` and an absolute path."""
        path = target.removeprefix(_SCHEME)
        if not target.startswith(_SCHEME) or not path.startswith("/"):
            raise SettingError(
                f"[ledger] anchors: {target} is not known here",
                remedy='say "file:/an/absolute/path"; other kinds of anchors are not there yet',
            )
        self.target = target
        self._path = Path(path)

    def append(self, line: bytes) -> None:
        """Add a line, durably. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags, 0o644), "ab", buffering=0) as file:
            torn = file.tell() > 0 and not self._ends_well()
            file.write((b"\n\n" if torn else b"") + line + b"\n")
            os.fsync(file.fileno())

    def _ends_well(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


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
    """Writes the newest durable block to each target: at most every ``INTERVAL`` seconds, and on ``flush``.

    A target that fails is reported and tried again with the next block; it never stops anything else.
    """

    def __init__(self, targets: Sequence[str], schema: str, on_failure: Callable[[str, str], None]) -> None:
        """``on_failure`` is told the target and the reason. Raises SettingError for a target of an unknown kind."""
        self._files = [FileAnchor(target) for target in targets]
        self._schema = schema
        self._on_failure = on_failure
        self._newest: Receipt | None = None
        self._arrived = asyncio.Event()
        self._written_at = -INTERVAL

    def note(self, receipt: Receipt) -> None:
        """A block is durable."""
        if self._files:
            self._newest = receipt
            self._arrived.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(max(0.0, self._written_at + INTERVAL - time.monotonic()))
            await self.flush()

    async def flush(self) -> None:
        """Write the newest block now, unless it is written already. Doesn't block the loop."""
        receipt, self._newest = self._newest, None
        self._arrived.clear()
        if receipt is None:
            return
        self._written_at = time.monotonic()
        line = anchor_line(self._schema, receipt)
        for file in self._files:
            try:
                await asyncio.to_thread(file.append, line)
            except OSError as error:
                self._on_failure(file.target, error.strerror or type(error).__name__)
