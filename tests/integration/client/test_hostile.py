"""Contexts as an attacker would fill them: nothing is injected, no transaction breaks, no row and no user is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

from cdc_audit.client import audit_context
from cdc_audit.client.asyncpg import Connection as AsyncpgConnection
from cdc_audit.client.psycopg import Connection
from cdc_audit.client.sqlalchemy import audited
from tests.integration.client.conftest import transactions
from tests.integration.source.conftest import Database
from tests.integration.source.stream_look import Look


class Liar:
    def __str__(self) -> str:
        raise ZeroDivisionError


def nested(levels: int) -> object:
    value: object = "end"
    for _ in range(levels):
        value = [value]
    return value


circle: dict[str, object] = {}
circle["self"] = circle

HOSTILE: list[dict[str, Any]] = [
    {"note": "'); drop table t; --"},
    {"note": "*/ drop table t; /*"},
    {"note": '"}, "user_id": "boss", {"'},
    {"note": "$$ $1 %s %(x)s :said {} \\' \\"},
    {"note": "NUL \0 and \ud800 and \x01\x1b"},
    {"note": "x" * 1_000_000},
    {f"key {n}": "y" * 1000 for n in range(1000)},
    {"k" * 1_000_000: 1},
    {"note": nested(500)},
    {"note": circle},
    {"note": Liar(), "bytes": b"\xff\xfe\0", "set": {1, 2}, "nan": float("nan"), "huge": 1e308},
    {"note": 10**5000, "object": object(), "class": dict, "generator": (n for n in range(3))},
    {"email": ["a", "b"], "ip_address": "no address", "user_agent": {"a": 1}},
    {"note": "\u202e" * 3000, "emoji": "\U0001f600" * 3000},
]
WRITES = "insert into t (v) values ('x')"


def by_psycopg(dsn: str, fields: dict[str, Any]) -> None:
    with Connection.connect(dsn) as db, audit_context(user_id="u1", **fields):
        db.execute(WRITES)


def by_asyncpg(dsn: str, fields: dict[str, Any]) -> None:
    given = psycopg.conninfo.conninfo_to_dict(dsn)

    async def work() -> None:
        db = await asyncpg.connect(
            host=given["host"],
            port=given["port"],
            user=given["user"],
            database=given["dbname"],
            connection_class=AsyncpgConnection,
        )
        async with audit_context(user_id="u1", **fields):
            await db.execute(WRITES)
        await db.close()

    asyncio.run(work())


def by_sqlalchemy(dsn: str, fields: dict[str, Any]) -> None:
    engine = audited(sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn)))
    with engine.begin() as db, audit_context(user_id="u1", **fields):
        db.exec_driver_sql(WRITES)
    engine.dispose()


@pytest.mark.parametrize("write", [by_psycopg, by_asyncpg, by_sqlalchemy])
def test_a_hostile_context_does_no_harm_and_the_user_is_there(
    write: Any, shop: psycopg.Connection, database: Database, look: Look
) -> None:
    for fields in HOSTILE:
        write(database.dsn(), fields)
    found = transactions(look)
    assert len(found) == len(HOSTILE)
    for said, change in found:
        assert isinstance(said, dict)
        assert said["user_id"] == "u1"
        assert len(json.dumps(said, ensure_ascii=False).encode()) <= 8192
        assert change == "INSERT"
    assert found[2][0] == {"user_id": "u1", **HOSTILE[2]}
    assert found[0][0] == {"user_id": "u1", **HOSTILE[0]}
    assert shop.execute("select count(*) from public.t").fetchone() == (len(HOSTILE),)
