"""Celery: who sends a task is who its writes are by. A worker of eight threads, a broker in memory, retries."""

from __future__ import annotations

from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from psycopg_pool import ConnectionPool

from cdc_audit.client import audit_context
from cdc_audit.client.celery import install
from cdc_audit.client.psycopg import Connection
from tests.acceptance.clients.crowd import DSN, WORKERS, other, plan

INSERT = "insert into orders (app, who) values ('celery_worker', %s)"
app = Celery(broker="memory://", backend="cache+memory://")
app.conf.broker_transport_options = {"polling_interval": 0.002}
app.conf.worker_prefetch_multiplier = 32
install()
pool = ConnectionPool(DSN, connection_class=Connection, min_size=3, max_size=3, open=False)


@app.task(bind=True, max_retries=1)  # type: ignore[untyped-decorator]
def order(task: Task, user: str, step: str) -> None:
    with pool.connection() as db:
        if step == "read":
            db.execute("select count(*) from orders where id = 1")
            return
        if step == "insert":
            db.execute("select 1")
        db.execute(INSERT, ("nobody" if step == "retry" and not task.request.retries else user,))
        if step == "insert_and_update":
            db.execute("update orders set changes = changes + 1, who = %s where id = lastval()", (user,))
        if step == "two_users":
            with audit_context(user_id=other(user)):
                db.execute(INSERT, (other(user),))
        if step == "retry" and not task.request.retries:
            raise task.retry(countdown=0)
        if step == "many":
            order.delay(user, "insert")  # sent by a task: for the same user


def main() -> None:
    with (
        pool,
        start_worker(app, pool="threads", concurrency=WORKERS, perform_ping_check=False, shutdown_timeout=60),
    ):
        sent = []
        for worker in range(WORKERS):
            for user, step in plan(worker):
                with audit_context(user_id=user, reason="crowd"):
                    sent.append(order.delay(user, step))
        for result in sent:
            result.get(timeout=120)


if __name__ == "__main__":
    main()
