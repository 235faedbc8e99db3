"""asyncpg, tasks and a pool."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from cdc_audit.client import audit_context
from cdc_audit.client.asyncpg import Connection
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_tasks

INSERT = "insert into orders (app, who) values ('asyncpg_pool', $1)"


async def transaction(pool: asyncpg.Pool, user: str, step: str) -> None:
    async with audit_context(user_id=user, reason="crowd"), pool.acquire() as db:
        if step == "alone":
            await db.execute(INSERT, user)
        elif step == "read":
            await db.fetchval("select count(*) from orders where id = 1")
        elif step == "many":
            await db.executemany(INSERT, [(user,), (user,)])
            await db.copy_records_to_table("orders", records=[("asyncpg_pool", user)], columns=["app", "who"])
            prepared = await db.prepare(INSERT)
            await prepared.fetch(user)
        else:
            if step == "retry":
                with suppress(UndoneError):
                    async with db.transaction():
                        await db.execute(INSERT, "nobody")
                        raise UndoneError
            async with db.transaction():
                if step == "savepoint":
                    with suppress(UndoneError):
                        async with db.transaction():
                            await db.execute(INSERT, "nobody")
                            raise UndoneError
                if step == "insert":
                    await db.fetchval("select 1")
                number = await db.fetchval(f"{INSERT} returning id", user)
                if step == "insert_and_update":
                    await db.execute(
                        "update orders set changes = changes + 1, who = $1 where id = $2", user, number
                    )
                if step == "two_users":
                    async with audit_context(user_id=other(user)):
                        await db.execute(INSERT, other(user))


async def main() -> None:
    async with asyncpg.create_pool(DSN, connection_class=Connection, min_size=3, max_size=3) as pool:
        await work_in_tasks(lambda user, step: transaction(pool, user, step))


if __name__ == "__main__":
    asyncio.run(main())
