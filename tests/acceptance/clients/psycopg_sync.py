"""psycopg, threads and a pool."""

from __future__ import annotations

from contextlib import suppress

from psycopg_pool import ConnectionPool

from cdc_audit.client import audit_context
from cdc_audit.client.psycopg import Connection
from tests.acceptance.clients.crowd import BEHIND_POOLER, DSN, UndoneError, other, work_in_threads

INSERT = "insert into orders (app, who) values ('psycopg_sync', %s) returning id"


def transaction(pool: ConnectionPool[Connection], user: str, step: str) -> None:
    with audit_context(user_id=user, ip_address="10.0.0.9", reason="crowd"), pool.connection() as db:
        if step == "alone":
            db.autocommit = True
            db.execute(INSERT, (user,))
            db.autocommit = False
            return
        if step == "read":
            db.execute("select count(*) from orders where id = 1")
            return
        if step == "many":
            with db.cursor() as cursor:
                cursor.executemany(INSERT, [(user,), (user,)])
                db.commit()
                with cursor.copy("copy orders (app, who) from stdin") as copy:
                    copy.write_row(("psycopg_sync", user))
            return
        if step in ("savepoint", "retry"):
            db.execute("select 1")
            with suppress(UndoneError), db.transaction():
                db.execute(INSERT, ("nobody",))
                raise UndoneError
            if step == "retry":
                db.rollback()
        if step == "insert":
            db.execute("select 1")
        row = db.execute(INSERT, (user,)).fetchone()
        assert row is not None
        if step == "insert_and_update":
            db.execute("update orders set changes = changes + 1, who = %s where id = %s", (user, row[0]))
        if step == "two_users":
            with audit_context(user_id=other(user)):
                db.execute(INSERT, (other(user),))


def main() -> None:
    with ConnectionPool(
        DSN, connection_class=Connection, kwargs=BEHIND_POOLER, min_size=3, max_size=3, open=True
    ) as pool:
        work_in_threads(lambda user, step: transaction(pool, user, step))


if __name__ == "__main__":
    main()
