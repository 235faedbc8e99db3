"""Each integration of the client library doing the same transactions, with it and without: what ``context_cost`` times.

A way opens one connection and gives a function that makes so many transactions of these statements. With the integration each is
inside a context of four fields, as a request would open it; without it, the same code has neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import asyncpg
import celery
import django
import flask
import psycopg
import sqlalchemy as sa
from celery import signals
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

import cdc_audit.client.asyncpg as our_asyncpg
import cdc_audit.client.celery as our_celery
import cdc_audit.client.psycopg as our_psycopg
from cdc_audit.client import audit_context, identify
from cdc_audit.client.asgi import AuditMiddleware
from cdc_audit.client.flask import Audit
from cdc_audit.client.sqlalchemy import audited as audited_engine
from tests.support.databases import url

Batch = Callable[[Sequence[str], int], None]  # these statements in a transaction, so many times
Way = Callable[[str, bool], AbstractContextManager[Batch]]  # of a DSN, with the integration or without

FIELDS = {"user_id": "u42", "email": "ann@example.org", "ip_address": "10.0.0.9", "user_agent": "bench"}
_SAY = """select cdc_audit.set_context(
'{"user_id": "u42", "email": "ann@example.org", "ip_address": "10.0.0.9", "user_agent": "bench"}')"""


def _acting(audited: bool) -> AbstractContextManager[object]:
    return audit_context(**FIELDS) if audited else nullcontext()


@contextmanager
def by_hand(dsn: str, audited: bool) -> Iterator[Batch]:
    """psycopg, with ``select cdc_audit.set_context(...)`` first, also in what only reads."""
    with psycopg.connect(dsn, autocommit=True) as db:

        def run(statements: Sequence[str], count: int) -> None:
            for _ in range(count):
                with db.transaction():
                    if audited:
                        db.execute(_SAY)
                    for statement in statements:
                        db.execute(statement.encode())

        yield run


@contextmanager
def psycopg_sync(dsn: str, audited: bool) -> Iterator[Batch]:
    kind: type[psycopg.Connection[Any]] = our_psycopg.Connection if audited else psycopg.Connection
    with kind.connect(dsn, autocommit=True) as db:

        def run(statements: Sequence[str], count: int) -> None:
            for _ in range(count):
                with _acting(audited), db.transaction():
                    for statement in statements:
                        db.execute(statement.encode())

        yield run


@contextmanager
def _in_loop(
    begin: Callable[[], Awaitable[Any]], one: Callable[[Any, Sequence[str]], Any]
) -> Iterator[Batch]:
    """An asynchronous way on an event loop of its own; ``begin`` gives what ``one`` transaction takes, and what can be closed."""
    with asyncio.Runner() as runner:
        opened = runner.run(_awaited(begin()))

        async def many(statements: Sequence[str], count: int) -> None:
            for _ in range(count):
                await one(opened, statements)

        try:
            yield lambda statements, count: runner.run(many(statements, count))
        finally:
            runner.run(_awaited(opened.close() if hasattr(opened, "close") else opened.dispose()))


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


def psycopg_async(dsn: str, audited: bool) -> AbstractContextManager[Batch]:
    kind: type[psycopg.AsyncConnection[Any]] = (
        our_psycopg.AsyncConnection if audited else psycopg.AsyncConnection
    )

    async def one(db: psycopg.AsyncConnection[Any], statements: Sequence[str]) -> None:
        with _acting(audited):
            async with db.transaction():
                for statement in statements:
                    await db.execute(statement.encode())

    return _in_loop(lambda: kind.connect(dsn, autocommit=True), one)


def asyncpg_(dsn: str, audited: bool) -> AbstractContextManager[Batch]:
    kind = our_asyncpg.Connection if audited else asyncpg.Connection

    async def one(db: asyncpg.Connection, statements: Sequence[str]) -> None:
        with _acting(audited):
            async with db.transaction():
                for statement in statements:
                    await db.execute(statement)

    return _in_loop(lambda: asyncpg.connect(url(dsn), connection_class=kind), one)


@contextmanager
def _engine(dsn: str, audited: bool) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url(dsn).replace("://", "+psycopg://", 1), pool_size=1)
    try:
        yield audited_engine(engine) if audited else engine
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy(dsn: str, audited: bool) -> Iterator[Batch]:
    with _engine(dsn, audited) as engine:

        def run(statements: Sequence[str], count: int) -> None:
            for _ in range(count):
                with _acting(audited), engine.begin() as db:
                    for statement in statements:
                        db.execute(sa.text(statement))

        yield run


def sqlalchemy_async(dsn: str, audited: bool) -> AbstractContextManager[Batch]:
    async def begin() -> Any:
        engine = create_async_engine(url(dsn).replace("://", "+asyncpg://", 1), pool_size=1)
        return audited_engine(engine) if audited else engine

    async def one(engine: Any, statements: Sequence[str]) -> None:
        with _acting(audited):
            async with engine.begin() as db:
                for statement in statements:
                    await db.execute(sa.text(statement))

    return _in_loop(begin, one)


@contextmanager
def django_(dsn: str, audited: bool) -> Iterator[Batch]:
    """A view in ``atomic``, with the middleware around it and the wrapper on its connection; of what comes before, nothing."""
    given = conninfo_to_dict(dsn)
    if not settings.configured:
        place = {"ENGINE": "django.db.backends.postgresql", "NAME": given["dbname"], "USER": given["user"]}
        place |= {"HOST": given["host"], "PORT": given["port"]}
        settings.configure(
            DATABASES={"default": place, "plain": {**place}},
            INSTALLED_APPS=["cdc_audit.client.django.AuditConfig"],
            SECRET_KEY="not a secret",
        )
        django.setup()
    from django.db import connections, transaction
    from django.test import RequestFactory

    from cdc_audit.client.django import AuditMiddleware as DjangoMiddleware

    alias = "default" if audited else "plain"
    connection = connections[alias]
    connection.ensure_connection()
    if not audited:
        connection.execute_wrappers.clear()

    def view(request: Any) -> str:
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            for statement in request.statements:
                cursor.execute(statement)
        return ""

    answer = DjangoMiddleware(view) if audited else view
    request: Any = RequestFactory().post("/", REMOTE_ADDR="10.0.0.9", HTTP_USER_AGENT="bench")
    request.user = SimpleNamespace(is_authenticated=True, pk="u42", email="ann@example.org")

    def run(statements: Sequence[str], count: int) -> None:
        request.statements = statements
        for _ in range(count):
            answer(request)

    try:
        yield run
    finally:
        connection.close()


def asgi(dsn: str, audited: bool) -> AbstractContextManager[Batch]:
    """The middleware around an application on psycopg that says who it is; no framework."""
    kind: type[psycopg.AsyncConnection[Any]] = (
        our_psycopg.AsyncConnection if audited else psycopg.AsyncConnection
    )

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if audited:
            identify(user_id="u42", email="ann@example.org")
        async with scope["db"].transaction():
            for statement in scope["statements"]:
                await scope["db"].execute(statement.encode())

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not called")

    answer: Any = AuditMiddleware(application) if audited else application
    headers = [(b"host", b"shop"), (b"user-agent", b"bench")]

    async def one(db: psycopg.AsyncConnection[Any], statements: Sequence[str]) -> None:
        scope = {"type": "http", "headers": headers, "client": ("10.0.0.9", 4711), "db": db}
        await answer({**scope, "statements": statements}, nothing, nothing)

    return _in_loop(lambda: kind.connect(dsn, autocommit=True), one)


@contextmanager
def flask_(dsn: str, audited: bool) -> Iterator[Batch]:
    """A request of Flask's test client, on SQLAlchemy."""
    with _engine(dsn, audited) as engine:
        app = flask.Flask(__name__)
        if audited:
            Audit(app, user=lambda: {"user_id": "u42", "email": "ann@example.org"})
        given: list[Sequence[str]] = [()]

        @app.post("/")
        def order() -> str:
            with engine.begin() as db:
                for statement in given[0]:
                    db.execute(sa.text(statement))
            return ""

        client = app.test_client()

        def run(statements: Sequence[str], count: int) -> None:
            given[0] = statements
            for _ in range(count):
                client.post("/", headers={"User-Agent": "bench"})

        yield run


@contextmanager
def celery_(dsn: str, audited: bool) -> Iterator[Batch]:
    """A task as a worker runs it, with a sender's context in its header, on psycopg; the broker's way is not in it."""
    app = celery.Celery(broker="memory://")
    kind: type[psycopg.Connection[Any]] = our_psycopg.Connection if audited else psycopg.Connection
    header = '{"user_id": "u42", "email": "ann@example.org", "ip_address": "10.0.0.9", "user_agent": "bench"}'
    with kind.connect(dsn, autocommit=True) as db:

        @app.task  # type: ignore[untyped-decorator]
        def order(statements: Sequence[str]) -> None:
            with db.transaction():
                for statement in statements:
                    db.execute(statement.encode())

        def run(statements: Sequence[str], count: int) -> None:
            our_celery.install() if audited else _deaf()
            for _ in range(count):
                order.apply((statements,), headers={"cdc_audit": header}).get()

        yield run


def _deaf() -> None:
    for signal in (signals.before_task_publish, signals.task_prerun, signals.task_postrun):
        signal.disconnect(dispatch_uid="cdc_audit")


WAYS: Mapping[str, Way] = {
    "set_context by hand": by_hand,
    "psycopg": psycopg_sync,
    "psycopg async": psycopg_async,
    "asyncpg": asyncpg_,
    "SQLAlchemy": sqlalchemy,
    "SQLAlchemy async": sqlalchemy_async,
    "Django": django_,
    "ASGI, psycopg": asgi,
    "Flask, SQLAlchemy": flask_,
    "Celery, psycopg": celery_,
}
