"""Daemons that break one rule each, so that the tests can show that they would notice. Run as ``cdc-audit``:

    BROKEN=acknowledges-early python -m tests.chaos.broken run

The variant is patched into this process; the product has no such switch. Each function here is given how to replace an attribute:
``setattr``, or a test's ``monkeypatch.setattr``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

from cdc_audit.cli import main
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.event import Begin
from cdc_audit.model.ledger import Block
from cdc_audit.pipeline import reconcile
from cdc_audit.pipeline.delivery import Delivery
from cdc_audit.pipeline.session import Session
from cdc_audit.seal.builder import BlockBuilder, Sealed
from cdc_audit.sink.writer import Writer
from cdc_audit.source.stream import Stream

Patch: TypeAlias = Callable[[Any, str, Any], None]


def acknowledges_early(patch: Patch) -> None:
    """What is handed over to the writer counts as durable before its COMMIT has returned."""
    put_block = Delivery.put_block

    async def put_and_believe(self: Delivery, sealed: Sealed) -> None:
        session: Session = self._on_receipt.__self__  # type: ignore[attr-defined]
        session._durable_lsn = sealed.block.end_lsn
        session._moved.set()
        await put_block(self, sealed)

    patch(Delivery, "put_block", put_and_believe)


def acknowledges_wal_end(patch: Patch) -> None:
    """The server's own position is confirmed, whatever still waits for its block."""
    report = Stream.report

    def report_wal_end(self: Stream, flushed: int) -> None:
        report(self, max(flushed, self._wal_end))

    patch(Stream, "report", report_wal_end)


def has_no_fence(patch: Patch) -> None:
    """No lock, and numbers that are nobody else's: as with a table whose keys come from a sequence."""
    init = BlockBuilder.__init__

    async def lock_nothing(self: Writer) -> bool:
        return True

    def number_apart(self: BlockBuilder, previous: Block, previous_hash: bytes, **rest: Any) -> None:
        step = os.getpid()
        moved = previous._replace(block=previous.block + step, first_id=previous.first_id + 1000 * step)
        init(self, moved, previous_hash, **rest)

    patch(Writer, "try_lock", lock_nothing)
    patch(BlockBuilder, "__init__", number_apart)


def ignores_timelines(patch: Patch) -> None:
    """After a promotion the stream goes on at the ledger's position: what lies before it counts as stored."""

    def turn(last: Block, source: reconcile.SourceState) -> reconcile.NewBlock:
        return reconcile.NewBlock("timeline", last.end_lsn, last.end_lsn, {})

    patch(reconcile, "_turn_of_timeline", turn)


def carries_contexts(patch: Patch) -> None:
    """A transaction without a context takes the one of the transaction before it."""
    begin = Joiner._begin

    def begin_and_keep(self: Joiner, event: Begin) -> None:
        context = self._context
        begin(self, event)
        self._context = context

    patch(Joiner, "_begin", begin_and_keep)


VARIANTS: dict[str, Callable[[Patch], None]] = {
    "acknowledges-early": acknowledges_early,
    "acknowledges-wal-end": acknowledges_wal_end,
    "has-no-fence": has_no_fence,
    "ignores-timelines": ignores_timelines,
    "carries-contexts": carries_contexts,
}


def patch_here(owner: object, name: str, replacement: object) -> None:
    """For this process. A product that has no such attribute any more would not be broken by it."""
    assert hasattr(owner, name), f"there is no {name} any more"
    setattr(owner, name, replacement)


if __name__ == "__main__":
    VARIANTS[os.environ["BROKEN"]](patch_here)
    main()
