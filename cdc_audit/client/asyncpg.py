"""asyncpg: connections that say who acts, by themselves.

    from cdc_audit.client.asyncpg import Connection

    pool = await asyncpg.create_pool(dsn, connection_class=Connection)       # or asyncpg.connect(...)

Covers execute, executemany, the fetches, prepared statements and COPY. Outside of a transaction a statement that writes becomes a
transaction of its own with the context in it; what may refuse to run inside one (CALL, DO, DDL) is left alone there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from cdc_audit.client import payload
from cdc_audit.client.context import current_context
from cdc_audit.client.conversation import Conversation
from cdc_audit.client.statement import LOG_EVENT, PROBE, SAY

_SAY = SAY.format("$1")
_LOG_EVENT = LOG_EVENT.format("$1", "$2", "$3", "$4", "$5")
_COPY_IN = "copy t from stdin"


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """An asyncpg.Connection whose transactions say who acts before their first write."""

    __slots__ = ("_talk",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._talk = Conversation()

    def _due(self, query: str) -> str | None:
        is_open = self.is_in_transaction()
        return self._talk.due(query, in_transaction=is_open, is_alone=not is_open)

    @asynccontextmanager
    async def _told(self, due: str) -> AsyncIterator[None]:
        """Within this, the transaction knows who acts; opens one if none is open."""
        if self._talk.must_ask and not self._talk.learn(await super().fetchval(PROBE)):
            yield
            return
        async with nullcontext() if self.is_in_transaction() else self.transaction():
            await self._say(due)
            yield

    async def _say(self, text: str) -> None:
        try:
            await super().fetchval(_SAY, text)
        except BaseException:
            self._talk.failed()
            raise
        self._talk.told(text)

    async def send_context(self) -> None:
        """Say now who acts, in the open transaction: before a function that writes, where its name isn't configured."""
        due = self._talk.pending() if self.is_in_transaction() else None
        if due is not None:
            async with self._told(due):
                pass

    async def log_event(
        self,
        action: str,
        table: str | None = None,
        record_id: object = None,
        data: Mapping[str, object] | None = None,
        *,
        transactional: bool = True,
    ) -> None:
        """Record what the database can't see (READ, EXPORT, LOGIN, ...), with the context that holds here.

        Not ``transactional``: also if the transaction is rolled back. Raises ValueError for data that have no room in 8 kB.
        """
        given = payload.event_texts(action, table, record_id, data, current_context())
        await super().fetchval(_LOG_EVENT, *given, transactional)

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg's; what opens and ends transactions comes this way, too."""
        due = self._due(query)
        if due is None:
            return await super().execute(query, *args, **options)
        async with self._told(due):
            return await super().execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(command)
        if due is None:
            return await super().executemany(command, args, **options)
        async with self._told(due):
            return await super().executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(query)
        if due is None:
            return await super().fetch(query, *args, **options)
        async with self._told(due):
            return await super().fetch(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(query)
        if due is None:
            return await super().fetchval(query, *args, **options)
        async with self._told(due):
            return await super().fetchval(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(query)
        if due is None:
            return await super().fetchrow(query, *args, **options)
        async with self._told(due):
            return await super().fetchrow(query, *args, **options)

    async def fetchmany(self, query: str, args: Any, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(query)
        if due is None:
            return await super().fetchmany(query, args, **options)
        async with self._told(due):
            return await super().fetchmany(query, args, **options)

    async def copy_to_table(self, table_name: str, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(_COPY_IN)
        if due is None:
            return await super().copy_to_table(table_name, **options)
        async with self._told(due):
            return await super().copy_to_table(table_name, **options)

    async def copy_records_to_table(self, table_name: str, **options: Any) -> Any:
        """As asyncpg's."""
        due = self._due(_COPY_IN)
        if due is None:
            return await super().copy_records_to_table(table_name, **options)
        async with self._told(due):
            return await super().copy_records_to_table(table_name, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        """As asyncpg's."""
        return _Prepared(self, await super().prepare(query, **options))


class _Prepared:
    """A PreparedStatement whose executions say who acts first."""

    def __init__(self, connection: Connection, statement: PreparedStatement) -> None:
        self._connection = connection
        self._statement = statement
        self._query: str = statement.get_query()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._statement, name)
        if name not in ("fetch", "fetchval", "fetchrow", "fetchmany", "executemany"):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            due = self._connection._due(self._query)
            if due is None:
                return await found(*args, **options)
            async with self._connection._told(due):
                return await found(*args, **options)

        return call
