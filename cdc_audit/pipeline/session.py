"""One session: both connections up, reconciled, streaming, until something ends it. What it could not finish is read again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial

from cdc_audit import failpoint
from cdc_audit.config import Config
from cdc_audit.decode.pgoutput import PgOutputDecoder
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import CdcAuditError, PoisonError, UnavailableError
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.alert import AlertKind, DdlAlert
from cdc_audit.model.ledger import Receipt
from cdc_audit.model.lsn import format_lsn
from cdc_audit.model.observer import BlockCounts, Observer, SlotState
from cdc_audit.pipeline import reconcile
from cdc_audit.pipeline.delivery import Delivery
from cdc_audit.pipeline.head import Head
from cdc_audit.pipeline.leftovers import Leftovers
from cdc_audit.pipeline.pump import Decoder, Pump
from cdc_audit.pipeline.spool import Spool
from cdc_audit.pipeline.suspicion import Suspicion
from cdc_audit.postgres import answered
from cdc_audit.seal.builder import BlockBuilder, Sealed
from cdc_audit.seal.redact import Redaction
from cdc_audit.seal.signature import Signer
from cdc_audit.sink.anchor import Anchors
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.sink.signing import load_signer
from cdc_audit.sink.sink import Sink, open_sink
from cdc_audit.source import publication
from cdc_audit.source.plugin_options import (
    QUOTED_NUMBERS,
    left_out,
    pgoutput_options,
    wal2json_options,
)
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.stream import Stream

# Past this, a source that wants to shut down must not wait for an audit database that does not answer.
STALL_LIMIT = 10.0
_REPORT_INTERVAL = 10.0
_POLL_INTERVAL = 1.0
_MISSES = 3  # looks in a row at which nobody reads the slot: a network lets the stream seem open for long


class Session:
    """Opens in order: audit database, lock, source, slot. ``run`` raises what ended it, and returns when told to stop or when
    ``is_superseded``: another session must go on, with another configuration.
    """

    def __init__(
        self,
        config: Config,
        observer: Observer,
        anchors: Anchors,
        should_stop: Callable[[], bool],
        accept_gap: str = "",
        poison: reconcile.Poison | None = None,
        apart_until: int = 0,
        suspicion: Suspicion | None = None,
        leftovers: Leftovers | None = None,
    ) -> None:
        """``accept_gap`` and ``poison`` are as in ``reconcile.resume``; transactions through ``apart_until`` get a block each."""
        self._leftovers = leftovers or Leftovers()
        self._suspicion = suspicion or Suspicion(())
        self._config = config
        self._observer = observer
        self._anchors = anchors
        self._should_stop = should_stop
        self._accept_gap = accept_gap
        self._poison = poison
        self._apart_until = apart_until
        self._name = f"cdc-audit {config.source.name}"
        self._writer: Sink | None = None
        self._sidecar: Sidecar | None = None
        self._stream: Stream | None = None
        self._timeline: Stream | None = None  # asks a standby which one it is on
        self._durable_lsn = 0
        self._moved = asyncio.Event()  # the durable position moved
        self._running: Pump | None = None
        self._signer: Signer | None = None
        self._source_lsn = 0  # where the source stood at the start
        self._left_out: frozenset[str] = frozenset()  # what the server was told to leave out of the stream
        self.is_superseded = False
        self.has_streamed = False
        self.has_stored = False

    @property
    def has_read_all(self) -> bool:
        """Whether all that had been committed on the source when this session began is durable, or had nothing to store."""
        return self._running is not None and self._running.settled_lsn >= self._source_lsn

    def reload(self, config: Config, redaction: Redaction) -> None:
        """Use other tables and rules from the next transaction on."""
        self._config = config
        if self._running is None or self._sidecar is None:
            return  # what is still being connected sees to it
        self._running.reload(config, redaction)
        self._sidecar.look_at(config.source.tables, config.source.exclude)
        if self._left_out - left_out(config.source.exclude):  # this stream will never hold them
            self.is_superseded = True
            self._running.end()

    def wake(self) -> None:
        """Let a stop be noticed at once."""
        if self._running is not None:
            self._running.wake()

    async def run(self) -> None:
        """From connecting to the end. Always closes its connections."""
        config = self._config
        async with AsyncExitStack() as connections:
            try:
                await self._open_audit(connections)
            except UnavailableError:
                await self._look_without_audit(connections)
                raise
            await self._open_sidecar(connections)
            await self._open_stream(connections)
            await self._work(config)

    async def _open_audit(self, connections: AsyncExitStack) -> None:
        self._signer = load_signer(self._config.ledger.signing_key_file)
        self._writer = await open_sink(self._config.audit, application_name=self._name, signer=self._signer)
        connections.push_async_callback(self._writer.close)
        await self._leftovers.lock(self._writer)

    async def _open_sidecar(self, connections: AsyncExitStack) -> None:
        source = self._config.source
        self._sidecar = await Sidecar.open(
            source.dsn,
            slot=source.slot,
            tables=source.tables,
            exclude=source.exclude,
            key_file=self._config.context.key_file,
            publication_name=source.slot if source.plugin == "pgoutput" else "",
            application_name=f"{self._name} sidecar",
        )
        connections.push_async_callback(self._sidecar.close)

    async def _open_stream(self, connections: AsyncExitStack) -> None:
        assert self._sidecar
        source = self._config.source
        self._stream = await Stream.open(
            source.dsn, application_name=f"{self._name} stream", slot=source.slot, plugin=source.plugin
        )
        connections.push_async_callback(self._stream.close)
        await self._leftovers.free_slot(self._sidecar, self._stream)
        if self._sidecar.is_standby:
            self._timeline = await Stream.open(
                self._stream.address(source.dsn),
                application_name=f"{self._name} timeline",
                slot="",
                plugin="",
            )
            connections.push_async_callback(self._timeline.close)

    async def _work(self, config: Config) -> None:
        assert self._writer and self._sidecar and self._stream
        source = config.source
        head = Head(
            source, writer=self._writer, signer=self._signer, anchors=self._anchors, observer=self._observer
        )
        last, last_hash, timeline = await head.settle(
            self._stream, self._sidecar, accept_gap=self._accept_gap, poison=self._poison
        )
        self._durable_lsn = last.end_lsn
        self._source_lsn = head.source_lsn
        timeout = await self._stream.wal_sender_timeout()
        report_interval = min(_REPORT_INTERVAL, timeout / 3) if timeout else _REPORT_INTERVAL
        decoder, spool = await self._start_stream(config, last.end_lsn)
        joiner = Joiner(prefix=config.context.prefix, accept=config.context.accept)
        joiner.learn(await self._sidecar.context_keys())
        confirm = partial(self._confirm, timeline) if self._timeline else None
        delivery = Delivery(self._writer, self._on_receipt, confirm)
        pump = Pump(
            config,
            stream=self._stream,
            sidecar=self._sidecar,
            decoder=decoder,
            spool=spool,
            joiner=joiner,
            builder=BlockBuilder(
                last,
                last_hash,
                timeline=timeline,
                redaction=load_redaction(config.redact),
                random=os.urandom,
                key_id=self._signer.key_id if self._signer else "",
                keeps_facts=bool(config.suspicious.rules),
            ),
            delivery=delivery,
            resume_lsn=last.end_lsn,
            should_stop=self._should_stop,
            apart_until=self._apart_until,
        )
        self._running = pump
        if self._config is not config:  # it was read again meanwhile
            self.reload(self._config, load_redaction(self._config.redact))
        self._observer.state("streaming", None)
        self._observer.informed("streaming", slot=source.slot, lsn=format_lsn(last.end_lsn), block=last.block)
        self.has_streamed = True
        failpoint.reached("stream-started")
        await self._together(pump, delivery, report_interval)
        self._stream.report(self._durable_lsn)

    async def _confirm(self, timeline: int) -> None:
        """A standby that is promoted, or follows another primary, streams on, at positions of another timeline from then on.
        As long as it is on this one, all that was received is, too.
        """
        assert self._timeline
        now = (await self._timeline.identify()).timeline
        if now != timeline:
            raise UnavailableError(f"source database: the standby turned from timeline {timeline} to {now}")

    async def _start_stream(self, config: Config, lsn: int) -> tuple[Decoder, Spool | None]:
        """Begin to stream after a position; what reads the plugin's messages."""
        assert self._sidecar and self._stream
        source, context = config.source, config.context
        scope, encoding = Scope(source.tables, source.exclude), await self._sidecar.encoding()
        if source.plugin == "pgoutput":
            options = pgoutput_options(publications=publication.names(source.slot))
            await self._stream.start(source.slot, source.plugin, lsn, options)
            return PgOutputDecoder(scope, encoding=encoding), Spool()
        options = wal2json_options(prefix=context.prefix, exclude=source.exclude, accept=context.accept)
        self._left_out = left_out(source.exclude)
        taken = await self._stream.start(source.slot, source.plugin, lsn, options)
        return Wal2JsonDecoder(scope, encoding=encoding, quoted_numbers=QUOTED_NUMBERS in taken), None

    async def _together(self, pump: Pump, delivery: Delivery, report_interval: float) -> None:
        """Run pump, delivery, reports and sidecar side by side; the first one to end ends all."""
        assert self._stream
        tasks = [
            asyncio.create_task(self._pump(pump, delivery)),
            asyncio.create_task(delivery.run()),
            asyncio.create_task(self._report(pump, report_interval)),
            asyncio.create_task(self._poll(pump, delivery)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except BaseException:
            await self._stream.close()  # the source must not wait for what follows
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, pump: Pump, delivery: Delivery) -> None:
        """Pump until told to stop, and until all that was pumped is durable."""
        assert self._writer
        pumping = asyncio.create_task(pump.run())
        try:
            while not pumping.done():
                await asyncio.wait([pumping], timeout=0.5)
                if delivery.stalled_for() >= STALL_LIMIT:
                    break
                if delivery.is_idle:
                    self._writer.look()
        finally:
            was_done = pumping.done()
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)
        if not was_done:
            await self._sit_out(delivery)
        if isinstance(pumping.exception(), PoisonError):
            await delivery.drained()  # what came before it is stored before anything is said about it
        pumping.result()
        try:
            async with asyncio.timeout(STALL_LIMIT):
                await delivery.drained()
        except TimeoutError:
            raise UnavailableError(
                "audit database: the open block could not be finished before stopping"
            ) from None

    async def _sit_out(self, delivery: Delivery) -> None:
        """Drop the stream: the source may want to shut down, and the audit database takes nothing. What was handed over goes
        on being written; then everything begins anew.
        """
        assert self._stream
        reason = f"the audit database has not answered for {STALL_LIMIT:.0f} s"
        self._observer.state("waiting", reason)
        self._observer.warned("stream_dropped", reason=reason)
        await self._stream.close()
        await delivery.drained()
        raise UnavailableError(f"audit database: it did not answer for more than {STALL_LIMIT:.0f} s")

    async def _report(self, pump: Pump, interval: float) -> None:
        """Tell the server what is durable: when that moved, when it asks, and in time before it gives us up."""
        assert self._stream
        reported, at = 0, 0.0
        while True:
            now = time.monotonic()
            if self._durable_lsn != reported or pump.wants_reply or now - at >= interval:
                pump.wants_reply = False
                self._stream.report(self._durable_lsn)
                if self._durable_lsn != reported:
                    failpoint.reached("acknowledged")
                reported, at = self._durable_lsn, now
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(interval, 1.0)):
                    await self._moved.wait()

    async def _poll(self, pump: Pump, delivery: Delivery) -> None:
        """Look at the slot; a source that shuts down ends this connection at once, and so the session. Look at the writer, too,
        while it has nothing to do: readiness must not wait for the next row.
        """
        assert self._stream and self._writer
        misses = 0
        while True:
            is_active = await self._look(pump.settled_lsn)
            misses = misses + 1 if self._stream.is_streaming and not is_active else 0
            if misses == _MISSES:
                raise UnavailableError("source database: the server has given the stream up, unheard")
            if delivery.is_idle:
                self._writer.look()
            await asyncio.sleep(_POLL_INTERVAL)

    async def _look(self, settled_lsn: int) -> bool:
        """Tell what the slot and the tables are like; whether somebody reads the slot. Raises UnavailableError after a while."""
        assert self._sidecar
        slot = await self._sidecar.slot()
        if slot is None:
            return False
        harm = await self._sidecar.harm_to_event_triggers()
        if harm:
            self._observer.ddl_alert(DdlAlert(AlertKind.EVENT_TRIGGER, "", harm))
        settled = max(slot.confirmed_flush_lsn, settled_lsn)
        tables = await self._sidecar.tables()
        if tables.unpublished:
            self._observer.warned(
                "tables_not_published", tables=", ".join(tables.unpublished[:10]), remedy="cdc-audit init"
            )
        if tables.refusing:
            self._observer.warned(
                "updates_refused_by_server",
                tables=", ".join(tables.refusing[:10]),
                remedy="cdc-audit source tables",
            )
        self._observer.slot_polled(
            SlotState(
                slot.active,
                slot.wal_status,
                max(0, slot.confirmed_flush_lsn + slot.lag_bytes - settled),
                slot.retained_bytes,
                slot.safe_wal_bytes,
                settled,
                tables.without_identity,
            )
        )
        return slot.active

    async def _look_without_audit(self, connections: AsyncExitStack) -> None:
        """While the audit database is away the lag still grows: look at the slot once, if the source can be reached."""
        with suppress(CdcAuditError):
            async with answered("source"):
                await self._open_sidecar(connections)
                await self._look(0)

    def _on_receipt(self, receipt: Receipt, sealed: Sealed) -> None:
        failpoint.reached("after-commit")
        self.has_stored = True
        self._durable_lsn = receipt.block.end_lsn
        self._moved.set()
        self._anchors.note(receipt)
        counts = BlockCounts(
            sealed.transactions,
            sealed.rows_by_action,
            sealed.rows_by_trust,
            sealed.suppressed_by_table,
            sealed.missing_rows,
            sealed.redacted_values,
        )
        oldest = sealed.oldest_commit_at
        self._observer.block_committed(
            receipt, counts, datetime.fromisoformat(oldest).timestamp() if oldest else 0.0
        )
        for alert in sealed.alerts:
            self._observer.ddl_alert(alert)
        self._suspicion.tell(sealed.facts, sealed.block.block, self._observer)
