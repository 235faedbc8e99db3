"""Every integration of the client library: an application of two users, eight workers and few connections, seen by the trail.

The oracle is the applications' own column "who": the user for whom a row was written, told by the application itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.clients import crowd
from tests.support.bouncer import PgBouncer, find_pgbouncer
from tests.support.databases import new_databases, url
from tests.support.live import Live, running
from tests.support.servers import Server

FOLDER = Path(__file__).with_name("clients")
APPLICATIONS = (
    "psycopg_sync",
    "psycopg_async",
    "asyncpg_pool",
    "sqlalchemy_core",
    "sqlalchemy_orm",
    "sqlalchemy_async",
    "django_site",
    "django_async_site",
    "fastapi_service",
    "flask_site",
    "celery_worker",
)
# Django's asynchronous ORM has no transactions: each statement is one.
TRANSACTIONS_OF_A_REQUEST = {"django_async_site": 2}
TRANSACTIONS = int(os.environ.get("CDC_AUDIT_TEST_TRANSACTIONS", "2000"))

MISSING = """
select count(*) filter (where user_id is null), count(*) filter (where user_id <> new_data ->> 'who'),
       count(*), count(distinct user_id), count(*) filter (where context_trust <> 'signed')
from audit.audit_logs where table_name = 'orders' and new_data ->> 'app' = %s"""


@pytest.fixture(scope="module")
def live(
    source_cluster: Server, audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    databases = new_databases(source_cluster, audit_cluster)
    try:
        with running(databases, tmp_path_factory.mktemp("daemon") / "log") as daemon:
            daemon.source.execute((FOLDER / "orders.sql").read_text())
            yield daemon
    finally:
        databases.drop()


def run(name: str, dsn: str, transactions: int, *steps: str, **more: str) -> None:
    environment = {
        **os.environ,
        "CLIENTS_STEPS": ",".join(steps),
        "CLIENTS_DSN": url(dsn),
        "PGAPPNAME": name,
        **more,
        "CLIENTS_TRANSACTIONS": str(transactions),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.acceptance.clients.{name}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def check(live: Live, name: str, transactions: int) -> None:
    """Assert that the trail holds what the application's own column says, all of it."""
    live.settle()
    query = "select coalesce(sum(changes), 0) from orders where app = %s and who <> 'nobody'"
    (written,) = live.source.execute(query, (name,)).fetchall()
    (missing, misattributed, found, users, unsigned), *_ = live.audit.execute(MISSING, (name,)).fetchall()
    assert (missing, misattributed, unsigned) == (0, 0, 0)
    assert (found, users) == (written[0], len(crowd.USERS))
    assert written[0] >= transactions * 3 // 4


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_row_is_its_users_with_eight_workers_on_three_connections(live: Live, name: str) -> None:
    run(name, live.databases.source_dsn, TRANSACTIONS)
    check(live, name, TRANSACTIONS)


@pytest.mark.skipif(find_pgbouncer() is None, reason="no pgbouncer here")
@pytest.mark.parametrize("name", ["psycopg_sync", "psycopg_async", "sqlalchemy_orm"])
def test_behind_pgbouncer_in_transaction_mode_every_row_is_its_users(live: Live, name: str) -> None:
    program = find_pgbouncer()
    assert program is not None
    with PgBouncer(program, live.databases.source_dsn) as bouncer:
        run(name, bouncer.dsn, TRANSACTIONS, CLIENTS_BEHIND_POOLER="1")
    check(live, name, TRANSACTIONS)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_transaction_that_only_reads_sends_no_statement_and_one_that_writes_twice_sends_one(
    live: Live, name: str
) -> None:
    def logged(step: str) -> tuple[int, int]:
        """The statements that the server has seen of so many transactions: ours, and the application's own on orders."""
        begun = len(live.databases.source.log_text())
        run(name, live.databases.source_dsn, transactions, step)
        lines = live.databases.source.log_text()[begun:].splitlines()
        return sum("cdc_audit." in line for line in lines), sum("orders" in line for line in lines)

    transactions = 2 * crowd.WORKERS
    database = live.databases.source_name
    live.databases.source.execute(f"alter database \"{database}\" set log_statement = 'all'")
    try:
        ours, all_ = logged("read")
        assert ours == 0
        assert all_ >= transactions
        ours, all_ = logged("insert_and_update")
        assert ours == transactions * TRANSACTIONS_OF_A_REQUEST.get(name, 1)
        assert all_ >= 2 * transactions
    finally:
        live.databases.source.execute(f'alter database "{database}" reset log_statement')
