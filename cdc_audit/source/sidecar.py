"""An ordinary SQL connection beside the stream: looks at the slot, looks things up for the decoder, reads the signing keys.

It is also how the daemon learns of a fast shutdown of the source: the server ends ordinary connections at once (57P01) but waits
for a walsender until all is acknowledged. The stream is dropped then, so the daemon is never why a primary can't stop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from cdc_audit.errors import NotPermittedError, SettingError
from cdc_audit.model.catalog import TableInfo, TypeInfo
from cdc_audit.model.context import ContextKey
from cdc_audit.postgres import Backend, answered, check_own_session, connect_async, named_sql
from cdc_audit.source import catalog, hardening, install, publication
from cdc_audit.source.plugin import explained
from cdc_audit.source.slot import SlotInfo, info_of

_SLOT = named_sql("cdc_audit.source", "sql/slot.sql")
_FACTS = named_sql("cdc_audit.source", "sql/facts.sql")
_CATALOG_LIMIT = 60.0  # seconds that looking through the catalog may take: there may be 100,000 tables
_TABLES_EVERY = 60.0  # seconds between two looks at all tables
# PostgreSQL's names of server encodings that Python calls otherwise; the rest Python knows by PostgreSQL's name.
_PYTHON_ENCODINGS = {
    "UTF8": "utf-8",
    "SQL_ASCII": "utf-8",  # bytes of no known encoding: what isn't UTF-8 is taken for LATIN1
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_TW": "big5",
    "MULE_INTERNAL": "latin-1",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "JOHAB": "johab",
    "UHC": "cp949",
}


class TableTroubles(NamedTuple):
    """How many tables in scope can't tell which row an UPDATE or DELETE changed; and, with pgoutput, of which tables not all is
    published, and for which the server refuses the application's UPDATE and DELETE (by ``schema.table``).
    """

    without_identity: int
    unpublished: tuple[str, ...]
    refusing: tuple[str, ...]


class Sidecar:
    """One connection; every method raises UnavailableError when the server has gone."""

    def __init__(
        self,
        connection: AsyncConnection,
        slot: str,
        tables: Sequence[str],
        exclude: Sequence[str],
        key_file: str,
        publication_name: str,
    ) -> None:
        self.is_standby = False  # only such a server may turn to another timeline under a stream
        self._connection = connection
        self._slot = slot
        self._tables = tables
        self._exclude = exclude
        self._key_file = key_file
        self._publication = publication_name
        self._troubles = TableTroubles(0, (), ())
        self._looked_at_tables = 0.0
        self._hardening: hardening.Hardening | None = None

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        slot: str,
        tables: Sequence[str],
        exclude: Sequence[str],
        key_file: str,
        publication_name: str,
        application_name: str,
    ) -> Sidecar:
        """Connect. ``tables``/``exclude`` are the patterns in scope; ``key_file`` is [context] key_file or "", ``publication_name``
        "" with a plugin that needs none. Raises SettingError where a pooler stands before the server.
        """
        connection = await connect_async(dsn, side="source", application_name=application_name)
        sidecar = cls(connection, slot, tables, exclude, key_file, publication_name)
        try:
            async with _looked_up():
                row = await (await connection.execute(_SLOT["session"])).fetchone()
            assert row is not None
            sidecar.is_standby = bool(row[0])
            check_own_session(row[1], side="source")
        except BaseException:
            await connection.close()
            raise
        return sidecar

    def look_at(self, tables: Sequence[str], exclude: Sequence[str]) -> None:
        """Look at the tables of another scope from here on, at once."""
        self._tables, self._exclude, self._looked_at_tables = tables, exclude, 0.0

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def slot(self) -> SlotInfo | None:
        """The slot, or None if there is none."""
        async with _looked_up(), self._connection.cursor(row_factory=dict_row) as cursor:
            row = await (await cursor.execute(_SLOT["status"], {"slot": self._slot})).fetchone()
        return info_of(row) if row else None

    async def end_backend(self, backend: Backend) -> None:
        """End a process of this very role, if there is one, and a right to. Waits for its end, a second at most."""
        with suppress(NotPermittedError):
            async with _looked_up():
                await self._connection.execute(_SLOT["end_backend"], backend)

    async def tables(self) -> TableTroubles:
        """What can't be captured; looked up once a minute."""
        if time.monotonic() - self._looked_at_tables > _TABLES_EVERY or not self._looked_at_tables:
            async with answered("source", _CATALOG_LIMIT):
                await self._look_at_tables()
        return self._troubles

    async def _look_at_tables(self) -> None:
        count = await catalog.tables_without_identity(self._connection, self._tables, self._exclude)
        self._troubles, self._looked_at_tables = TableTroubles(count, (), ()), time.monotonic()
        if self._publication:
            state = await publication.state_async(
                self._connection, self._publication, self._tables, self._exclude
            )
            self._troubles = TableTroubles(count, (*state.missing, *state.movable), state.refusing)

    async def harm_to_event_triggers(self) -> str:
        """What was done to the event triggers of a hardened source since the last look; "" for nothing."""
        async with _looked_up():
            before, self._hardening = self._hardening, await hardening.found_async(self._connection)
        return hardening.tampered(before, self._hardening)

    async def encoding(self) -> str:
        """Python's name of the server's encoding: the stream's bytes are in it."""
        async with _looked_up(), self._connection.cursor(row_factory=dict_row) as cursor:
            facts = await (await cursor.execute(_FACTS["facts"])).fetchone()
        name = str(facts["server_encoding"]) if facts else "UTF8"
        if name in _PYTHON_ENCODINGS:
            return _PYTHON_ENCODINGS[name]
        return name.lower().replace("win", "cp") if name.startswith("WIN") else name.lower()

    async def look_up(
        self, type_oids: frozenset[int], tables: frozenset[tuple[str, str]]
    ) -> tuple[dict[int, TypeInfo | None], dict[tuple[str, str], TableInfo | None]]:
        """What the decoder asks for (``source.catalog``)."""
        async with answered("source", _CATALOG_LIMIT):
            return await catalog.look_up(self._connection, type_oids, tables)

    async def context_keys(self) -> dict[str, ContextKey]:
        """The valid signing keys by id; {} where nothing is installed or this role may not read them and no file is given.

        Raises SettingError if the file can't be read.
        """
        if self._key_file:
            return read_key_file(Path(self._key_file))
        try:
            async with _looked_up():
                keys = await install.read_keys(self._connection)
        except (NotPermittedError, SettingError):
            return {}
        return {key.key_id: key for key in keys}


@asynccontextmanager
async def _looked_up() -> AsyncIterator[None]:
    """An answer that needs no disk: at once, and psycopg's errors as ours."""
    with explained():
        async with answered("source"):
            yield


def read_key_file(path: Path) -> dict[str, ContextKey]:
    """Signing keys from a file: a JSON object a line with ``key_id``, ``inner_pad`` and ``outer_pad`` in hex."""
    try:
        records = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        keys = [
            ContextKey(r["key_id"], bytes.fromhex(r["inner_pad"]), bytes.fromhex(r["outer_pad"]))
            for r in records
        ]
    except OSError as error:
        raise SettingError(f"[context] key_file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        raise SettingError(
            f"[context] key_file {path} does not hold signing keys", remedy=f"cdc-audit source keys > {path}"
        ) from None
    return {key.key_id: key for key in keys}
