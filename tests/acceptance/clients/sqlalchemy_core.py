"""SQLAlchemy Core, threads and its pool."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa

from cdc_audit.client import audit_context
from cdc_audit.client.sqlalchemy import audited
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_threads

ORDERS = sa.table("orders", sa.column("id", sa.BigInteger), *map(sa.column, ("app", "who", "changes")))


def insert(who: str) -> sa.Insert:
    return sa.insert(ORDERS).values(app="sqlalchemy_core", who=who)


def transaction(engine: sa.Engine, user: str, step: str) -> None:
    with audit_context(user_id=user, reason="crowd"):
        if step == "alone":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
                db.execute(insert(user))
                db.execute(insert(user))
            return
        if step == "retry":
            with suppress(UndoneError), engine.begin() as db:
                db.execute(insert("nobody"))
                raise UndoneError
        with engine.begin() as db:
            if step == "read":
                db.scalar(sa.select(sa.func.count()).select_from(ORDERS).where(ORDERS.c.id == 1))
                return
            if step == "savepoint":
                with suppress(UndoneError), db.begin_nested():
                    db.execute(insert("nobody"))
                    raise UndoneError
            if step == "many":
                rows = [{"app": "sqlalchemy_core", "who": user}] * 3
                db.execute(sa.insert(ORDERS).returning(ORDERS.c.id), rows)
            if step == "insert":
                db.scalar(sa.select(1))
            number = db.scalar(insert(user).returning(ORDERS.c.id))
            if step == "insert_and_update":
                change = sa.update(ORDERS).where(ORDERS.c.id == number)
                db.execute(change.values(changes=ORDERS.c.changes + 1, who=user))
            if step == "two_users":
                with audit_context(user_id=other(user)):
                    db.execute(insert(other(user)))


def main() -> None:
    url = DSN.replace("postgresql://", "postgresql+psycopg://")
    engine = audited(sa.create_engine(url, pool_size=3, max_overflow=0))
    work_in_threads(lambda user, step: transaction(engine, user, step))
    engine.dispose()


if __name__ == "__main__":
    main()
