"""The promise: every committed change once, in order, with its user, whatever dies meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.oracle import Oracle, wait_for
from tests.support.servers import Server
from tests.support.workload import SCHEMAS, Workload

TRANSACTIONS = 5000


def prepared(databases: Databases) -> tuple[dict[str, str], Oracle]:
    """Tables, daemon's slot and oracle, in this order."""
    env = databases.environment(BATCH_FLUSH_INTERVAL="0.05")
    Workload.install(databases.source_dsn)
    initialised(env)
    return env, Oracle.install(databases.source_dsn, SCHEMAS)


def test_a_random_workload_is_stored_once_in_order_and_with_the_right_users(
    databases: Databases, tmp_path: Path
) -> None:
    env, oracle = prepared(databases)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        tally = Workload(databases.source_dsn, seed=1, transactions=TRANSACTIONS, events=True).run()
        wait_for(databases.audit_dsn, oracle.mark())
        difference = oracle.compare(databases.audit_dsn)
        print(f"{tally.committed} transactions in {tally.seconds:.1f} s: {difference}")
        assert difference.is_none, difference
        assert daemon.stop() == 0


DIFFERENT = """
with one as (select row_number() over (order by id) as place, {columns} from audit.audit_logs where {sent_by_both}),
     other as (select row_number() over (order by id) as place, {columns} from pgoutput.audit_logs where {sent_by_both})
select (select count(*) from one), count(*)
from ((table one except all table other) union all (table other except all table one)) as different
"""


def test_both_plugins_store_the_same_rows_of_one_workload(databases: Databases, tmp_path: Path) -> None:
    """All columns but id, seq and hash: wal2json also reports the TRUNCATE of a partitioned table itself."""
    env, oracle = prepared(databases)
    other = {**env, "CDC_AUDIT_SOURCE_PLUGIN": "pgoutput", "CDC_AUDIT_AUDIT_SCHEMA": "pgoutput"}
    other["CDC_AUDIT_SOURCE_SLOT"] = f"{databases.slot}_p"
    initialised(other)
    columns = databases.audit.execute(
        "select string_agg(attname, ', ' order by attnum) from pg_attribute where attrelid = 'audit.audit_logs'::regclass"
        " and attnum > 0 and attname not in ('id', 'seq', 'row_hash')",
        dbname=databases.audit_name,
    )[0][0]
    with DaemonProcess(env, tmp_path / "one") as one, DaemonProcess(other, tmp_path / "other") as two:
        one.until_ready()
        two.until_ready()
        Workload(
            databases.source_dsn, seed=4, transactions=TRANSACTIONS // 2, events=True, suppressed=False
        ).run()
        mark = oracle.mark()
        wait_for(databases.audit_dsn, mark)
        wait_for(databases.audit_dsn, mark, schema="pgoutput")
    difference = oracle.compare(databases.audit_dsn, schema="pgoutput", has_root_truncates=False)
    assert difference.is_none, difference
    sent_by_both = "not (action = 'TRUNCATE' and table_name = 'readings' and partition_name is null)"
    rows, different = databases.audit.execute(
        DIFFERENT.format(columns=columns, sent_by_both=sent_by_both), dbname=databases.audit_name
    )[0]
    print(f"{rows} rows by both plugins, {different} different")
    assert rows > 2 * TRANSACTIONS  # the sessions take turns as they come: about 20,000, give or take 2,000
    assert different == 0


def test_twenty_sigkills_of_the_daemon_lose_and_repeat_nothing(databases: Databases, tmp_path: Path) -> None:
    """Cases 13, 14: whole transactions are sent again, and are stored once."""
    env, oracle = prepared(databases)
    moments = random.Random(20)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        workload = endless(databases, seed=2)
        for kill in range(20):
            if kill % 4:  # every fourth one may hit it while it still connects
                daemon.until_ready()
            advance(workload, moments.randrange(1, 150))
            daemon.kill()
            daemon.start()
        finish(workload, databases, oracle)
        assert len(daemon.events("streaming")) >= 15, "killed before it ever streamed"
        assert daemon.stop() == 0
    difference = oracle.compare(databases.audit_dsn)
    assert difference.is_none, difference


@pytest.mark.parametrize("side", ["source", "audit"])
def test_five_crashes_of_a_server_lose_and_repeat_nothing(
    side: str, private_cluster: Callable[..., Server], tmp_path: Path
) -> None:
    databases = new_databases(private_cluster("source", fsync=True), private_cluster("audit", fsync=True))
    env, oracle = prepared(databases)
    crashing = databases.source if side == "source" else databases.audit
    with DaemonProcess(env, tmp_path / "log") as daemon:
        workload = endless(databases, seed=3)
        for _ in range(5):
            daemon.until_ready()
            advance(workload, 200)
            crashing.restart("immediate")
        finish(workload, databases, oracle)
        assert daemon.metric("reconnects_total", side=side) >= 5
        assert daemon.stop() == 0
    difference = oracle.compare(databases.audit_dsn)
    assert difference.is_none, difference


def endless(databases: Databases, *, seed: int) -> Workload:
    """A workload that goes on until it is stopped."""
    workload = Workload(databases.source_dsn, seed=seed, transactions=10**6, events=True, pause=0.002)
    workload.start()
    return workload


def advance(workload: Workload, transactions: int) -> None:
    """Wait until so many more are committed."""
    at = workload.committed + transactions
    until(lambda: workload.committed >= at, f"{transactions} more transactions", 60)


def finish(workload: Workload, databases: Databases, oracle: Oracle) -> None:
    """Let it come to the full number of transactions, and the trail to its end."""
    until(lambda: workload.committed >= TRANSACTIONS, f"{TRANSACTIONS} transactions", 120)
    workload.stop()
    workload.join()
    wait_for(databases.audit_dsn, oracle.mark())
