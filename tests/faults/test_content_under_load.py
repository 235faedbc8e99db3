"""Much, large and changing: rows of 100 MB, thousands of tables, storms of partitions, and schemas that change under load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.scene import advance, check, prepared, under_load
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

MB = 1024 * 1024


@pytest.fixture
def roomy(private_cluster: Callable[..., Server], audit_cluster: Server) -> Iterator[Databases]:
    """A source that takes thousands of locks in one transaction."""
    source = private_cluster("source", settings={"max_locks_per_transaction": 2000})
    databases = new_databases(source, audit_cluster)
    yield databases
    databases.drop()


def run(databases: Databases, statements: str) -> None:
    databases.source.execute(statements, dbname=databases.source_name)


def count(databases: Databases, where: str = "true") -> int:
    query = f"select count(*) from audit.audit_logs where {where}"
    return int(databases.audit.execute(query, dbname=databases.audit_name)[0][0])


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_rows_of_a_hundred_megabytes_are_stored_to_the_last_byte(
    plugin: str, databases: Databases, tmp_path: Path
) -> None:
    run(databases, "create table t (id int primary key, v text, b bytea)")
    env = databases.environment(SOURCE_PLUGIN=plugin)
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(databases, "insert into t values (1, repeat('0123456789', 10000000), null)")
        run(databases, "insert into t values (2, null, decode(repeat('0123456789abcdef', 3125000), 'hex'))")
        run(databases, "insert into t values (3, 'small', null)")
        until(lambda: count(databases) == 3, "all three", 120)
        assert daemon.resident_bytes() < 1024 * MB
        assert daemon.stop() == 0
    expected = databases.source.execute(
        "select md5(to_jsonb(t) ->> 'v'), md5(to_jsonb(t) ->> 'b') from t order by id",
        dbname=databases.source_name,
    )
    found = databases.audit.execute(
        "select md5(new_data ->> 'v'), md5(new_data ->> 'b') from audit.audit_logs order by id",
        dbname=databases.audit_name,
    )
    assert found == expected
    assert cdc_audit("verify", env=env).returncode == 0


def test_thousands_of_tables_are_followed_in_little_memory(roomy: Databases, tmp_path: Path) -> None:
    env = roomy.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(
            roomy,
            "do $$ begin for n in 1..2000 loop"
            " execute format('create table many_%s (id int primary key, v text)', n);"
            " execute format('insert into many_%s values (%s, %L)', n, n, 'v');"
            " execute format('alter table many_%s replica identity full', n);"
            " execute format('update many_%s set v = %L', n, 'w'); end loop; end $$",
        )
        until(lambda: count(roomy) == 4000, "two rows each", 120)
        assert daemon.resident_bytes() < 150 * MB
        assert daemon.stop() == 0
    assert count(roomy, "record_id::int = substr(table_name, 6)::int and capture = 'full'") == 4000


def test_a_storm_of_partitions_is_one_table(roomy: Databases, tmp_path: Path) -> None:
    run(roomy, "create table p (id int primary key, v text) partition by range (id)")
    env = roomy.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(
            roomy,
            "do $$ begin for n in 1..500 loop"
            " execute format('create table p_%s partition of p for values from (%s) to (%s)', n, n, n + 1);"
            " insert into p values (n, 'v'); end loop;"
            " for n in 1..250 loop execute format('drop table p_%s', n); end loop; end $$",
        )
        run(roomy, "insert into p values (500, 'v') on conflict (id) do update set v = 'w'")
        until(lambda: count(roomy) == 501, "all rows", 120)
        assert daemon.resident_bytes() < 150 * MB
        assert daemon.stop() == 0
    of_its_own = "table_name = 'p' and partition_name = 'p_' || record_id"
    # What is known of a table is its catalog's present word: of a leaf that is gone, only its own name.
    gone = "table_name = partition_name or (partition_name is null and table_name = 'p_' || record_id)"
    assert count(roomy, of_its_own) + count(roomy, f"record_id::int <= 250 and ({gone})") == 501


DDL = (
    "create table storm.t (id int primary key, a text)",
    "insert into storm.t values (1, 'one')",
    "alter table storm.t add column b numeric default 1.50",
    "update storm.t set b = 2.50",
    "alter table storm.t drop column a",
    "insert into storm.t values (2, 3.5)",
    "alter table storm.t alter column b type text",
    "update storm.t set b = 'text' where id = 2",
    "alter table storm.t rename column b to c",
    "alter table storm.t rename to u",
    "insert into storm.u values (3, 'renamed')",
    "drop table storm.u",
)
IMAGES = [
    ("t", {"id": 1, "a": "one"}),
    ("t", {"id": 1, "a": "one", "b": 2.5}),
    ("t", {"id": 2, "b": 3.5}),
    ("t", {"id": 2, "b": "text"}),
    ("u", {"id": 3, "c": "renamed"}),
]


def test_schemas_that_change_under_load_disturb_nobody(databases: Databases, tmp_path: Path) -> None:
    """One session changes and drops its tables over and over, between the transactions of all others."""
    env, oracle = prepared(databases)
    other = {**env, "CDC_AUDIT_SOURCE_EXCLUDE": "oracle.*,storm.*"}
    storm = {
        **env,
        "CDC_AUDIT_SOURCE_TABLES": "storm.*",
        "CDC_AUDIT_SOURCE_SLOT": f"{databases.slot}_storm",
        "CDC_AUDIT_AUDIT_SCHEMA": "storm_audit",
    }
    initialised(storm)
    run(databases, "create schema storm")
    rounds = 12

    def change() -> None:
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            for _ in range(rounds):
                for statement in DDL:
                    source.execute(statement)

    with (
        under_load(databases) as workload,
        DaemonProcess(other, tmp_path / "log") as daemon,
        DaemonProcess(storm, tmp_path / "log2") as second,
    ):
        daemon.until_ready()
        second.until_ready()
        thread = threading.Thread(target=change)
        thread.start()
        advance(workload, 20)
        thread.join()
        stored = (
            "select table_name, new_data from storm_audit.audit_logs where schema_name = 'storm' order by id"
        )
        until(
            lambda: len(databases.audit.execute(stored, dbname=databases.audit_name)) == rounds * len(IMAGES),
            "the storm's rows",
        )
        workload.stop()
        workload.join()
        check(databases, oracle, other)
        assert daemon.stop() == 0
        assert second.stop() == 0
    assert databases.audit.execute(stored, dbname=databases.audit_name) == IMAGES * rounds
