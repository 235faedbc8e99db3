"""A transaction of any size goes through whole, in memory that does not grow with it.

``CDC_AUDIT_TEST_ROWS`` sets the size (default 200,000 rows).
"""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

ROWS = int(os.environ.get("CDC_AUDIT_TEST_ROWS", "200000"))
LIMIT = 150 * 1024 * 1024


def change(databases: Databases) -> None:
    databases.source.execute(
        "insert into big select n, 'name ' || n, n * 1.10, now(), jsonb_build_object('n', n) from generate_series(1, %s) n",
        (ROWS,),
        dbname=databases.source_name,
    )


def stored(databases: Databases) -> tuple[int, int, int, str]:
    """Rows, distinct ids, highest seq, and a digest of the new images."""
    with psycopg.connect(databases.audit_dsn) as audit:
        row = audit.execute(
            "select count(*), count(distinct (new_data ->> 'id')), coalesce(max(seq), 0),"
            " coalesce(md5(string_agg(new_data ->> 'price', ',' order by id)), '') from audit.audit_logs"
        ).fetchone()
        assert row is not None
        return row


def expected(databases: Databases) -> tuple[int, int, int, str]:
    rows = databases.source.execute(
        "select md5(string_agg(price::text, ',' order by id)) from big", dbname=databases.source_name
    )
    return ROWS, ROWS, ROWS, rows[0][0]


def make_table(databases: Databases) -> None:
    databases.source.execute(
        "create table big (id int primary key, name text, price numeric, at timestamptz, data jsonb)",
        dbname=databases.source_name,
    )


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_memory_does_not_grow_with_the_transaction_and_all_of_it_is_one_block(
    plugin: str, databases: Databases, tmp_path: Path
) -> None:
    """Case 82. pgoutput says only at its end where a transaction ends: the daemon holds it in a file."""
    make_table(databases)
    env = databases.environment(SOURCE_PLUGIN=plugin)
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases)
        until(lambda: stored(databases)[0] == ROWS, "all rows", 600)
        peak = daemon.resident_bytes()
        print(f"{ROWS} rows in one transaction: peak resident memory {peak / 1048576:.0f} MiB")
        assert peak < LIMIT
        assert daemon.stop() == 0
    assert stored(databases) == expected(databases)
    blocks = databases.audit.execute(
        "select row_count from audit.ledger where kind = 'data'", dbname=databases.audit_name
    )
    assert blocks == [(ROWS,)]


def test_a_daemon_killed_in_the_middle_of_it_stores_it_once(databases: Databases, tmp_path: Path) -> None:
    make_table(databases)
    env = databases.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases)
        copying = "select tuples_processed from pg_stat_progress_copy where datname = current_database()"
        until(
            lambda: (
                (databases.audit.execute(copying, dbname=databases.audit_name) or [(0,)])[0][0] > ROWS // 4
            ),
            "a quarter",
            300,
        )
        daemon.kill()
        assert stored(databases)[0] == 0
        daemon.start()
        until(lambda: stored(databases)[0] == ROWS, "all rows", 600)
        assert daemon.stop() == 0
    assert stored(databases) == expected(databases)
