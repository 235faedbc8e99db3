"""The replication stream: START_REPLICATION over psycopg's libpq, read without ever blocking inside libpq.

psycopg's C build holds the GIL in get_copy_data, so it is only ever called to drain what has arrived; waiting is the event
loop's. WARNINGs that the walsender sends between two messages come out in their place among them: wal2json reports so
that a change has no replica identity.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn

import psycopg
from psycopg import AsyncCursor, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from cdc_audit.errors import StreamError, UnavailableError
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.postgres import Backend, PromptConnection, answered, conninfo, explain
from cdc_audit.source import copyboth
from cdc_audit.source.libpq import addresses
from cdc_audit.source.plugin import explain_refusal
from cdc_audit.source.plugin_options import OPTIONAL

PINNED = {
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "search_path": "",
    "client_min_messages": "warning",
}
"""What a role or database may have set otherwise changes how values are printed: these are this session's."""
OPTIONS = " ".join(f"-c {name}={value}" for name, value in PINNED.items())
_BACKEND = "select pid, backend_start::text from pg_stat_activity where pid = pg_backend_pid()"
# A look takes a millisecond or so: between two of them, what the audit database waits for has its turn.
_DRAIN_BYTES = 131_072


class Notice(NamedTuple):
    """A notice that stood between two messages."""

    text: str


class Received(NamedTuple):
    """What has arrived since the last look, in order: lines of the plugin and notices; and where the server stands.

    ``size`` is in bytes. By ``wal_end`` (the newest keepalive's) all transactions before it have been sent. ``sent_at`` is the
    server's clock as PostgreSQL prints it in UTC, "" if unknown.
    """

    items: list[bytes | Notice]
    size: int
    wal_end: int
    sent_at: str
    reply_requested: bool


class System(NamedTuple):
    """IDENTIFY_SYSTEM."""

    system_identifier: str
    timeline: int
    lsn: str
    database: str


class Exported(NamedTuple):
    """A snapshot to be adopted by another connection before this one does anything else. It shows the transactions whose commit
    record ends at or before ``lsn``, and no other.
    """

    name: str
    lsn: int


class Stream:
    """One replication connection. ``close`` is safe at any time; after an error only ``close`` makes sense."""

    def __init__(self, connection: PromptConnection, role: str) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._role = role
        self.backend: Backend | None = None
        self._slot = ""
        self._plugin = ""
        self._items: list[Any] = []  # bytes and notices
        self._readable = asyncio.Event()
        self._wal_end = 0  # by keepalives: everything before it has been sent
        self._written = 0  # by keepalives and messages: what is reported as received
        self._sent_at = 0
        self._reply_requested = False
        self._is_reading = False
        self._is_watched = False
        self._has_ended = False
        self._socket = -1

    @classmethod
    async def open(cls, dsn: str, *, application_name: str, slot: str, plugin: str) -> Stream:
        """Connect for replication. Raises NotPermittedError, UnavailableError or SettingError."""
        # pgoutput would convert each value; it arrives in the server's encoding either way
        encoding = {"client_encoding": "SQL_ASCII"} if plugin == "pgoutput" else {}
        text = make_conninfo(conninfo(dsn, application_name=application_name, settings=OPTIONS), **encoding)
        try:
            connection = await PromptConnection.connect(text, autocommit=True, replication="database")
        except psycopg.Error as error:
            role = str(psycopg.conninfo.conninfo_to_dict(dsn).get("user") or "")
            raise explain_refusal(error, role=role, slot=slot, plugin=plugin) from error
        stream = cls(connection, connection.info.user)
        try:
            pid, started = await stream._command(sql.SQL(_BACKEND))
        except BaseException:
            await connection.close()
            raise
        stream.backend = Backend(int(pid), str(started))
        return stream

    def address(self, dsn: str) -> str:
        """The DSN for more connections to the very server that this one leads to: a DSN may name several."""
        return self._connection.address(dsn)

    async def identify(self) -> System:
        """Which cluster this is, and on which timeline."""
        row = await self._command(sql.SQL("IDENTIFY_SYSTEM"))
        return System(str(row[0]), int(row[1]), str(row[2]), str(row[3]))

    async def timeline_history(self, timeline: int) -> str:
        """The timeline's history file: a line for each ancestor with the position where it ended."""
        row = await self._command(sql.SQL("TIMELINE_HISTORY {}").format(sql.Literal(timeline)))
        return str(row[1])

    async def export_snapshot(self) -> Exported:
        """Make a slot that ends with this connection, and export the snapshot of its start.

        Waits for the transactions open at that moment to end. Raises what ``plugin.explain_refusal`` makes of a refusal.
        """
        name = f"cdc_audit_snapshot_{self._connection.info.backend_pid}"
        command = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
        try:
            made = await self._connection.execute(command.format(sql.Identifier(name)))
            row = await made.fetchone()
        except psycopg.Error as error:
            raise explain_refusal(error, role=self._role, slot=name, plugin="pgoutput") from error
        assert row is not None
        _, lsn, exported, _ = (value.decode() if isinstance(value, bytes) else value for value in row)
        return Exported(exported, parse_lsn(lsn))

    async def wal_sender_timeout(self) -> float:
        """Seconds after which the server gives a silent client up; 0: never."""
        row = await self._command(sql.SQL("SHOW wal_sender_timeout"))
        number = int("".join(char for char in str(row[0]) if char.isdigit()) or 0)
        unit = str(row[0]).lstrip("0123456789")
        return number * {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}.get(unit, 0.001)

    async def start(self, slot: str, plugin: str, lsn: int, options: dict[str, str]) -> frozenset[str]:
        """START_REPLICATION at a position; returns the options that the plugin took.

        Raises what ``plugin.explain_refusal`` makes of the server's refusal.
        """
        self._slot, self._plugin = slot, plugin
        taken = dict(options)
        cursor = await self._start(lsn, taken)
        if cursor.pgresult is None or cursor.pgresult.status != psycopg.pq.ExecStatus.COPY_BOTH:
            raise UnavailableError("source database: START_REPLICATION did not begin to stream")
        self._pgconn.notice_handler = self._on_notice
        self._socket = self._pgconn.socket  # asked of libpq again, it is gone when the connection is
        self._watch()
        self._is_reading = True
        return frozenset(taken)

    async def _start(self, lsn: int, options: dict[str, str]) -> AsyncCursor:
        """Try with all options, then without those that this plugin's version does not know."""
        while True:
            given = sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
                for name, value in options.items()
            )
            command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
                sql.Identifier(self._slot), sql.SQL(format_lsn(lsn)), given
            )
            try:
                async with answered("source"):
                    return await self._connection.execute(command)
            except psycopg.Error as error:
                unknown = [
                    name
                    for name in OPTIONAL
                    if name in options and f'"{name}"' in str(error.diag.message_primary)
                ]
                if error.sqlstate != "22023" or not unknown:
                    raise explain_refusal(
                        error, role=self._role, slot=self._slot, plugin=self._plugin
                    ) from error
                del options[unknown[0]]

    def receive(self) -> Received:
        """All that has arrived, up to about 128 kB, without waiting. Raises UnavailableError or what the server ended with."""
        if self._has_ended:
            self._raise_end()
        items = self._items = []
        size = 0
        self._reply_requested = False
        is_fresh = False
        libpq = addresses(self._pgconn)
        try:
            while size < _DRAIN_BYTES:
                length, data, taken, header = copyboth.drain(
                    self._pgconn.get_copy_data, items, _DRAIN_BYTES - size, libpq
                )
                if taken:
                    size += taken
                    is_fresh = False
                    _, wal_end, self._sent_at = copyboth.xlogdata_positions(header)
                    self._written = max(self._written, wal_end)
                if length is None:
                    break
                if data:
                    is_fresh = False
                    self._keepalive(data)
                elif length == 0:
                    if is_fresh:
                        break
                    self._readable.clear()
                    self._pgconn.consume_input()
                    is_fresh = True
                else:
                    self._has_ended = True
                    if items:
                        break  # what came before the end comes first, the next call raises it
                    self._raise_end()
        except psycopg.OperationalError as error:
            raise UnavailableError(f"source database: the stream broke off: {_one_line(error)}") from error
        sent_at = copyboth.as_text(self._sent_at) if self._sent_at else ""
        return Received(items, size, self._wal_end, sent_at, self._reply_requested)

    async def wait(self, timeout: float) -> None:
        """Return when something has arrived, or after ``timeout`` seconds."""
        if self._is_reading and not self._is_watched:
            self._watch()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._readable.wait()

    async def rest(self, seconds: float) -> None:
        """Let others have their turn, and messages gather for so long: nothing that arrives ends it, nor does ``wake``."""
        if seconds and self._is_watched:
            self._unwatch()
        await asyncio.sleep(seconds)

    def wake(self) -> None:
        """Let ``wait`` return now."""
        self._readable.set()

    def report(self, flushed: int) -> None:
        """Tell the server that everything through ``flushed`` is durable; nothing if it ended. Raises UnavailableError."""
        if not self.is_streaming:
            return
        now = copyboth.microseconds(datetime.now(UTC))
        message = copyboth.status_update(written=max(self._written, flushed), flushed=flushed, now_us=now)
        try:
            if self._pgconn.put_copy_data(message) == 1:  # 0: the socket is full, the next report will do
                self._pgconn.flush()
        except psycopg.OperationalError as error:
            raise UnavailableError(f"source database: the stream broke off: {_one_line(error)}") from error

    @property
    def is_streaming(self) -> bool:
        """Whether the stream was started and, as far as this side knows, goes on."""
        return self._is_reading and not self._has_ended

    async def close(self) -> None:
        """Drop the connection at once: the slot is free again when the server notices."""
        if self._is_reading:
            self._is_reading = False
            self._unwatch()
        await self._connection.close()

    def _watch(self) -> None:
        self._is_watched = True
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def _unwatch(self) -> None:
        self._is_watched = False
        asyncio.get_running_loop().remove_reader(self._socket)

    def _on_readable(self) -> None:
        """Told at every turn of the loop that there is something to read, one that nobody reads would never rest."""
        if self._readable.is_set():
            self._unwatch()
        self._readable.set()

    def _keepalive(self, data: memoryview | bytes) -> None:
        if data[0] != copyboth.KEEPALIVE:
            raise StreamError(f"the server sent a replication message of unknown type {data[0]}")
        keepalive = copyboth.parse_keepalive(data)
        self._wal_end = max(self._wal_end, keepalive.wal_end)
        self._written = max(self._written, keepalive.wal_end)
        self._sent_at = keepalive.sent_at
        self._reply_requested |= keepalive.reply_requested

    def _raise_end(self) -> NoReturn:
        result = self._pgconn.get_result()
        if result is not None and result.error_field(DiagnosticField.SQLSTATE):
            error = psycopg.errors.error_from_result(result)
            raise explain_refusal(error, role=self._role, slot=self._slot, plugin=self._plugin) from error
        raise UnavailableError("source database: the server ended the stream")

    def _on_notice(self, result: PGresult) -> None:
        text = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b""
        self._items.append(Notice(text.decode("utf-8", "replace")))

    async def _command(self, command: sql.SQL | sql.Composed) -> tuple[Any, ...]:
        try:
            async with answered("source"):
                row = await (await self._connection.execute(command)).fetchone()
        except psycopg.Error as error:
            raise explain(error, side="source") from error
        if row is None:
            raise UnavailableError("source database: a replication command gave no answer")
        return tuple(value.decode() if isinstance(value, bytes) else value for value in row)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
