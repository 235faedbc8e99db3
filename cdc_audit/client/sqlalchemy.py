"""SQLAlchemy 2: engines whose transactions say who acts, Core and ORM, sync and async, with any PostgreSQL driver.

    from cdc_audit.client.sqlalchemy import audited

    engine = audited(create_engine(...))                # or create_async_engine(...)

All that is executed passes through the engine's events, what the ORM flushes, too. With isolation level AUTOCOMMIT a statement
that writes becomes a transaction of its own with the context in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import ExceptionContext

from cdc_audit.client import payload
from cdc_audit.client.context import current_context
from cdc_audit.client.conversation import Conversation
from cdc_audit.client.statement import LOG_EVENT, PROBE, SAY

_TALK = "cdc_audit.conversation"
_OWN = "cdc_audit.cursor_in_own_transaction"
_E = TypeVar("_E")  # Engine or AsyncEngine


def audited(engine: _E) -> _E:
    """Let this engine's transactions say who acts before their first write; returns the engine."""
    target: Any = getattr(engine, "sync_engine", engine)
    event.listen(target, "before_cursor_execute", _before)
    event.listen(target, "after_cursor_execute", _after)
    event.listen(target, "handle_error", _failed)
    for ends in ("begin", "commit", "rollback", "begin_twophase", "commit_twophase", "rollback_twophase"):
        event.listen(target, ends, _ended)
    event.listen(target, "rollback_savepoint", _rolled_back_to)
    return engine


def send_context(connection: Connection) -> None:
    """Say now who acts, in the open transaction: before a function that writes, where its name isn't configured.

    Of a Session: its ``connection()``; of what is asynchronous: ``await connection.run_sync(send_context)``.
    """
    due = _talk(connection).pending()
    if due is not None:
        _say(connection, due)


def log_event(
    connection: Connection,
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
    _ask(connection, LOG_EVENT, *given, transactional)


def _talk(connection: Connection) -> Conversation:
    """Kept with the driver's connection, which outlives ours in the pool."""
    talk: Conversation | None = connection.info.get(_TALK)
    if talk is None:
        talk = connection.info[_TALK] = Conversation()
    return talk


def _ask(connection: Connection, statement: str, *given: object) -> object:
    dollars = connection.dialect.paramstyle.startswith("numeric")
    marks = [f"${number}" if dollars else "%s" for number in range(1, len(given) + 1)]
    return connection.exec_driver_sql(statement.format(*marks), given or None).scalar()


def _is_heard(connection: Connection) -> bool:
    talk = _talk(connection)
    return not talk.must_ask or talk.learn(_ask(connection, PROBE))


def _say(connection: Connection, text: str) -> None:
    if not _is_heard(connection):
        return
    try:
        _ask(connection, SAY, text)
    except BaseException:
        _talk(connection).failed()
        raise
    _talk(connection).told(text)


def _before(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
    is_alone = _is_autocommit(connection) and _OWN not in connection.info
    due = _talk(connection).due(statement, in_transaction=not is_alone, is_alone=is_alone)
    if due is None:
        return
    if is_alone and _is_heard(connection):
        _control(connection, "begin")
        connection.info[_OWN] = cursor
    _say(connection, due)


def _after(connection: Connection, cursor: Any, *_: Any) -> None:
    if connection.info.get(_OWN) is cursor:
        del connection.info[_OWN]
        _control(connection, "commit")


def _failed(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is not None and not connection.invalidated and connection.info.pop(_OWN, None) is not None:
        _talk(connection).ended()
        if not context.is_disconnect:
            _control(connection, "rollback")


def _ended(connection: Connection, *_: Any) -> None:
    _talk(connection).ended()


def _rolled_back_to(connection: Connection, *_: Any) -> None:
    _talk(connection).doubt()


def _is_autocommit(connection: Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def _control(connection: Connection, command: str) -> None:
    """Past the engine, which knows of no transaction in this mode."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    cursor = driver.cursor()
    try:
        cursor.execute(command)
    finally:
        cursor.close()
