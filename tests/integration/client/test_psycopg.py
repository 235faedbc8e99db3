"""psycopg's many ways to send a statement: each transaction says who acts before its first write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc_audit.client import ContextUnavailableError, audit_context, configure
from cdc_audit.client.psycopg import AsyncConnection, Connection, log_event, send_context
from tests.integration.client.conftest import transactions
from tests.integration.source.conftest import Database, RoleMaker
from tests.integration.source.stream_look import Look

INSERT = "insert into t (v) values (%s)"
U1 = {"user_id": "u1"}


@pytest.fixture
def db(shop: psycopg.Connection, database: Database) -> Iterator[Connection]:
    with Connection.connect(database.dsn()) as connection, audit_context(user_id="u1"):
        yield connection


def test_each_kind_of_cursor_and_query_tells(db: Connection, look: Look) -> None:
    db.execute(INSERT, ("a",))
    db.commit()
    factory: Any
    for factory in (psycopg.Cursor, psycopg.ClientCursor):
        db.cursor_factory = factory
        db.execute(sql.SQL(INSERT), ("a",))
        db.commit()
        with db.cursor() as cursor:
            cursor.executemany(INSERT.encode(), [("a",), ("b",)])
        db.commit()
    db.cursor_factory = psycopg.RawCursor
    db.execute("insert into t (v) values ($1)", ("a",))
    db.commit()
    db.cursor_factory = psycopg.Cursor
    with db.cursor() as cursor:
        assert len(list(cursor.stream(f"{INSERT} returning id", ("a",)))) == 1
    db.commit()
    with db.cursor(binary=True) as cursor, cursor.copy("copy t (v) from stdin") as copy:
        copy.write_row(("a",))
    db.commit()
    found = transactions(look)
    assert [events[0] for events in found] == [U1] * 8
    assert [len(events) for events in found] == [2, 2, 3, 2, 3, 2, 2, 2]


def test_autocommit_puts_context_and_statement_into_one_transaction(db: Connection, look: Look) -> None:
    db.autocommit = True
    db.execute(INSERT, ("a",))
    with db.cursor() as cursor:
        cursor.executemany(INSERT, [("a",), ("b",)])
        with cursor.copy("copy t (v) from stdin") as copy:
            copy.write_row(("a",))
        list(cursor.stream(f"{INSERT} returning id", ("a",)))
    with suppress(psycopg.errors.DivisionByZero):
        db.execute("insert into t (v) select (1 / 0)::text")
    assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with db.transaction():
        db.execute(INSERT, ("a",))
    db.execute("begin; ")
    db.execute(INSERT, ("a",))
    db.execute("commit")
    db.execute("begin")
    db.execute(INSERT, ("a",))
    db.commit()
    db.execute("vacuum t")
    assert [events[0] for events in transactions(look)] == [U1] * 7


def test_a_transaction_block_after_a_commit_is_a_new_transaction(db: Connection, look: Look) -> None:
    for _ in range(2):
        db.execute(INSERT, ("a",))
        db.commit()
        with db.transaction():
            db.execute(INSERT, ("a",))
    assert transactions(look) == [[U1, "INSERT"]] * 4


def test_a_transaction_that_begins_with_a_read_tells_before_its_write(db: Connection, look: Look) -> None:
    for _ in range(2):
        db.execute("select 1")
        db.execute(INSERT, ("a",))
        db.commit()
    assert transactions(look) == [[U1, "INSERT"]] * 2


def test_what_a_savepoint_took_along_is_said_again_and_nothing_else(db: Connection, look: Look) -> None:
    with db.transaction():
        with db.transaction(force_rollback=True):
            db.execute(INSERT, ("a",))
        with db.transaction():
            db.execute(INSERT, ("b",))
        db.execute(INSERT, ("c",))
        with db.transaction(), suppress(psycopg.errors.DivisionByZero), db.transaction():
            db.execute("select 1 / 0")
        db.execute("savepoint s")
        db.execute(INSERT, ("d",))
        db.execute("rollback to s")
        db.execute(INSERT, ("e",))
    (events,) = transactions(look)
    assert events == [U1, "INSERT", "INSERT", U1, "INSERT"]


def test_pipelines_tell_in_their_order(db: Connection, look: Look) -> None:
    with db.pipeline():
        for _ in range(2):
            with db.transaction():
                db.execute(INSERT, ("a",))
                db.execute(INSERT, ("b",))
        db.execute(INSERT, ("c",))
        db.commit()
        db.execute(INSERT, ("d",))
    db.commit()
    db.autocommit = True
    with db.pipeline() as pipeline:
        db.execute("select 1")
        db.execute(INSERT, ("e",))
        db.execute("select 1")
        pipeline.sync()
        db.execute("select 1")
        db.execute(INSERT, ("f",))
    assert transactions(look) == [[U1, "INSERT", "INSERT"]] * 2 + [[U1, "INSERT"]] * 4


def test_in_doubt_it_is_sent_and_breaks_no_transaction_that_only_reads(db: Connection, look: Look) -> None:
    db.execute("begin read only")
    assert db.execute("with a as (select 'insert' as b) select b from a").fetchall() == [("insert",)]
    db.execute("do $$ begin perform 1; end $$")
    db.commit()
    assert transactions(look) == [[U1]]


def test_functions_that_write_are_named_or_preceded_by_hand(db: Connection, look: Look) -> None:
    db.execute("create function place(text) returns void language sql as $$ insert into t (v) values ($1) $$")
    db.commit()
    transactions(look)
    db.execute("select place('a')")
    db.commit()
    send_context(db)
    db.execute("select place('b')")
    db.commit()
    configure(functions=("place",))
    db.execute("select place('c')")
    db.commit()
    assert transactions(look) == [["INSERT"], [U1, "INSERT"], [U1, "INSERT"]]


def test_an_event_takes_the_context_along_in_one_statement(db: Connection, look: Look) -> None:
    db.execute("begin read only")
    log_event(db, "READ", "patients", 7, {"why": "treatment"})
    db.commit()
    log_event(db, "EXPORT", "patients", transactional=False)
    db.rollback()
    first, second = (sent.body for sent in look.messages())
    assert (first["action"], first["record_id"]) == ("READ", "7")
    assert first["data"] == {"why": "treatment", "context": U1}
    assert (second["action"], second["data"], second["xid"]) == ("EXPORT", {"context": U1}, None)


def test_without_our_functions_the_application_works_or_strictly_does_not(database: Database) -> None:
    with Connection.connect(database.dsn()) as db, audit_context(user_id="u1"):
        db.execute("create table t (v text)")
        db.execute(INSERT, ("a",))
        db.commit()
        configure(strict=True)
        try:
            with pytest.raises(ContextUnavailableError, match="cdc-audit source install"):
                db.execute(INSERT, ("b",))
        finally:
            configure()
        db.rollback()
        assert db.execute("select v from t").fetchall() == [("a",)]


def test_a_role_that_may_not_call_them_works_too(
    shop: psycopg.Connection, database: Database, make_role: RoleMaker
) -> None:
    role = make_role("app")
    shop.execute(sql.SQL("grant insert on public.t to {}").format(sql.Identifier(role)))
    shop.execute("revoke all on schema cdc_audit from public")
    with Connection.connect(database.dsn(role)) as db, audit_context(user_id="u1"):
        db.execute(INSERT, ("a",))
    assert shop.execute("select v from public.t").fetchall() == [("a",)]


def test_functions_that_are_gone_break_one_transaction_and_not_the_next(
    db: Connection, shop: psycopg.Connection
) -> None:
    db.execute(INSERT, ("a",))
    db.commit()
    shop.execute("drop schema cdc_audit cascade")
    with pytest.raises(psycopg.errors.InvalidSchemaName):
        db.execute(INSERT, ("b",))
    db.rollback()
    db.execute(INSERT, ("c",))
    db.commit()
    assert shop.execute("select v from public.t order by id").fetchall() == [("a",), ("c",)]


def test_the_asynchronous_connection_does_the_same(
    shop: psycopg.Connection, database: Database, look: Look
) -> None:
    async def work() -> None:
        async with await AsyncConnection.connect(database.dsn()) as db, audit_context(user_id="u1"):
            async with db.cursor() as cursor:
                await cursor.executemany(INSERT, [("a",), ("b",)])
                assert [row async for row in cursor.stream(f"{INSERT} returning v", ("c",))] == [("c",)]
            await db.commit()
            async with db.transaction():
                async with db.transaction(force_rollback=True):
                    await db.execute(INSERT, ("x",))
                await db.execute(INSERT, ("d",))
            await db.set_autocommit(True)
            async with db.cursor() as cursor, cursor.copy("copy t (v) from stdin") as copy:
                await copy.write_row(("e",))

    asyncio.run(work())
    assert transactions(look) == [[U1, "INSERT", "INSERT", "INSERT"], [U1, "INSERT"], [U1, "INSERT"]]
