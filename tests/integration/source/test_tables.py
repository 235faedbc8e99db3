"""What the WAL tells about each kind of table, compared with what is really sent; REPLICA IDENTITY FULL."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import Connection

from cdc_audit.errors import UnavailableError
from cdc_audit.postgres import connect_async
from cdc_audit.source import catalog, tables
from tests.integration.source.conftest import Connect, Database
from tests.integration.source.stream_look import Look

SCHEMA = """
create schema shop;
create table shop.with_key (id int primary key, v text);
create table shop.composite_key (b int, a int, v text, primary key (a, b));
create table shop.no_key (id int, v text);
create table shop.deferrable_key (id int primary key deferrable, v text);
create table shop.full_identity (id int, v text); alter table shop.full_identity replica identity full;
create table shop.nothing (id int primary key, v text); alter table shop.nothing replica identity nothing;
create table shop.by_index (id int not null, v text); create unique index i1 on shop.by_index (id);
alter table shop.by_index replica identity using index i1;
create table shop.index_gone (id int not null, v text); create unique index i2 on shop.index_gone (id);
alter table shop.index_gone replica identity using index i2; drop index shop.i2;
create unlogged table shop.unlogged (id int primary key, v text);
create table shop.unique_only (id int not null unique, v text);
create table shop.parent (id int, v text, primary key (id)) partition by range (id);
create table shop.leaf (id int not null, v text); alter table shop.leaf add primary key (id);
alter table shop.parent attach partition shop.leaf for values from (0) to (10);
create table shop.middle partition of shop.parent for values from (10) to (20) partition by range (id);
create table shop.deep_leaf partition of shop.middle for values from (10) to (15);
alter table shop.deep_leaf replica identity nothing;
create table shop.inheriting (extra int) inherits (shop.no_key);
create view shop.a_view as select 1 as a; create materialized view shop.a_matview as select 1 as a;
create schema "Odd.Schema"; create table "Odd.Schema"."Tab""le" (id int primary key);
create temporary table temporary (id int);
"""


def _states(
    connection: Connection, *include: str, exclude: tuple[str, ...] = ()
) -> dict[str, tables.TableState]:
    return {state.name: state for state in tables.tables(connection, include or ("*.*",), exclude)}


def test_each_kind_of_identity_is_told_apart(source: Connection) -> None:
    source.execute(SCHEMA)
    found = {
        state.table: (state.replica_identity, state.can_capture_changes, state.can_capture_old, state.reason)
        for state in tables.tables(source, ["shop.*"])
    }
    assert found == {
        "with_key": ("default", True, False, None),
        "composite_key": ("default", True, False, None),
        "no_key": ("default", False, False, "no primary key"),
        "deferrable_key": ("default", False, False, "the primary key is deferrable"),
        "full_identity": ("full", True, True, None),
        "nothing": ("nothing", False, False, "REPLICA IDENTITY NOTHING"),
        "by_index": ("index", True, False, None),
        "index_gone": ("index", False, False, "the index of REPLICA IDENTITY USING INDEX is gone or invalid"),
        "unlogged": ("default", False, False, "unlogged: nothing of it is in the WAL"),
        "unique_only": ("default", False, False, "no primary key"),
        "parent": ("default", True, True, None),
        "leaf": ("default", True, False, None),
        "middle": ("default", True, True, None),
        "deep_leaf": ("nothing", False, False, "REPLICA IDENTITY NOTHING"),
        "inheriting": ("default", False, False, "no primary key"),
    }


def test_what_is_said_of_changes_is_what_the_server_sends(source: Connection, look: Look) -> None:
    source.execute(SCHEMA)
    states = [state for state in tables.tables(source, ["shop.*"]) if state.kind == "table"]
    for state in states:
        id_ = 12 if state.table == "deep_leaf" else 1
        values = "1, 1, 'old'" if state.table == "composite_key" else f"{id_}, 'old'"
        source.execute(f"insert into shop.{state.table} values ({values})".encode())
    look.lines()
    for state in states:
        source.execute(
            f"update only shop.{state.table} set v = 'new'; delete from only shop.{state.table}".encode()
        )
    sent = look.lines()
    for state in states:
        deletes = [line for line in sent if line.startswith(f"table shop.{state.table}: DELETE:")]
        names_its_row = any("(no-tuple-data)" not in line for line in deletes)
        gives_all = any("v[text]:'new'" in line for line in deletes)
        assert (names_its_row, gives_all) == (state.can_capture_changes, state.can_capture_old), state.table


def test_keys_are_in_column_order_and_partitions_name_their_topmost_root(source: Connection) -> None:
    source.execute(SCHEMA)
    found = _states(source)
    assert found["shop.composite_key"].primary_key == ("b", "a")
    assert found["shop.no_key"].primary_key == ()
    assert found["shop.leaf"].root == found["shop.deep_leaf"].root == ("shop", "parent")
    assert found["shop.middle"].root == ("shop", "parent")
    assert found["shop.parent"].root is None
    assert found["shop.inheriting"].root is None
    assert (found["shop.middle"].kind, found["shop.leaf"].kind) == ("partitioned", "table")
    assert found["shop.unlogged"].persistence == "unlogged"


def test_patterns_choose_tables_and_a_roots_pattern_its_partitions(source: Connection) -> None:
    source.execute(SCHEMA)
    assert set(_states(source, "shop.parent")) == {
        "shop.parent",
        "shop.leaf",
        "shop.middle",
        "shop.deep_leaf",
    }
    assert set(_states(source, "shop.*leaf")) == {"shop.leaf", "shop.deep_leaf"}
    assert set(_states(source, "shop.*_key", exclude=("shop.no_*", "*.deferrable_key"))) == {
        "shop.with_key",
        "shop.composite_key",
    }
    assert set(_states(source, "*.leaf", exclude=("shop.parent",))) == set()
    assert set(_states(source, "Shop.*")) == set()
    assert set(_states(source, "*.Tab*")) == {'Odd.Schema.Tab"le'}


def test_the_systems_tables_and_our_own_are_never_in_scope(source: Connection) -> None:
    source.execute(SCHEMA)
    source.execute("create schema cdc_audit; create table cdc_audit.context_key (id int)")
    assert {state.schema for state in tables.tables(source, ["*.*"])} == {"shop", "Odd.Schema"}


def test_the_daemon_counts_the_same_tables(source: Connection, database: Database) -> None:
    source.execute(SCHEMA)

    async def count(include: tuple[str, ...], exclude: tuple[str, ...]) -> int:
        async with await connect_async(database.dsn(), side="source") as connection:
            return await catalog.tables_without_identity(connection, include, exclude)

    assert asyncio.run(count(("*.*",), ())) == 8
    assert asyncio.run(count(("*.*",), ("shop.parent", "shop.unlogged"))) == 6
    assert asyncio.run(count(("shop.parent",), ())) == 1


def test_full_identity_is_set_on_what_matches_and_on_partitions(source: Connection, look: Look) -> None:
    source.execute(SCHEMA)
    assert tables.set_full(source, "shop.parent") == [
        "shop.deep_leaf",
        "shop.leaf",
        "shop.middle",
        "shop.parent",
    ]
    assert tables.set_full(source, "shop.parent") == []
    assert tables.set_full(source, "*.Tab*") == ['Odd.Schema.Tab"le']
    assert "shop.unlogged" not in tables.set_full(source, "shop.*")
    blind = tables.without_identity(tables.tables(source, ["*.*"]))
    assert [state.name for state in blind] == ["shop.unlogged"]


def test_a_locked_table_is_not_waited_for_long(
    source: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**tables.SQL, "lock_timeout": "select set_config('lock_timeout', '50ms', true)"}
    monkeypatch.setattr(tables, "SQL", quick)
    source.execute(
        "create table public.a (id int); create table public.b (id int); create table public.c (id int)"
    )
    app = connect()
    with app.transaction():
        app.execute("insert into public.b values (1)")
        with pytest.raises(UnavailableError, match=r"public\.b was locked.*done before it: public\.a"):
            tables.set_full(source, "public.*")
    assert tables.set_full(source, "public.*") == ["public.b", "public.c"]
