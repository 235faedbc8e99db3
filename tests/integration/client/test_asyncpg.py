"""asyncpg's many ways to send a statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc_audit.client import audit_context
from cdc_audit.client.asyncpg import Connection
from tests.integration.client.conftest import transactions
from tests.integration.source.conftest import Database
from tests.integration.source.stream_look import Look

INSERT = "insert into t (v) values ($1)"
U1 = {"user_id": "u1"}


def work(database: Database, do: Callable[[Any], Awaitable[None]]) -> None:
    given = conninfo_to_dict(database.dsn())

    async def main() -> None:
        where = {"host": given["host"], "port": given["port"], "user": given["user"]}
        db = await asyncpg.connect(**where, database=given["dbname"], connection_class=Connection)
        async with audit_context(user_id="u1"):
            await do(db)
        await db.close()

    asyncio.run(main())


def test_each_way_to_send_a_statement_tells(shop: psycopg.Connection, database: Database, look: Look) -> None:
    async def do(db: Any) -> None:
        await db.execute(INSERT, "a")
        await db.executemany(INSERT, [("b",), ("c",)])
        await db.fetch(f"{INSERT} returning v", "d")
        assert await db.fetchval(f"{INSERT} returning v", "e") == "e"
        await db.fetchrow(f"{INSERT} returning v", "f")
        await db.fetchmany(f"{INSERT} returning v", [("g",)])
        await db.copy_records_to_table("t", records=[("h",)], columns=["v"])
        prepared = await db.prepare(f"{INSERT} returning v")
        assert await prepared.fetchval("i") == "i"
        assert prepared.get_query() == f"{INSERT} returning v"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await db.execute("insert into t (v) select (1 / 0)::text")
        await db.execute("vacuum t")
        async with db.transaction():
            await db.execute(INSERT, "j")

    work(database, do)
    found = transactions(look)
    assert [events[0] for events in found] == [U1] * 9
    assert [len(events) - 1 for events in found] == [1, 2, 1, 1, 1, 1, 1, 1, 1]


def test_events_and_contexts_can_be_sent_by_hand(
    shop: psycopg.Connection, database: Database, look: Look
) -> None:
    async def do(db: Any) -> None:
        async with db.transaction():
            await db.send_context()
            await db.log_event("READ", "patients", 7, {"why": "treatment"})
            await db.execute(INSERT, "a")

    work(database, do)
    said, event = (sent.body for sent in look.messages())
    assert said["context"] == U1
    assert event["data"] == {"why": "treatment", "context": U1}
