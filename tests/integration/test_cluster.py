"""The throw-away servers that everything else is tested on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg
import pytest

from tests.support.databases import Databases
from tests.support.servers import Server


def test_each_test_has_two_empty_databases_on_two_servers(databases: Databases) -> None:
    for dsn in (databases.source_dsn, databases.audit_dsn):
        with psycopg.connect(dsn) as connection:
            tables = connection.execute(
                "select count(*) from pg_tables where schemaname = 'public'"
            ).fetchall()
        assert tables == [(0,)]
    identifiers = {
        server.execute("select system_identifier from pg_control_system()")[0][0]
        for server in (databases.source, databases.audit)
    }
    assert len(identifiers) == 2


def test_a_slot_in_use_does_not_keep_its_database_from_being_dropped(databases: Databases) -> None:
    source = databases.source
    make = "select pg_create_logical_replication_slot(%s, 'test_decoding')"
    source.execute(make, (databases.slot,), dbname=databases.source_name)
    reader = psycopg.connect(databases.source_dsn, replication="database", autocommit=True)
    with contextlib.closing(reader):
        reader.execute(f"START_REPLICATION SLOT {databases.slot} LOGICAL 0/0")
        databases.drop()
    assert source.execute("select 1 from pg_replication_slots where slot_name = %s", (databases.slot,)) == []


def test_committed_rows_survive_a_crash_and_a_killed_postmaster(
    private_cluster: Callable[..., Server],
) -> None:
    server = private_cluster("crash")
    server.execute("create table t as select 1 as a")
    server.restart("immediate")
    assert server.execute("table t") == [(1,)]
    server.kill()
    assert not server.is_running
    with pytest.raises(psycopg.OperationalError):
        server.execute("select 1")
    server.start()
    assert server.execute("table t") == [(1,)]


def test_settings_reach_the_server_and_can_be_altered(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("set", settings={"application_name": "it's"}, wal_level="replica")
    assert server.execute("show application_name") == [("it's",)]
    assert server.execute("show wal_level") == [("replica",)]
    server.execute("alter system set wal_level = 'logical'")
    server.restart("fast")
    assert server.execute("show wal_level") == [("logical",)]
