"""The daemon's connection to the audit database: rows by one open COPY a block, then their personal values' openings by
another one, then the block's header, in one transaction. A block of few rows is one statement (``small_block``).

A block is visible whole or not at all. A second writer that appends the same block number waits for the first one's
transaction and then fails on the primary key: two daemons can't both write. Openings wait for the end of the rows: 8 MB of
them in memory, more in an unnamed temporary file (``TMPDIR``).
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import chain
from typing import IO, Any

import psycopg
from psycopg import AsyncCopy, AsyncRawCursor

from cdc_audit import failpoint
from cdc_audit.errors import (
    AnotherDaemonError,
    CdcAuditError,
    LedgerMovedError,
    SettingError,
    UnavailableError,
)
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.postgres import Backend, PromptConnection, answered, check_own_session, connect_async, explain
from cdc_audit.seal import copy_binary
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger, small_block
from cdc_audit.sink.patience import Patience

_MEMORY_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 262_144
_SEND_BUFFER = 1_048_576  # wished for: net.core.wmem_max bounds it


class Writer:
    """One connection, used by one task at a time. Every method raises our errors; after an error, close it and open anew.

    With a ``signer``, it signs each block that it commits; their headers must name the signer's key.
    """

    def __init__(
        self, connection: PromptConnection, dsn: str, schema: str, signer: Signer | None = None
    ) -> None:
        self._connection = connection
        self._patience = Patience(connection, dsn, schema)
        self.backend: Backend | None = None
        self._schema = schema
        self._signer = signer
        self._copying: AbstractAsyncContextManager[AsyncCopy] | None = None
        self._copy: AsyncCopy | None = None
        self._kept = b""  # lines of the open block, while they are few: it may be over with them
        self._openings: IO[bytes] | None = None
        self._months: set[str] = set()
        self._is_only_writer = False
        self._is_pinging = False
        self._started = 0.0

    @classmethod
    async def open(
        cls, dsn: str, schema: str, *, application_name: str, signer: Signer | None = None
    ) -> Writer:
        """Connect, and check that the audit schema is this program's. Raises SettingError, NotPermittedError, UnavailableError."""
        connection = await connect_async(dsn, side="audit", application_name=application_name)
        _widen(connection.pgconn.socket)
        writer = cls(connection, dsn, schema, signer)
        try:
            await writer._check()
        except BaseException:
            await connection.close()
            raise
        return writer

    async def _check(self) -> None:
        is_standby, setting, pid, started = await self._one("session")
        self.backend = Backend(pid, started)
        check_own_session(setting, side="audit")
        if is_standby:
            raise UnavailableError("audit database: the server is a standby and takes no writes")
        try:
            with self._patience.shown():
                version = await (
                    await self._connection.execute(ledger.statement("version", self._schema))
                ).fetchone()
            ledger.check_version((version and version[0]) or 0, self._schema)
        except psycopg.Error as error:
            if ledger.is_missing(error):
                ledger.check_version(None, self._schema)
            raise explain(error, side="audit") from error
        await self._one("settings")

    async def close(self) -> None:
        """Close the connection; an open block is rolled back by the server."""
        if self._openings is not None:
            self._openings.close()
        await self._connection.close()
        if self._copying is not None:
            given_up = psycopg.OperationalError("the block was given up")
            with suppress(psycopg.Error):
                await self._copying.__aexit__(type(given_up), given_up, None)

    async def try_lock(self) -> bool:
        """Become the one writer of this schema's ledger, until the connection ends; False if another daemon is."""
        self._is_only_writer = bool((await self._one("try_lock", (self._schema,)))[0])
        return self._is_only_writer

    async def end_backend(self, backend: Backend) -> bool | None:
        """End a session of this very role; False if it is at work and so left alone, None if there is none, or no right to."""
        try:
            with self._patience.shown():
                ended = await self._connection.execute(ledger.statement("end_backend", self._schema), backend)
                row = await ended.fetchone()
        except psycopg.errors.InsufficientPrivilege:
            return None
        except psycopg.Error as error:
            raise explain(error, side="audit") from error
        return bool(row[0]) if row else None

    def look(self) -> None:
        """Notice that the server has ended the session, while nothing is asked of it. Raises UnavailableError."""
        if self._is_pinging:
            return  # its answer must not be taken from it
        try:
            self._connection.pgconn.consume_input()
        except psycopg.Error as error:
            raise explain(error, side="audit") from error

    async def ping(self) -> None:
        """Notice that the server is gone without a word, while nothing is asked of it; nothing while a block is open."""
        if self._copying is None:
            self._is_pinging = True
            try:
                async with answered("audit"):
                    await self._connection.execute(ledger.statement("ping", self._schema))
            except psycopg.Error as error:
                raise explain(error, side="audit") from error
            finally:
                self._is_pinging = False

    async def last_block(self) -> tuple[Block, bytes] | None:
        """The chain's last block and its hash, or None if the ledger is empty."""
        try:
            with self._patience.shown():
                row = await (
                    await self._connection.execute(ledger.statement("last_block", self._schema))
                ).fetchone()
        except psycopg.Error as error:
            raise explain(error, side="audit") from error
        return ledger.block_of(row) if row else None

    async def details(self, kinds: Sequence[str]) -> list[tuple[int, str, dict[str, Any]]]:
        """Number, kind and detail of all blocks of these kinds, in their order."""
        try:
            asked = ledger.statement("details", self._schema), (list(kinds),)
            with self._patience.shown():
                return await (await self._connection.execute(*asked)).fetchall()
        except psycopg.Error as error:
            raise explain(error, side="audit") from error

    async def write(self, lines: bytes, month: str, openings: bytes = b"") -> None:
        """Take lines of the open block, whose rows lie in ``month`` ("2026-11"), and their openings. Few lines are kept until more
        come, or the block's end; others are sent, the first ones open the block.
        """
        if openings:
            self._keep(openings)
        is_first = self._copy is None and not self._kept
        if is_first:
            self._started = time.monotonic()
            await self._ensure_month(month)
            failpoint.reached("before-begin")
            if not openings and small_block.fits(lines):
                self._kept = lines
                return
        rows, self._kept = _rows(self._kept + lines), b""
        try:
            if self._copy is None:
                await self._begin()
                failpoint.reached("after-begin")
                copying = self._connection.cursor().copy(ledger.copy_rows(self._schema))
                with self._patience.shown():
                    self._copy = await copying.__aenter__()
                self._copying = copying
                if copy_binary.IS_COMPILED:
                    rows = copy_binary.HEADER + rows
            with self._patience.shown():
                await self._copy.write(memoryview(rows))  # psycopg cuts it up: a view, without copying
            failpoint.reached("mid-copy")
        except psycopg.Error as error:
            raise self._explained(error) from error

    async def commit(self, block: Block, block_hash: bytes) -> Receipt:
        """End the open block with its header and commit. Only then is it durable: the receipt says through where."""
        signature = ledger.sign(block, block_hash, self._signer)
        failpoint.reached("block-signed")
        header = ledger.parameters(block, block_hash, signature)
        try:
            if self._kept:
                await self._store(header)
            else:
                await self._commit(header)
        except psycopg.errors.UniqueViolation as error:
            if self._is_only_writer and error.diag.table_name == "ledger":
                raise LedgerMovedError(
                    f"audit database: a command has appended block {block.block} to the ledger"
                ) from error
            raise AnotherDaemonError(
                f"block {block.block} was written by another daemon", remedy="run one daemon a slot"
            ) from error
        except psycopg.Error as error:
            raise self._explained(error) from error
        return Receipt(block, block_hash, time.monotonic() - self._started, signature)

    async def _store(self, header: tuple[Any, ...]) -> None:
        """The lines that were kept, and their block's header, in one statement."""
        try:
            rows = small_block.values(self._kept)
        except ValueError:
            raise _refused("not UTF-8") from None
        self._kept = b""
        with self._patience.shown():
            await AsyncRawCursor(self._connection).execute(
                small_block.statement(self._schema, len(rows)), list(chain(header, *rows))
            )

    async def _commit(self, header: tuple[Any, ...]) -> None:
        """The end of the open COPY, if there is one, the header and COMMIT."""
        if self._copying is None or self._copy is None:
            self._started = time.monotonic()
            await self._begin()
        else:
            copying, copy, self._copying, self._copy = self._copying, self._copy, None, None
            with self._patience.shown():
                if copy_binary.IS_COMPILED:
                    await copy.write(copy_binary.TRAILER)
                await copying.__aexit__(None, None, None)
            failpoint.reached("after-copy")
            await self._send_openings()
        with self._patience.shown():
            async with self._connection.pipeline():
                await self._connection.execute(ledger.statement("append", self._schema), header)
                failpoint.reached("before-commit")
                committed = await self._connection.execute("commit")
        if committed.statusmessage != "COMMIT":  # an aborted transaction answers ROLLBACK, and no error
            raise UnavailableError(f"audit database: block {header[0]} was rolled back")

    def _keep(self, openings: bytes) -> None:
        try:
            if self._openings is None:
                self._openings = tempfile.SpooledTemporaryFile(_MEMORY_BYTES, prefix="cdc-audit-")  # noqa: SIM115
            self._openings.write(openings)
        except OSError as error:
            raise UnavailableError(
                f"personal values of a large transaction: {error.strerror} in {tempfile.gettempdir()}",
                remedy="make room there, or set TMPDIR to a folder with room",
            ) from error

    async def _send_openings(self) -> None:
        """Store what was kept for the open block."""
        if self._openings is None:
            return
        with self._openings as kept:
            self._openings = None
            kept.seek(0)
            copying = self._connection.cursor().copy(ledger.statement("copy_openings", self._schema))
            with self._patience.shown() as renew:
                async with copying as copy:
                    while piece := kept.read(_PIECE_BYTES):
                        await copy.write(piece)
                        renew()

    async def _ensure_month(self, month: str) -> None:
        """Make sure that a month's partition is there. Rows of a month that can't have one go to the default partition."""
        if month not in self._months and len(month) == len("2026-11"):
            await self._one("ensure_partition", (f"{month}-01",))
            failpoint.reached("partition-made")
        self._months.add(month)

    async def _begin(self) -> None:
        with self._patience.shown():
            await self._connection.execute("begin")

    async def _one(self, name: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        try:
            with self._patience.shown():
                row = await (
                    await self._connection.execute(ledger.statement(name, self._schema), parameters)
                ).fetchone()
        except psycopg.Error as error:
            raise self._explained(error) from error
        assert row is not None
        return row

    def _explained(self, error: psycopg.Error) -> CdcAuditError:
        if (error.sqlstate or "")[:2] in {"22", "23"}:
            return _refused(f"{type(error).__name__}, {error.sqlstate}")
        return explain(error, side="audit")


def _rows(lines: bytes) -> bytes:
    """What COPY is sent of lines. Raises SettingError."""
    if not copy_binary.IS_COMPILED:
        return lines
    try:
        return copy_binary.rows(lines)
    except ValueError as error:  # names a field's place, no value
        raise _refused(str(error)) from error


def _refused(why: str) -> SettingError:
    return SettingError(
        f"audit database: a row of the block is refused ({why}), nothing is stored",
        remedy="report this: the daemon made a line that the table does not take",
    )


def _widen(descriptor: int) -> None:
    """A Unix socket tells that it can be written when a quarter of its buffer is left: the server must not run dry meanwhile."""
    with socket.socket(fileno=os.dup(descriptor)) as audit:
        if audit.family == socket.AF_UNIX:
            audit.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
