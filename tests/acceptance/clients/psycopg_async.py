"""psycopg, tasks, a pool and pipelines."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from psycopg_pool import AsyncConnectionPool

from cdc_audit.client import audit_context
from cdc_audit.client.psycopg import AsyncConnection
from tests.acceptance.clients.crowd import BEHIND_POOLER, DSN, UndoneError, other, work_in_tasks

INSERT = "insert into orders (app, who) values ('psycopg_async', %s)"


async def transaction(pool: AsyncConnectionPool[AsyncConnection], user: str, step: str) -> None:
    async with audit_context(user_id=user, reason="crowd"), pool.connection() as db:
        if step == "alone":
            await db.set_autocommit(True)
            try:
                async with db.pipeline():
                    await db.execute(INSERT, (user,))
                    await db.execute(INSERT, (user,))
            finally:
                await db.set_autocommit(False)
        elif step == "read":
            await db.execute("select count(*) from orders where id = 1")
        elif step == "many":
            async with db.cursor() as cursor, cursor.copy("copy orders (app, who) from stdin") as copy:
                await copy.write_row(("psycopg_async", user))
        else:
            if step in ("savepoint", "retry"):
                with suppress(UndoneError):
                    async with db.transaction(), db.transaction():
                        await db.execute(INSERT, ("nobody",))
                        raise UndoneError
            async with db.pipeline(), db.transaction():
                if step == "savepoint":
                    async with db.transaction(force_rollback=True):
                        await db.execute(INSERT, ("nobody",))
                if step == "insert":
                    await db.execute("select 1")
                await db.execute(INSERT, (user,))
                if step == "insert_and_update":
                    await db.execute(
                        "update orders set changes = changes + 1, who = %s where id = lastval()", (user,)
                    )
                if step == "two_users":
                    async with audit_context(user_id=other(user)):
                        await db.execute(INSERT, (other(user),))


async def main() -> None:
    async with AsyncConnectionPool(
        DSN, connection_class=AsyncConnection, kwargs=BEHIND_POOLER, min_size=3, max_size=3, open=False
    ) as pool:
        await work_in_tasks(lambda user, step: transaction(pool, user, step))


if __name__ == "__main__":
    asyncio.run(main())
