"""The trail in two Iceberg tables (``cdc_audit.lake``), written block by block, exactly once.

A table can't be committed together with another one. So a block's rows become one data file, which one snapshot of ``audit_logs``
takes in; with it, in the snapshot's properties, stand the block's header and signature. That commit makes the block durable. Then
its header becomes a row of ``ledger``. A daemon that dies in between leaves a ledger one block short: the next one finds the
header in the snapshot. A data file that no snapshot has taken in is nobody's: its block is written anew.

Each commit demands the snapshot that this writer saw last, and is not tried again. So of two daemons one fails, whatever both
believe. A table's upkeep by others (compaction) is told from that: it leaves the last block where it was.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Any, TypeVar

import orjson

from cdc_audit import failpoint, lake
from cdc_audit.errors import AnotherDaemonError, CdcAuditError, SettingError, UnavailableError
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.postgres import Backend
from cdc_audit.seal.parquet import RowsFile
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger

# Taken into Arrow at a time: few rows cost as much as many, and the memory of many is to be bounded.
_SLICE_LINES = 2_000
_SLICE_BYTES = 1 << 20
_KEPT_SNAPSHOTS, _MOST_SNAPSHOTS = 20, 200  # metadata with all of them is written at each commit
_ATTEMPTS = 5  # at a commit that somebody else's upkeep came before

_T = TypeVar("_T")


class LakeWriter:
    """What ``writer.Writer`` is for PostgreSQL. Every method raises our errors; after an error, close it and open anew."""

    backend: Backend | None = None

    def __init__(self, tables: lake.Tables, signer: Signer | None) -> None:
        self._tables = tables
        self._signer = signer
        self._file: _DataFile | None = None
        self._last: lake.Sealed | None = None
        self._started = 0.0

    @classmethod
    async def open(cls, catalog: str, namespace: str, *, signer: Signer | None = None) -> LakeWriter:
        """Load both tables and finish what a daemon that died has left. Raises SettingError, UnavailableError."""
        writer = cls(await _beside(lambda: lake.open_tables(catalog, namespace)), signer)
        writer._last = await _beside(writer._settle)
        return writer

    async def close(self) -> None:
        """Give up the open block; its file belongs to no snapshot."""
        if self._file is not None:
            file, self._file = self._file, None
            await _beside(file.give_up)

    async def try_lock(self) -> bool:
        """Always True: the slot has one reader, and a commit on top of somebody else's fails."""
        return True

    async def end_backend(self, backend: Backend) -> bool | None:  # noqa: ARG002 - as ``Sink`` has it
        """None: a lake has no sessions."""
        return None

    def look(self) -> None:
        """Nothing: there is no connection that could have ended."""

    async def ping(self) -> None:
        """The same."""

    async def last_block(self) -> tuple[Block, bytes] | None:
        """The chain's last block and its hash, or None if the ledger is empty."""
        return None if self._last is None else (self._last.block, self._last.block_hash)

    async def details(self, kinds: Sequence[str]) -> list[tuple[int, str, dict[str, Any]]]:
        """Number, kind and detail of all blocks of these kinds, in their order."""

        def read() -> list[tuple[int, str, dict[str, Any]]]:
            named = ", ".join(f"'{kind}'" for kind in kinds)
            scan = self._tables.ledger.scan(f"kind in ({named})", selected_fields=("block", "kind", "detail"))
            rows = sorted(scan.to_arrow().to_pylist(), key=lambda row: row["block"])
            return [(row["block"], row["kind"], orjson.loads(row["detail"] or b"{}")) for row in rows]

        return await _beside(read)

    async def write(self, lines: bytes, month: str, openings: bytes = b"") -> None:
        """Send lines of the open block, whose rows lie in ``month`` ("2026-11"); the first ones open it."""
        assert not openings, "the configuration is refused that would make some"
        if self._file is None:
            self._started = time.monotonic()
            self._file = await _beside(lambda: _DataFile(self._tables.rows, month))
        file = self._file
        await _beside(lambda: file.write(lines))
        failpoint.reached("lake-file-begun")

    async def commit(self, block: Block, block_hash: bytes) -> Receipt:
        """End the open block: its rows and header in one commit, then its row of the ledger. Only then the receipt."""
        if self._file is None:
            self._started = time.monotonic()
        sealed = lake.Sealed(block, block_hash, ledger.sign(block, block_hash, self._signer))
        file, self._file = self._file, None
        await _beside(lambda: self._commit(sealed, file))
        self._last = sealed
        return Receipt(block, block_hash, time.monotonic() - self._started, sealed.signature)

    def _commit(self, sealed: lake.Sealed, file: _DataFile | None) -> None:
        if file is not None:
            path = file.close()
            failpoint.reached("lake-file-ended")
            self._append(
                self._tables.rows, sealed, lambda change, said: change.add_files([path], said, False)
            )
            failpoint.reached("lake-rows-kept")
        self._append_header(sealed)

    def _append_header(self, sealed: lake.Sealed) -> None:
        row = lake.ledger_row(sealed, self._tables.ledger.schema().as_arrow())
        self._append(self._tables.ledger, sealed, lambda change, said: change.append(row, said))

    def _append(self, table: Any, sealed: lake.Sealed, change: Callable[[Any, dict[str, str]], None]) -> None:
        """One commit. Where somebody else's upkeep came before it, once more on top of that."""
        from pyiceberg.exceptions import CommitFailedException

        before = lake.position(table)
        for attempt in range(_ATTEMPTS):
            try:
                with table.transaction() as transaction:
                    change(transaction, lake.said_of(sealed))
                break
            except CommitFailedException:
                table.refresh()
                if lake.position(table) != before:
                    raise AnotherDaemonError(
                        f"block {sealed.block.block} was written by another daemon",
                        remedy="run one daemon a slot",
                    ) from None
                if attempt == _ATTEMPTS - 1:
                    raise UnavailableError(
                        f"audit lake: others commit to {table.name()[-1]} without end"
                    ) from None
        _forget_old_snapshots(table)

    def _settle(self) -> lake.Sealed | None:
        """The last block. A header that only the rows' snapshot has becomes a row of the ledger first."""
        rows, last = lake.position(self._tables.rows), lake.position(self._tables.ledger)
        if last is None:
            last = lake.last_of(self._tables.ledger)
        next_block, next_id = (
            (last.block.block + 1, last.block.first_id + last.block.row_count) if last else (0, 1)
        )
        if rows is not None and rows.block.block == next_block:
            self._append_header(rows)
            return rows
        if (rows is not None and rows.block.block > next_block) or lake.has_rows_from(
            self._tables.rows, next_id
        ):
            raise SettingError(
                f"audit lake: {lake.ROWS} holds rows after block {next_block - 1}, the ledger's last one",
                remedy="bring back the snapshot of the table ledger that somebody has taken away",
            )
        return last


class _DataFile:
    """A Parquet file of one block's rows, in the table's own folder."""

    def __init__(self, table: Any, month: str) -> None:
        self._output = table.io.new_output(f"{table.location()}/data/{month}/{uuid.uuid4().hex}.parquet")
        self._stream: IO[bytes] = self._output.create()
        self._rows = RowsFile(self._stream)
        self._waiting = bytearray()

    def write(self, lines: bytes) -> None:
        """Whole lines, in order of id."""
        self._waiting += lines
        if len(self._waiting) >= _SLICE_BYTES:
            self._take_in()

    def _take_in(self) -> None:
        # A raw carriage return does not occur in COPY's text.
        rows = bytes(self._waiting).splitlines(keepends=True)
        self._waiting.clear()
        for start in range(0, len(rows), _SLICE_LINES):
            self._rows.write(rows[start : start + _SLICE_LINES])

    def close(self) -> str:
        """Finish it; where it is."""
        self._take_in()
        self._rows.close()
        self._stream.close()
        return str(self._output.location)

    def give_up(self) -> None:
        """What was written stays behind as a file that no table knows."""
        self._stream.close()


def _forget_old_snapshots(table: Any) -> None:
    """The rows stay; how the table was at a former commit is not kept. Where somebody else's upkeep comes first, the next time."""
    from pyiceberg.exceptions import CommitFailedException

    snapshots = sorted(table.snapshots(), key=lambda one: one.sequence_number or 0)
    if len(snapshots) > _MOST_SNAPSHOTS:
        old = [one.snapshot_id for one in snapshots[:-_KEPT_SNAPSHOTS]]
        try:
            table.maintenance.expire_snapshots().by_ids(old).commit()
        except CommitFailedException:
            table.refresh()


async def _beside(work: Callable[[], _T]) -> _T:
    """Done in a thread: pyiceberg waits for files and catalogs, and the stream's keepalives must not. Raises our errors."""
    try:
        return await _finished(asyncio.to_thread(work))
    except (CdcAuditError, *lake.OUR_FAULTS):
        raise
    except OSError as error:
        raise UnavailableError(f"audit lake: {error.strerror or type(error).__name__}") from error
    except Exception as error:  # a catalog's and a store's clients have errors of their own
        raise UnavailableError(f"audit lake: {type(error).__name__}") from error


async def _finished(work: Awaitable[_T]) -> _T:
    """A thread can't be cancelled: what it does to the tables is over before anything else is begun."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
