"""psycopg 3: connections that say who acts, by themselves.

    from cdc_audit.client.psycopg import Connection             # or AsyncConnection

    pool = ConnectionPool(dsn, connection_class=Connection)      # or Connection.connect(dsn)

Covers execute, executemany, COPY, stream, pipelines and any cursor class. In autocommit mode a statement that writes becomes a
transaction of its own with the context in it; what may refuse to run inside a transaction (CALL, DO, DDL) is left alone there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Self

import psycopg
from psycopg.rows import Row
from psycopg.sql import Composable

from cdc_audit.client import payload
from cdc_audit.client.context import current_context
from cdc_audit.client.conversation import Conversation
from cdc_audit.client.statement import LOG_EVENT, PROBE, SAY

_IDLE = psycopg.pq.TransactionStatus.IDLE
_ACTIVE = psycopg.pq.TransactionStatus.ACTIVE
_SAY = SAY.format("%s")
_LOG_EVENT = LOG_EVENT.format(*["%s"] * 5)


class Connection(psycopg.Connection[Row]):
    """A psycopg.Connection whose transactions say who acts before their first write."""

    def cursor(self, *args: Any, **options: Any) -> Any:
        """As psycopg's, of the same class, and telling."""
        if not issubclass(self.cursor_factory, _Telling):
            self.cursor_factory = _telling(self.cursor_factory)  # type: ignore[arg-type]
        return super().cursor(*args, **options)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """As psycopg's."""
        with _watched(self) as watch, super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction
            watch.is_kept = not force_rollback


class AsyncConnection(psycopg.AsyncConnection[Row]):
    """A psycopg.AsyncConnection whose transactions say who acts before their first write."""

    def cursor(self, *args: Any, **options: Any) -> Any:
        """As psycopg's, of the same class, and telling."""
        if not issubclass(self.cursor_factory, _AsyncTelling):
            self.cursor_factory = _async_telling(self.cursor_factory)  # type: ignore[arg-type]
        return super().cursor(*args, **options)

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """As psycopg's."""
        with _watched(self) as watch:
            async with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
                watch.is_kept = not force_rollback


def log_event(
    connection: psycopg.Connection[Any],
    action: str,
    table: str | None = None,
    record_id: object = None,
    data: Mapping[str, object] | None = None,
    *,
    transactional: bool = True,
) -> None:
    """Record what the database can't see (READ, EXPORT, LOGIN, ...), with the context that holds here.

    Not ``transactional``: also if the transaction is rolled back. Any psycopg connection will do. Raises ValueError for data
    that have no room in 8 kB, and what the database raises.
    """
    given = payload.event_texts(action, table, record_id, data, current_context())
    psycopg.Cursor(connection).execute(_LOG_EVENT, (*given, transactional))


async def log_event_async(
    connection: psycopg.AsyncConnection[Any],
    action: str,
    table: str | None = None,
    record_id: object = None,
    data: Mapping[str, object] | None = None,
    *,
    transactional: bool = True,
) -> None:
    """``log_event`` on an AsyncConnection."""
    given = payload.event_texts(action, table, record_id, data, current_context())
    await psycopg.AsyncCursor(connection).execute(_LOG_EVENT, (*given, transactional))


def send_context(connection: psycopg.Connection[Any]) -> None:
    """Say now who acts, in the open transaction: before a function that writes, where its name isn't configured."""
    talk = conversation_of(connection)
    if connection.pgconn.transaction_status == _IDLE:
        talk.ended()
    due = talk.pending()
    if due is not None and _is_heard(connection, talk):
        _say(connection, talk, due)


async def send_context_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """``send_context`` on an AsyncConnection."""
    talk = conversation_of(connection)
    if connection.pgconn.transaction_status == _IDLE:
        talk.ended()
    due = talk.pending()
    if due is not None and await _is_heard_async(connection, talk):
        await _say_async(connection, talk, due)


def conversation_of(connection: Any) -> Conversation:
    """What this connection has said."""
    try:
        talk: Conversation = connection._cdc_audit
    except AttributeError:
        talk = connection._cdc_audit = Conversation()
    return talk


class _watched:  # noqa: N801  (a ``with`` of its own)
    """Around a ``transaction()`` of psycopg's, which sends its commands past the cursors. It may be a savepoint's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._talk = conversation_of(connection)
        self.is_kept = False

    def __enter__(self) -> Self:
        status = self._connection.pgconn.transaction_status
        if status == _IDLE:
            self._talk.ended()
        elif status == _ACTIVE:
            self._talk.doubt()
        self._talk.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._talk.depth -= 1
        if self._connection.pgconn.transaction_status == _IDLE:
            self._talk.ended()
        elif not self.is_kept:
            self._talk.doubt()


def _is_heard(connection: psycopg.Connection[Any], talk: Conversation) -> bool:
    if not talk.must_ask:
        return True
    row = psycopg.Cursor(connection).execute(PROBE).fetchone()
    return talk.learn(row and row[0])


async def _is_heard_async(connection: psycopg.AsyncConnection[Any], talk: Conversation) -> bool:
    if not talk.must_ask:
        return True
    cursor = psycopg.AsyncCursor(connection)
    await cursor.execute(PROBE)
    row = await cursor.fetchone()
    return talk.learn(row and row[0])


def _say(connection: psycopg.Connection[Any], talk: Conversation, text: str) -> None:
    try:
        psycopg.Cursor(connection).execute(_SAY, (text,))
    except BaseException:
        talk.failed()
        raise
    talk.told(text)


async def _say_async(connection: psycopg.AsyncConnection[Any], talk: Conversation, text: str) -> None:
    try:
        await psycopg.AsyncCursor(connection).execute(_SAY, (text,))
    except BaseException:
        talk.failed()
        raise
    talk.told(text)


def _due(connection: Any, query: object) -> tuple[Conversation, str | None, bool]:
    """What is to be said before this query, and whether it would be a transaction by itself.

    In a pipeline the status is ACTIVE until results are read: then autocommit statements may be of one transaction or of several.
    """
    talk = conversation_of(connection)
    status = connection.pgconn.transaction_status
    is_open = talk.depth > 0 or (status != _IDLE and not (status == _ACTIVE and connection.autocommit))
    is_alone = not is_open and connection.autocommit
    return talk, talk.due(_text(query, connection), in_transaction=is_open, is_alone=is_alone), is_alone


def _text(query: object, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("latin-1")
    if isinstance(query, Composable):
        return query.as_string(connection)
    return "".join(getattr(query, "strings", ()))  # a template string


class _Telling(psycopg.Cursor[Any]):
    """Mixed into a cursor class: says who acts before what writes."""

    @contextmanager
    def _told(self, talk: Conversation, due: str, is_alone: bool) -> Iterator[None]:
        connection = self.connection
        if not _is_heard(connection, talk):
            yield
        elif is_alone:
            with psycopg.Connection.transaction(connection):
                _say(connection, talk, due)
                yield
        else:
            _say(connection, talk, due)
            yield

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        talk, due, is_alone = _due(self.connection, query)
        if due is None:
            return super().execute(query, params, **options)
        with self._told(talk, due, is_alone):
            return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        talk, due, is_alone = _due(self.connection, query)
        if due is None:
            return super().executemany(query, params_seq, **options)
        with self._told(talk, due, is_alone):
            return super().executemany(query, params_seq, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        talk, due, is_alone = _due(self.connection, statement)
        told = nullcontext() if due is None else self._told(talk, due, is_alone)
        with told, super().copy(statement, params, **options) as copy:
            yield copy

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        talk, due, is_alone = _due(self.connection, query)
        with nullcontext() if due is None else self._told(talk, due, is_alone):
            yield from super().stream(query, params, **options)


class _AsyncTelling(psycopg.AsyncCursor[Any]):
    """Mixed into an asynchronous cursor class: says who acts before what writes."""

    @asynccontextmanager
    async def _told(self, talk: Conversation, due: str, is_alone: bool) -> AsyncIterator[None]:
        connection = self.connection
        if not await _is_heard_async(connection, talk):
            yield
        elif is_alone:
            async with psycopg.AsyncConnection.transaction(connection):
                await _say_async(connection, talk, due)
                yield
        else:
            await _say_async(connection, talk, due)
            yield

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        talk, due, is_alone = _due(self.connection, query)
        if due is None:
            return await super().execute(query, params, **options)
        async with self._told(talk, due, is_alone):
            return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        talk, due, is_alone = _due(self.connection, query)
        if due is None:
            return await super().executemany(query, params_seq, **options)
        async with self._told(talk, due, is_alone):
            return await super().executemany(query, params_seq, **options)

    @asynccontextmanager
    async def copy(
        self, statement: Any, params: Any = None, **options: Any
    ) -> AsyncIterator[psycopg.AsyncCopy]:
        talk, due, is_alone = _due(self.connection, statement)
        told = nullcontext() if due is None else self._told(talk, due, is_alone)
        async with told, super().copy(statement, params, **options) as copy:
            yield copy

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        talk, due, is_alone = _due(self.connection, query)
        async with nullcontext() if due is None else self._told(talk, due, is_alone):
            async for row in super().stream(query, params, **options):
                yield row


@lru_cache(maxsize=32)
def _telling(cursor: type[psycopg.Cursor[Any]]) -> type[psycopg.Cursor[Any]]:
    return type(f"Telling{cursor.__name__}", (_Telling, cursor), {})


@lru_cache(maxsize=32)
def _async_telling(cursor: type[psycopg.AsyncCursor[Any]]) -> type[psycopg.AsyncCursor[Any]]:
    return type(f"Telling{cursor.__name__}", (_AsyncTelling, cursor), {})
