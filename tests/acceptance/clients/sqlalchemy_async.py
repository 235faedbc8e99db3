"""SQLAlchemy's AsyncSession on asyncpg, tasks and a pool."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cdc_audit.client import audit_context
from cdc_audit.client.sqlalchemy import audited
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_tasks
from tests.acceptance.clients.orm_model import Order


def order(who: str) -> Order:
    return Order(app="sqlalchemy_async", who=who)


async def transaction(engine: AsyncEngine, user: str, step: str) -> None:
    async with audit_context(user_id=user, reason="crowd"):
        if step == "alone":
            autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
            async with autocommit.connect() as db:
                await db.execute(sa.insert(Order).values(app="sqlalchemy_async", who=user))
                await db.execute(sa.insert(Order).values(app="sqlalchemy_async", who=user))
            return
        if step == "retry":
            with suppress(UndoneError):
                async with AsyncSession(engine) as session, session.begin():
                    session.add(order("nobody"))
                    await session.flush()
                    raise UndoneError
        async with AsyncSession(engine) as session, session.begin():
            if step == "read":
                await session.get(Order, 1)
                return
            if step == "savepoint":
                with suppress(UndoneError):
                    async with session.begin_nested():
                        session.add(order("nobody"))
                        await session.flush()
                        raise UndoneError
            if step == "many":
                session.add_all([order(user) for _ in range(3)])
            if step == "insert":
                await session.get(Order, 1)
            mine = order(user)
            session.add(mine)
            if step == "insert_and_update":
                await session.flush()
                mine.changes += 1
            if step == "two_users":
                await session.flush()
                async with audit_context(user_id=other(user)):
                    session.add(order(other(user)))
                    await session.flush()


async def main() -> None:
    url = DSN.replace("postgresql://", "postgresql+asyncpg://")
    engine = audited(create_async_engine(url, pool_size=3, max_overflow=0))
    await work_in_tasks(lambda user, step: transaction(engine, user, step))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
