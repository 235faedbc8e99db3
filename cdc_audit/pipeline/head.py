"""The ledger's head at a session's start: what has to be written before anything else, and so where the stream is resumed."""

from __future__ import annotations

from datetime import UTC, datetime

from cdc_audit import failpoint
from cdc_audit.config import Source
from cdc_audit.errors import SettingError
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.model.observer import Observer
from cdc_audit.pipeline import reconcile
from cdc_audit.seal.block import NO_HASH
from cdc_audit.seal.signature import Signer, begins_signing
from cdc_audit.sink import ledger
from cdc_audit.sink.anchor import Anchors
from cdc_audit.sink.sink import Sink
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.stream import Stream


class Head:
    """What ``reconcile`` decides, done: ``settle`` once, with all connections up and the lock held."""

    def __init__(
        self, source: Source, *, writer: Sink, signer: Signer | None, anchors: Anchors, observer: Observer
    ) -> None:
        self._source = source
        self._writer = writer
        self._signer = signer
        self._anchors = anchors
        self._observer = observer
        self.source_lsn = 0  # where the source stood

    async def settle(
        self, stream: Stream, sidecar: Sidecar, *, accept_gap: str, poison: reconcile.Poison | None
    ) -> tuple[Block, bytes, int]:
        """The ledger's last block after whatever had to be written first, its hash, and the source's timeline."""
        name = self._source.slot
        system = await stream.identify()
        slot = await sidecar.slot()
        if slot is None:
            raise SettingError(f"replication slot {name} does not exist", remedy="cdc-audit slot create")
        self.source_lsn = slot.confirmed_flush_lsn + slot.lag_bytes
        last = await self._writer.last_block()
        if last is None:
            start = slot.confirmed_flush_lsn
            first = ledger.before_genesis(system.system_identifier, name, start), NO_HASH
            detail: dict[str, object] = {"database": system.database, "plugin": slot.plugin}
            genesis = reconcile.NewBlock("genesis", start, start, detail)
            last = await self._append(*first, genesis, system.timeline)
        if begins_signing(last[0], self._signer):
            last = await self._begin_signing(*last)
        history = await stream.timeline_history(system.timeline) if system.timeline > 1 else ""
        state = reconcile.SourceState(
            system.system_identifier, system.timeline, history, name, slot.plugin, slot.confirmed_flush_lsn
        )
        blocks = reconcile.resume(
            last[0], state, plugin=self._source.plugin, accept_gap=accept_gap, poison=poison
        ).blocks
        for block in blocks:
            failpoint.reached("reconciling")
            last = await self._append(*last, block, system.timeline)
            self._observer.warned(
                "ledger_block",
                kind=block.kind,
                start=format_lsn(block.start_lsn),
                end=format_lsn(block.end_lsn),
            )
        failpoint.reached("reconciled")
        return *last, system.timeline

    async def _append(
        self, previous: Block, previous_hash: bytes, new: reconcile.NewBlock, timeline: int
    ) -> tuple[Block, bytes]:
        block, hash_ = ledger.without_rows(
            previous, previous_hash, kind=new.kind, start_lsn=new.start_lsn, end_lsn=new.end_lsn, detail=new.detail,
            timeline=timeline, written_at=ledger.timestamp(datetime.now(UTC)), signer=self._signer,
        )  # fmt: skip
        return await self._commit(block, hash_)

    async def _begin_signing(self, previous: Block, previous_hash: bytes) -> tuple[Block, bytes]:
        assert self._signer
        now = ledger.timestamp(datetime.now(UTC))
        self._observer.informed("signing_begins", key_id=self._signer.key_id, block=previous.block + 1)
        return await self._commit(
            *ledger.key_block(previous, previous_hash, new=self._signer, old=None, written_at=now)
        )

    async def _commit(self, block: Block, hash_: bytes) -> tuple[Block, bytes]:
        receipt = await self._writer.commit(block, hash_)
        self._anchors.note(receipt)
        return receipt.block, receipt.block_hash
