"""A FastAPI service: the middleware, a dependency that learns who it is, handlers in tasks and in threads, background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, Header
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from cdc_audit.client import audit_context, identify
from cdc_audit.client.asgi import AuditMiddleware
from cdc_audit.client.psycopg import AsyncConnection, Connection
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_tasks

INSERT = "insert into orders (app, who) values ('fastapi_service', %s) returning id"
pool = AsyncConnectionPool(DSN, connection_class=AsyncConnection, min_size=3, max_size=3, open=False)
thread_pool = ConnectionPool(DSN, connection_class=Connection, min_size=2, max_size=2, open=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with pool:
        with thread_pool:
            yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(AuditMiddleware)


def who(x_user: Annotated[str, Header()]) -> str:
    """In a thread, as FastAPI calls dependencies that aren't asynchronous: the handler sees what is said here."""
    identify(user_id=x_user, email=f"{x_user}@example.org")
    return x_user


User = Annotated[str, Depends(who)]


async def write_later(user: str) -> None:
    async with pool.connection() as db:
        await db.execute(INSERT, (user,))


@app.post("/thread/{step}")
def order_in_thread(step: str, user: User) -> None:
    with thread_pool.connection() as db:
        db.execute(INSERT, (user,))


@app.post("/task/{step}")
async def order(step: str, user: User, later: BackgroundTasks) -> None:
    if step == "alone":
        later.add_task(write_later, user)
        return
    async with pool.connection() as db:
        if step == "read":
            await db.execute("select count(*) from orders where id = 1")
            return
        if step in ("savepoint", "retry"):
            await db.execute("select 1")
            with suppress(UndoneError):
                async with db.transaction():
                    await db.execute(INSERT, ("nobody",))
                    raise UndoneError
            if step == "retry":
                await db.rollback()
        if step == "insert":
            await db.execute("select 1")
        cursor = await db.execute(INSERT, (user,))
        if step == "insert_and_update":
            row = await cursor.fetchone()
            assert row is not None
            await db.execute(
                "update orders set changes = changes + 1, who = %s where id = %s", (user, row[0])
            )
        if step == "two_users":
            with audit_context(user_id=other(user)):
                await db.execute(INSERT, (other(user),))


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):

        async def request(user: str, step: str) -> None:
            kind = "thread" if step == "many" else "task"
            answer = await client.post(f"/{kind}/{step}", headers={"X-User": user})
            assert answer.status_code == 200, answer.text

        await work_in_tasks(request)


if __name__ == "__main__":
    asyncio.run(main())
