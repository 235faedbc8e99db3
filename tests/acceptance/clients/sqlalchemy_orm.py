"""SQLAlchemy's ORM: what a flush writes, threads and a pool."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.orm import Session

from cdc_audit.client import audit_context
from cdc_audit.client.sqlalchemy import audited
from tests.acceptance.clients.crowd import BEHIND_POOLER, DSN, UndoneError, other, work_in_threads
from tests.acceptance.clients.orm_model import Order


def order(who: str) -> Order:
    return Order(app="sqlalchemy_orm", who=who)


def transaction(engine: sa.Engine, user: str, step: str) -> None:
    with audit_context(user_id=user, reason="crowd"):
        if step == "retry":
            with suppress(UndoneError), Session(engine) as session, session.begin():
                session.add(order("nobody"))
                session.flush()
                raise UndoneError
        with Session(engine) as session, session.begin():
            if step == "read":
                session.get(Order, 1)
                return
            if step == "savepoint":
                with suppress(UndoneError), session.begin_nested():
                    session.add(order("nobody"))
                    session.flush()
                    raise UndoneError
            if step == "many":
                session.add_all([order(user) for _ in range(3)])
            if step == "insert":
                session.get(Order, 1)
            mine = order(user)
            session.add(mine)
            if step == "insert_and_update":
                session.flush()
                mine.changes += 1
            if step == "two_users":
                session.flush()
                with audit_context(user_id=other(user)):
                    session.add(order(other(user)))
                    session.flush()


def main() -> None:
    url = DSN.replace("postgresql://", "postgresql+psycopg://")
    engine = audited(sa.create_engine(url, pool_size=3, max_overflow=0, connect_args=BEHIND_POOLER))
    work_in_threads(lambda user, step: transaction(engine, user, step))
    engine.dispose()


if __name__ == "__main__":
    main()
