"""The present rows of tables into the trail, as rows ``SNAPSHOT``: it begins with known state, or goes on from it after a gap.

All rows of a run carry the position X of its snapshot as ``commit_lsn``: they are what the transactions through X had left there.
Who asks for the state at a position goes by ``commit_lsn``, not by ``id``: ids are dense in the order of the ledger, and changes
through X that the daemon had not stored yet stand behind the snapshot's rows. Those are neither repeated nor left out: the blocks'
own position stays where the ledger's was, and the daemon resumes there.

The daemon must be stopped: lines hold their ids, and blocks the hash before them, so nobody can append while a table is read. The
slot keeps the changes meanwhile.

A table is one block, whole or not at all, whatever its size. After a kill the exported snapshot is gone: what is left to do is read
as of a new position, and the tables that are finished are not repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from cdc_audit.config import Config
from cdc_audit.errors import AnotherDaemonError, SettingError, UsageError
from cdc_audit.model.context import NO_CONTEXT
from cdc_audit.model.event import Begin, Stretch
from cdc_audit.model.jsonb import canonical
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.pipeline import reconcile
from cdc_audit.pipeline.batch import CHUNK_BYTES
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.signature import Signer, begins_signing
from cdc_audit.sink import ledger
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.sink.signing import load_signer
from cdc_audit.sink.sink import Sink, open_sink
from cdc_audit.source import slot as slots
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.snapshot import Snapshot, Table
from cdc_audit.source.stream import Stream

_NAME = "cdc-audit snapshot"
# After one of these, changes are missing that a table read before it may have had.
_BREAKS = ("gap", "divergence", "poison")


class Taken(NamedTuple):
    """A table that is in the trail: the rows it had at ``lsn``, and the block that holds them."""

    table: str
    rows: int
    block: int
    lsn: str


class Unfinished(NamedTuple):
    """A run that was cut short: the number of its first block, and the tables that it has."""

    first_block: int
    done: frozenset[str]


def unfinished(
    blocks: Iterable[tuple[int, str, Mapping[str, Any]]], tables: Sequence[str], reason: str
) -> Unfinished | None:
    """The ledger's last run, if it asked for the same, was cut short, and no change is missing since then; else None.

    ``blocks`` are number, kind and detail of all that are snapshots or one of the breaks, in order. Pure.
    """
    last: Mapping[str, Any] = {}
    done: set[str] = set()
    for _, kind, detail in blocks:
        if kind != "snapshot":
            last = {}
            continue
        if not last or detail["snapshot"] != last["snapshot"]:
            done = set()
        last = detail
        done.add(detail["table"])
    if not last or not last["left"] or (last["tables"], last["reason"]) != (list(tables), reason):
        return None
    return Unfinished(last["snapshot"], frozenset(done))


class Baseline:
    """``run`` once. ``only`` are patterns of tables, () for all that are audited; ``reason`` is for who reads the ledger.

    ``on_table`` is told each table when it is durable, ``on_progress`` the rows so far and how many there may be.
    """

    def __init__(
        self,
        config: Config,
        *,
        only: Sequence[str],
        reason: str,
        on_table: Callable[[Taken], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._config = config
        self._only = list(only) or list(config.source.tables)
        self._reason = reason
        self._on_table = on_table
        self._on_progress = on_progress
        self._signer: Signer | None = None
        self._rows = 0

    async def run(self) -> None:
        """Raises AnotherDaemonError while a daemon writes this ledger, SettingError where snapshot and ledger would not fit
        together, UsageError if no table is meant, and what the rooms raise.
        """
        audit, source = self._config.audit, self._config.source
        redaction = load_redaction(self._config.redact)
        self._signer = load_signer(self._config.ledger.signing_key_file)
        async with AsyncExitStack() as connections:
            writer = await open_sink(
                audit.model_copy(update={"dsn": audit.dsn or audit.admin_dsn}),
                application_name=_NAME,
                signer=self._signer,
            )
            connections.push_async_callback(writer.close)
            last, last_hash = await self._head(writer)
            encoding = await self._check_source(last)
            blocks = await writer.details(("snapshot", *_BREAKS))
            before = unfinished(blocks, self._only, self._reason) or Unfinished(last.block + 1, frozenset())
            snapshot = await Snapshot.take(
                source.one_time_dsn,
                encoding=encoding,
                tables=source.tables,
                exclude=source.exclude,
                only=self._only,
                done=before.done,
                application_name=_NAME,
            )
            connections.push_async_callback(snapshot.close)
            builder = BlockBuilder(
                last,
                last_hash,
                timeline=last.timeline,
                redaction=redaction,
                random=os.urandom,
                key_id=self._signer.key_id if self._signer else "",
            )
            await self._write_tables(snapshot, builder, writer, before.first_block)

    async def _head(self, writer: Sink) -> tuple[Block, bytes]:
        """Become the ledger's one writer; its last block."""
        if not await writer.try_lock():
            raise AnotherDaemonError(
                "a daemon writes this ledger",
                remedy="stop it (systemctl stop cdc-audit), repeat the command, start it again: the slot keeps the changes",
            )
        last = await writer.last_block()
        if last is None:
            raise SettingError("the ledger is empty", remedy="cdc-audit init")
        if begins_signing(last[0], self._signer):
            assert self._signer
            now = ledger.timestamp(datetime.now(UTC))
            block, hash_ = ledger.key_block(*last, new=self._signer, old=None, written_at=now)
            await writer.commit(block, hash_)
            return block, hash_
        return last

    async def _check_source(self, last: Block) -> str:
        """Whether what the slot gives follows on the ledger's end, so that nothing is missing between snapshot and changes.

        Returns Python's name of the server's encoding.
        """
        source = self._config.source
        async with AsyncExitStack() as connections:
            stream = await Stream.open(
                source.one_time_dsn, application_name=_NAME, slot=source.slot, plugin=source.plugin
            )
            connections.push_async_callback(stream.close)
            system = await stream.identify()
            history = await stream.timeline_history(system.timeline) if system.timeline > 1 else ""
            sidecar = await Sidecar.open(
                source.one_time_dsn,
                slot=source.slot,
                tables=source.tables,
                exclude=source.exclude,
                key_file="",
                publication_name="",
                application_name=_NAME,
            )
            connections.push_async_callback(sidecar.close)
            slot = await sidecar.slot()
            encoding = await sidecar.encoding()
        if slot is None:
            raise SettingError(
                f'replication slot "{source.slot}" does not exist: changes after the snapshot would be missing',
                remedy='cdc-audit slot recreate --snapshot --reason "why the slot is gone"',
            )
        slots.check_fit(slot, system.database, source.plugin)
        state = reconcile.SourceState(
            system.system_identifier,
            system.timeline,
            history,
            source.slot,
            slot.plugin,
            slot.confirmed_flush_lsn,
        )
        if reconcile.resume(last, state, plugin=source.plugin).blocks:
            raise SettingError(
                f"the source is on timeline {system.timeline}, the ledger ends on {last.timeline}",
                remedy="start the daemon, which records the promotion; stop it and repeat the command",
            )
        return encoding

    async def _write_tables(
        self, snapshot: Snapshot, builder: BlockBuilder, writer: Sink, first_block: int
    ) -> None:
        if not snapshot.tables:
            raise UsageError(
                f"no audited table with anything left to read matches {', '.join(self._only)}",
                remedy="cdc-audit source tables",
            )
        expected = sum(table.estimate for table in snapshot.tables)
        for number, table in enumerate(snapshot.tables, 1):
            detail = {
                "snapshot": first_block,
                "tables": self._only,
                "reason": self._reason,
                "table": table.name,
                "left": len(snapshot.tables) - number,
                "lsn": format_lsn(snapshot.lsn),
            }
            await self._write_rows(snapshot, table, builder, writer, expected)
            sealed = builder.close(
                kind="snapshot",
                written_at=ledger.timestamp(datetime.now(UTC)),
                detail=canonical(orjson.dumps(detail)).decode(),
            )
            await writer.commit(sealed.block, sealed.block_hash)
            self._on_table(
                Taken(table.name, sealed.block.row_count, sealed.block.block, format_lsn(snapshot.lsn))
            )
        self._on_progress(self._rows, self._rows)

    async def _write_rows(
        self, snapshot: Snapshot, table: Table, builder: BlockBuilder, writer: Sink, expected: int
    ) -> None:
        """Into the open block. They begin and end no transaction: so the block's position stays."""
        state = Begin(0, snapshot.lsn, snapshot.taken_at)
        sent = 0
        async with aclosing(snapshot.rows(table)) as batches:
            async for rows in batches:
                builder.add(Stretch(state, NO_CONTEXT, rows, starts=False, ends=False))  # type: ignore[arg-type]
                self._rows += len(rows)
                if builder.size - sent >= CHUNK_BYTES:
                    sent = builder.size
                    await writer.write(builder.take(), snapshot.taken_at[:7], builder.take_openings())
                    self._on_progress(self._rows, max(expected, self._rows + 1))
        if builder.rows:
            await writer.write(builder.take(), snapshot.taken_at[:7], builder.take_openings())
