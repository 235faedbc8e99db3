"""The loop: drain the stream, decode, join, seal, hand over. It decides nothing; ``batch`` and ``ack`` do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from cdc_audit import failpoint
from cdc_audit.config import Config
from cdc_audit.decode.scope import Scope
from cdc_audit.errors import PoisonError, StreamError, UnknownTypeError
from cdc_audit.join import ddl
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.alert import DdlAlert
from cdc_audit.model.catalog import Catalog
from cdc_audit.model.event import ApplicationEvent, Commit, Decoded, Event, Stretch
from cdc_audit.pipeline import ack, batch
from cdc_audit.pipeline.delivery import Delivery
from cdc_audit.pipeline.spool import Spool
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.redact import Redaction
from cdc_audit.sink.ledger import timestamp
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.stream import Notice, Received, Stream

_TICK = 1.0  # seconds between two looks at the clock when nothing arrives
_STOP_GRACE = 5.0  # seconds that a transaction too large to hold may take to end after a stop


class Decoder(Protocol):
    """What ``decode.wal2json`` and ``decode.pgoutput`` have in common."""

    def decode_many(  # noqa: D102 - see there
        self, items: Sequence[object], position: int, events: list[Decoded], /, *, through_commits: bool
    ) -> int: ...
    def decode(self, line: bytes, /) -> Decoded: ...  # noqa: D102
    def decode_notice(self, text: str) -> Event | None: ...  # noqa: D102
    def learn(self, catalog: Catalog) -> None: ...  # noqa: D102
    def rescope(self, scope: Scope) -> None: ...  # noqa: D102
    @property
    def catalog(self) -> Catalog: ...  # noqa: D102


class Pump:
    """Moves one stream's changes into the delivery, from ``resume_lsn`` on, until ``should_stop`` says so."""

    def __init__(
        self,
        config: Config,
        *,
        stream: Stream,
        sidecar: Sidecar,
        decoder: Decoder,
        spool: Spool | None,
        joiner: Joiner,
        builder: BlockBuilder,
        delivery: Delivery,
        resume_lsn: int,
        should_stop: Callable[[], bool],
        apart_until: int = 0,
    ) -> None:
        self._config = config
        self._stream = stream
        self._sidecar = sidecar
        self._decoder = decoder
        self._spool = spool
        self._joiner = joiner
        self._builder = builder
        self._delivery = delivery
        self._resume_lsn = resume_lsn
        self._should_stop = should_stop
        self._apart_until = apart_until  # transactions up to there get a block each: then one fails
        self._month = ""
        self._chunk = 0
        self._oldest = 0.0  # when the open block's first rows came in
        self._last_block = time.monotonic()
        self._ledger_lsn = resume_lsn
        self._idle_lsn = resume_lsn
        self._scope = Scope(config.source.tables, config.source.exclude)
        self._alerts: list[DdlAlert] = []  # of the open block
        self._next_rules: tuple[Config, Redaction] | None = None  # for the next transaction
        self._is_to_end = False
        self.wants_reply = False

    @property
    def settled_lsn(self) -> int:
        """The position through which everything is durable, or was received and had nothing to store."""
        if self._builder.rows or not self._delivery.is_idle:
            return 0
        return self._idle_lsn

    def reload(self, config: Config, redaction: Redaction) -> None:
        """Use other tables and rules from the next transaction on: one that is being read keeps those it began with."""
        self._next_rules = config, redaction

    def end(self) -> None:
        """Let ``run`` return at the next end of a transaction, and take nothing of one that comes after it."""
        self._is_to_end = True
        self.wake()

    def wake(self) -> None:
        """Look at once whether it is time to stop: nothing may arrive for a tick."""
        self._stream.wake()

    async def run(self) -> None:
        """Return when told to, with all whole transactions handed over in closed blocks."""
        stop_seen = nap = 0.0
        while not (self._is_to_end and not self._builder.is_mid_transaction):
            try:
                received = self._stream.receive()
                self.wants_reply |= received.reply_requested
                if received.items:
                    await self._take(received)
            except StreamError as error:
                raise self._poison(error) from error
            await self._close_if_due(received)
            if self._should_stop():
                stop_seen = stop_seen or time.monotonic()
                if not self._builder.is_mid_transaction or time.monotonic() - stop_seen > _STOP_GRACE:
                    break
            if received.items:
                behind = batch.seconds_behind(
                    committed_at=self._builder.last_commit_at, sent_at=received.sent_at
                )
                nap = batch.nap(self._config.batch, size=received.size, last=nap, behind=behind)
                await self._stream.rest(nap)
            else:
                await self._stream.wait(self._patience())
        if self._builder.rows and not self._builder.is_mid_transaction:
            await self._close("data")

    async def _take(self, received: Received) -> None:
        """One look's messages, all the way into the open block."""
        if self._spool is None:
            await self._process(received.items, received.size, received.sent_at)
            return
        for piece in self._spool.feed(received.items):
            await self._process(piece, sum(map(len, piece)), received.sent_at)

    async def _process(self, items: list[bytes | Notice], size: int, sent_at: str) -> None:
        position = 0
        while position < len(items):
            if not self._joiner.in_transaction:
                if self._is_to_end:
                    return
                if self._next_rules is not None:
                    self._use(*self._next_rules)
            events, position, failure = await self._decoded(items, position)
            if self._joiner.unknown_keys(events):
                self._joiner.learn(await self._sidecar.context_keys())
            for stretch in self._joiner.join(events, size, sent_at):
                # Else the ledger has it: the slot went back.
                if stretch.transaction.end_lsn > self._resume_lsn:
                    await self._add(stretch)
            if failure is not None:
                raise failure
            size = 0  # counted once

    def _use(self, config: Config, redaction: Redaction) -> None:
        self._next_rules = None
        self._config = config
        self._scope = Scope(config.source.tables, config.source.exclude)
        self._decoder.rescope(self._scope)
        self._builder.set_redaction(redaction)
        self._builder.keep_facts(bool(config.suspicious.rules))

    async def _decoded(
        self, items: list[bytes | Notice], position: int
    ) -> tuple[list[Decoded], int, StreamError | None]:
        """The events of the items from ``position`` on, up to one that can't be decoded, or to a COMMIT if other rules wait for
        one; and the position after them. What the decoder must look up first is looked up in between.
        """
        events: list[Decoded] = []
        decoder = self._decoder
        decode, decode_notice, decode_many = decoder.decode, decoder.decode_notice, decoder.decode_many
        count = len(items)
        while position < count:
            is_last = self._next_rules is not None or self._is_to_end  # perhaps since something was looked up
            try:
                while (position := decode_many(items, position, events, through_commits=not is_last)) < count:
                    item = items[position]
                    event = decode(item) if isinstance(item, bytes) else decode_notice(item.text)
                    events.append(event)
                    position += 1
                    if is_last and type(event) is Commit:
                        return events, position, None
            except UnknownTypeError as unknown:
                found = await self._sidecar.look_up(unknown.type_oids, unknown.tables)
                self._decoder.learn(self._decoder.catalog.with_found(*found))
            except StreamError as failure:
                return events, position, failure
        return events, position, None

    def _poison(self, error: StreamError) -> StreamError:
        """The error, as one of the transaction that is being read, if one is."""
        begin = self._joiner.transaction
        xid, end_lsn = (
            (begin.xid, begin.end_lsn) if begin else self._spool.transaction if self._spool else (0, 0)
        )
        if not end_lsn:
            return error
        lsn = error.lsn if isinstance(error, PoisonError) else 0
        return PoisonError(error.message, lsn=lsn or end_lsn, xid=xid, end_lsn=end_lsn)

    async def _add(self, stretch: Stretch) -> None:
        builder = self._builder
        if not builder.fits(stretch):
            await self._close("data")
        if not builder.rows:
            self._oldest = time.monotonic()
            self._month = stretch.transaction.committed_at[:7]
        builder.add(stretch)
        first = stretch.changes[0] if stretch.changes else None
        if isinstance(first, ApplicationEvent) and first.action == ddl.ACTION:
            self._alerts += ddl.alerts(first, self._scope.covers)
        if builder.size - self._chunk >= batch.CHUNK_BYTES:
            await self._hand_over()
        if stretch.ends and builder.rows:
            is_apart = stretch.transaction.end_lsn <= self._apart_until
            if is_apart or batch.is_full(self._config.batch, rows=builder.rows, size=builder.size):
                await self._close("data")

    async def _close_if_due(self, received: Received) -> None:
        builder, now = self._builder, time.monotonic()
        self._idle_lsn = ack.idle_position(
            committed_lsn=builder.end_lsn,
            wal_end=received.wal_end,
            in_transaction=self._joiner.in_transaction
            or (self._spool is not None and self._spool.is_holding),
        )
        if builder.is_mid_transaction:
            return
        age = now - self._oldest
        is_dry, is_idle = not received.items, self._delivery.is_idle
        if batch.is_due(
            self._config.batch, rows=builder.rows, age=age, is_dry=is_dry, is_writer_idle=is_idle
        ):
            await self._close("data")
            return
        idle_lsn = self._idle_lsn
        if ack.is_heartbeat_due(
            since_last_block=now - self._last_block,
            interval=self._config.ledger.heartbeat_interval,
            ledger_lsn=self._ledger_lsn,
            idle_lsn=idle_lsn,
            has_rows=bool(builder.rows),
        ):
            await self._close("heartbeat", idle_lsn)

    async def _hand_over(self) -> None:
        self._chunk = self._builder.size
        if self._builder.is_mid_transaction:
            failpoint.reached("mid-transaction")
        await self._delivery.put_lines(self._builder.take(), self._month, self._builder.take_openings())

    async def _close(self, kind: str, end_lsn: int = 0) -> None:
        if self._builder.size > self._chunk:
            await self._hand_over()
        sealed = self._builder.close(kind=kind, written_at=timestamp(datetime.now(UTC)), end_lsn=end_lsn)
        self._chunk = 0
        self._last_block = time.monotonic()
        self._ledger_lsn = sealed.block.end_lsn
        sealed = sealed._replace(alerts=tuple(self._alerts))
        self._alerts.clear()
        failpoint.reached("block-closed")
        await self._delivery.put_block(sealed)

    def _patience(self) -> float:
        """Seconds to wait for input: until the open block is due, but not past a tick."""
        if not self._builder.rows:
            return _TICK
        interval = self._config.batch.flush_interval
        if interval == 0:
            return 0.002  # the writer is busy: look again soon
        return min(_TICK, max(0.0, interval - (time.monotonic() - self._oldest)))
