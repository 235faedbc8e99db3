"""The publications: what the stream then holds, and that no statement of the application ever fails because of them."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError
from cdc_audit.postgres import connect_async
from cdc_audit.source import publication, slot, tables
from cdc_audit.source.plugin_options import pgoutput_options
from tests.integration.source.conftest import Connect, Database, RoleMaker

ALL, INSERTS = publication.names("pub")
SCHEMA = """
create schema shop;
create table shop.with_key (id int primary key, v text);
create table shop.no_key (id int, v text);
create table shop.deferrable_key (id int primary key deferrable, v text);
create table shop.full_identity (id int, v text); alter table shop.full_identity replica identity full;
create table shop.nothing (id int primary key, v text); alter table shop.nothing replica identity nothing;
create table shop.by_index (id int not null, v text); create unique index i1 on shop.by_index (id);
alter table shop.by_index replica identity using index i1;
create table shop.index_gone (id int not null, v text); create unique index i2 on shop.index_gone (id);
alter table shop.index_gone replica identity using index i2; drop index shop.i2;
create unlogged table shop.unlogged (id int primary key, v text);
create table shop.inheriting (primary key (id)) inherits (shop.no_key);
create table shop.heir_without_key () inherits (shop.with_key);
create table shop.generated (id int primary key, v text, twice int generated always as (id * 2) stored);
alter table shop.generated replica identity full;
create schema "Odd.Schema"; create table "Odd.Schema"."Tab""le, {x}" (id int primary key, v text);
create temporary table temporary (id int);
"""
TREES = """
create schema trees;
create table trees.keyed (id int primary key, v text) partition by range (id);
create table trees.keyed_1 partition of trees.keyed for values from (0) to (10);
create table trees.keyed_2 partition of trees.keyed for values from (10) to (20) partition by range (id);
create table trees.keyed_2a partition of trees.keyed_2 for values from (10) to (15);
create table trees.loose (id int, v text) partition by range (id);
create table trees.loose_1 partition of trees.loose for values from (0) to (10);
create table trees.loose_2 partition of trees.loose for values from (10) to (20);
alter table trees.loose_2 replica identity full;
"""


def _members(connection: Connection) -> dict[str, str]:
    """Direct members of our publications: table -> publication."""
    rows = connection.execute(
        "select r.prrelid::regclass::text, p.pubname::text from pg_publication_rel r"
        " join pg_publication p on p.oid = r.prpubid"
    ).fetchall()
    assert len(dict(rows)) == len(rows), "a table is in both"
    return dict(rows)


def _keep(
    connection: Connection, *include: str, exclude: tuple[str, ...] = ()
) -> publication.PublicationReport:
    return publication.keep_in_step(connection, "pub", include or ("*.*",), exclude)


def _change_all(connection: Connection, schema: str) -> None:
    """INSERT, UPDATE, DELETE and TRUNCATE on every table, as the application does: none may fail."""
    rows = connection.execute(
        "select c.oid::regclass::text, coalesce(pg_get_expr(c.relpartbound, c.oid), '') from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relkind in ('r', 'p')",
        (schema,),
    ).fetchall()
    for table, bound in rows:
        start = 10 if "(10)" in bound.split("TO")[0] else 1
        for statement in (
            f"insert into {table} (id, v) values ({start}, 'old')",
            f"update {table} set v = 'new'",
            f"delete from {table}",
            f"truncate {table}",
        ):
            connection.execute(statement.encode())


def _read(connection: Connection, name: str) -> list[tuple[str, str]]:
    """The (action, table) of all rows and truncates that the slot holds."""
    relations: dict[bytes, str] = {}
    seen = []
    options = [
        word for pair in pgoutput_options(publications=publication.names("pub")).items() for word in pair
    ]
    marks = ", ".join(["%s"] * len(options))
    statement = f"select data from pg_logical_slot_get_binary_changes(%s, null, null, {marks})"
    for (data,) in connection.execute(statement.encode(), (name, *options)):
        action = chr(data[0])
        if action == "R":
            relations[data[1:5]] = data[5:].split(b"\0")[1].decode()
        elif action == "T":
            seen += [("T", relations[data[at : at + 4]]) for at in range(6, len(data), 4)]
        elif action in "IUD":
            seen.append((action, relations[data[1:5]]))
    return seen


@pytest.fixture
def stream(source: Connection, database: Database) -> str:
    """A pgoutput slot, made when the publications are."""
    _keep(source, "none.none")
    return slot.create(source, database.slot, "pgoutput").name


def test_each_table_goes_where_its_updates_can_not_fail(source: Connection) -> None:
    source.execute(SCHEMA)
    report = _keep(source)
    assert report.made == (ALL, INSERTS)
    assert _members(source) == {
        "shop.with_key": ALL,
        "shop.full_identity": ALL,
        "shop.by_index": ALL,
        "shop.inheriting": ALL,
        "shop.generated": ALL,
        '"Odd.Schema"."Tab""le, {x}"': ALL,
        "shop.no_key": INSERTS,
        "shop.deferrable_key": INSERTS,
        "shop.nothing": INSERTS,
        "shop.index_gone": INSERTS,
        "shop.heir_without_key": INSERTS,
    }
    assert dict(report.inserts_only) == {
        "shop.no_key": "no primary key",
        "shop.heir_without_key": "no primary key",
        "shop.deferrable_key": "the primary key is deferrable",
        "shop.nothing": "REPLICA IDENTITY NOTHING",
        "shop.index_gone": "the index of REPLICA IDENTITY USING INDEX is gone or invalid",
    }
    assert report.unpublishable == (("shop.unlogged", "unlogged: nothing of it is in the WAL"),)
    assert len(report.added) == 11
    _change_all(source, "shop")
    assert publication.state(source, "pub", ["*.*"]) == publication.PublicationState((), (), (), ())


def test_it_can_be_repeated_and_then_does_nothing(source: Connection) -> None:
    source.execute(SCHEMA + TREES)
    first = _keep(source)
    again = _keep(source)
    assert (again.made, again.added, again.moved, again.removed) == ((), (), (), ())
    assert (again.inserts_only, again.unpublishable) == (first.inserts_only, first.unpublishable)


def test_a_table_moves_with_its_identity_and_leaves_with_its_scope(source: Connection) -> None:
    source.execute(SCHEMA)
    _keep(source)
    source.execute(
        "alter table shop.no_key replica identity full; alter table shop.by_index replica identity default"
    )
    assert publication.state(source, "pub", ["*.*"]) == publication.PublicationState(
        (), (), ("shop.no_key",), ("shop.by_index",)
    )
    report = _keep(source, exclude=("shop.with_key",))
    assert (report.added, report.moved, report.removed) == (
        (),
        ("shop.by_index", "shop.no_key"),
        ("shop.with_key",),
    )
    assert _members(source)["shop.no_key"] == ALL
    assert _members(source)["shop.by_index"] == INSERTS
    _change_all(source, "shop")


def test_a_table_that_loses_its_identity_refuses_updates_until_it_is_moved_and_is_found(
    source: Connection,
) -> None:
    source.execute("create schema shop; create table shop.t (id int primary key, v text)")
    _keep(source)
    source.execute("alter table shop.t drop constraint t_pkey; insert into shop.t values (1)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        source.execute("update shop.t set v = 'new'")
    assert publication.state(source, "pub", ["*.*"]).refusing == ("shop.t",)
    assert publication.state(source, "pub", ["other.*"]).refusing == ("shop.t",)
    assert _keep(source).moved == ("shop.t",)
    source.execute("update shop.t set v = 'new'; delete from shop.t")


def test_a_new_table_is_missed_and_then_sent(source: Connection, database: Database, stream: str) -> None:
    source.execute("create schema shop; create table shop.t (id int primary key, v text)")
    source.execute("create unlogged table shop.u (id int)")
    assert publication.missing(source, "pub", ["*.*"]) == ("shop.t",)
    assert publication.missing(source, "pub", ["*.*"], ["shop.*"]) == ()

    async def ask() -> publication.PublicationState:
        async with await connect_async(database.dsn(), side="source") as connection:
            return await publication.state_async(connection, "pub", ["*.*"])

    assert asyncio.run(ask()) == publication.state(source, "pub", ["*.*"])
    source.execute("insert into shop.t values (1)")
    assert _keep(source).added == ("shop.t",)
    source.execute("insert into shop.t values (2); update shop.t set id = 3 where id = 2; truncate shop.t")
    assert _read(source, stream) == [("I", "t"), ("U", "t"), ("T", "t")]


def test_publications_that_are_not_there_are_absent_and_all_tables_missing(source: Connection) -> None:
    source.execute("create schema shop; create table shop.t (id int primary key)")
    found = publication.state(source, "pub", ["*.*"])
    assert (found.absent, found.missing) == ((ALL, INSERTS), ("shop.t",))


def test_a_root_with_a_key_takes_all_its_partitions_along_also_later_ones(
    source: Connection, stream: str
) -> None:
    source.execute(TREES)
    report = _keep(source)
    assert _members(source) == {"trees.keyed": ALL, "trees.loose": INSERTS, "trees.loose_2": ALL}
    assert dict(report.inserts_only) == {"trees.loose_1": "no primary key"}
    source.execute("create table trees.keyed_3 partition of trees.keyed for values from (20) to (30)")
    source.execute("create table trees.loose_3 partition of trees.loose for values from (20) to (30)")
    assert publication.state(source, "pub", ["*.*"]) == publication.PublicationState((), (), (), ())
    for root in ("keyed", "loose"):
        source.execute(
            f"insert into trees.{root} values (1), (11), (21); update trees.{root} set v = 'x'".encode()
        )
        source.execute(f"delete from trees.{root}; truncate trees.{root}_1, trees.{root}_3".encode())
    keyed, loose = ["keyed_1", "keyed_2a", "keyed_3"], ["loose_1", "loose_2", "loose_3"]
    assert _read(source, stream) == [
        *((action, leaf) for action in "IUD" for leaf in keyed),
        ("T", "keyed_1"),
        ("T", "keyed_3"),
        *(("I", leaf) for leaf in loose),
        ("U", "loose_2"),
        ("D", "loose_2"),
        ("T", "loose_1"),
        ("T", "loose_3"),
    ]
    assert _keep(source).added == ()
    source.execute("alter table trees.loose_3 replica identity full")
    assert publication.state(source, "pub", ["*.*"]).movable == ("trees.loose_3",)
    assert _keep(source).added == ("trees.loose_3",)


def test_one_partition_without_identity_keeps_its_root_from_publishing_updates(source: Connection) -> None:
    source.execute(TREES)
    _keep(source)
    source.execute("alter table trees.keyed_2a replica identity nothing")
    assert publication.state(source, "pub", ["*.*"]).refusing == ("trees.keyed_2a",)
    report = _keep(source)
    assert (report.added, report.moved) == (("trees.keyed_1",), ("trees.keyed",))
    assert _members(source)["trees.keyed"] == INSERTS
    _change_all(source, "trees")
    source.execute("alter table trees.keyed_2a replica identity default")
    report = _keep(source)
    assert (report.moved, report.removed) == (("trees.keyed",), ("trees.keyed_1",))


def test_partitions_may_be_in_scope_without_their_root_and_out_of_it(source: Connection) -> None:
    source.execute(TREES)
    _keep(source, "trees.*_1")
    assert _members(source) == {"trees.keyed_1": ALL, "trees.loose_1": INSERTS}
    source.execute("alter table trees.keyed_1 replica identity nothing")
    _keep(source, "trees.keyed", exclude=("*.keyed_1",))
    assert _members(source) == {"trees.keyed": INSERTS, "trees.keyed_2a": ALL}
    _change_all(source, "trees")


def test_options_row_filters_and_column_lists_of_others_are_set_right(source: Connection) -> None:
    source.execute("create schema shop; create table shop.t (id int primary key, v text)")
    source.execute("create publication pub with (publish = 'insert', publish_via_partition_root)")
    if source.info.server_version >= 150000:
        source.execute("alter publication pub add table shop.t (id) where (id > 5)")
    report = _keep(source)
    assert report.made == (ALL, INSERTS)
    assert (report.added, report.moved) == (
        ((), ("shop.t",)) if source.info.server_version >= 150000 else (("shop.t",), ())
    )
    row = source.execute(
        "select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot from pg_publication where pubname = 'pub'"
    ).fetchone()
    assert row == (True, True, True, True, False)
    assert (_keep(source).made, _keep(source).moved) == ((), ())


def test_a_publication_for_all_tables_or_a_schema_is_refused_with_the_remedy(source: Connection) -> None:
    source.execute("create schema shop; create table shop.t (id int)")
    ways = ["for all tables"]
    if source.info.server_version >= 150000:
        ways.append("for tables in schema shop")
    for way in ways:
        source.execute(f"create publication pub {way}".encode())
        with pytest.raises(SettingError) as caught:
            _keep(source)
        assert caught.value.remedy == 'drop publication "pub"; and repeat the command'
        assert publication.state(source, "pub", ["*.*"]).refusing == ("shop.t",)
        source.execute("drop publication pub")


def test_who_does_not_own_the_tables_is_told_before_anything_is_changed(
    source: Connection, connect: Connect, make_role: RoleMaker, database: Database
) -> None:
    source.execute(
        "create schema shop; create table shop.t (id int primary key); create table shop.own (id int)"
    )
    role = make_role("dba")
    other = connect(role)
    with pytest.raises(NotPermittedError) as caught:
        _keep(other)
    assert caught.value.remedy == f'grant create on database "{database.name}" to "{role}";'
    names = sql.Identifier(database.name), sql.Identifier(role)
    source.execute(sql.SQL("grant create on database {} to {}").format(*names))
    source.execute(sql.SQL("alter table shop.own owner to {}").format(names[1]))
    with pytest.raises(NotPermittedError, match=r"does not own shop\.t:"):
        _keep(other)
    assert _members(source) == {}
    source.execute(sql.SQL("alter table shop.t owner to {}").format(names[1]))
    source.execute(sql.SQL("grant usage on schema shop to {}").format(names[1]))
    assert _keep(other).added == ("shop.own", "shop.t")
    source.execute("drop publication pub; create publication pub")
    with pytest.raises(NotPermittedError, match="publication pub belongs to another role"):
        _keep(other)


def test_with_a_slot_there_an_open_writer_is_waited_for_but_not_long(
    source: Connection, connect: Connect, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**tables.SQL, "lock_timeout": "select set_config('lock_timeout', '50ms', true)"}
    monkeypatch.setattr(tables, "SQL", quick)
    source.execute("create table public.a (id int primary key); create table public.b (id int primary key)")
    app = connect()
    with app.transaction():
        app.execute("insert into public.b values (1)")
        with pytest.raises(UnavailableError, match=r"public\.b was locked.*done before it: public\.a"):
            _keep(source)
    assert _keep(source).added == ("public.b",)
    source.execute("insert into public.b values (2)")
    assert _read(source, stream) == [("I", "b")]


def test_without_a_slot_nobody_is_waited_for(source: Connection, connect: Connect) -> None:
    source.execute("create table public.a (id int primary key)")
    app = connect()
    with app.transaction():
        app.execute("insert into public.a values (1)")
        assert _keep(source).added == ("public.a",)


def test_both_are_dropped_and_a_second_time_nothing_is(source: Connection) -> None:
    _keep(source)
    assert publication.drop(source, "pub") == [ALL, INSERTS]
    assert publication.drop(source, "pub") == []


def test_names_fit_and_are_quoted_in_the_options() -> None:
    assert [len(name) for name in publication.names("x" * 63)] == [63, 63]
    options = pgoutput_options(publications=['a"b', "c"])
    assert options == {"proto_version": "1", "publication_names": '"a""b","c"', "messages": "true"}


def test_virtual_generated_columns_with_full_identity_are_not_published_for_updates(
    source: Connection,
) -> None:
    if source.info.server_version < 180000:
        pytest.skip("virtual generated columns need PostgreSQL 18")
    source.execute("create schema shop")
    source.execute(
        "create table shop.v (id int primary key, v text, twice int generated always as (id * 2) virtual)"
    )
    source.execute("alter table shop.v replica identity full")
    assert dict(_keep(source).inserts_only) == {
        "shop.v": "REPLICA IDENTITY FULL with a virtual generated column"
    }
    _change_all(source, "shop")
    source.execute("create publication of_all for table shop.v; insert into shop.v values (1)")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        source.execute("update shop.v set v = 'x'")
    source.execute("drop publication of_all; truncate shop.v; alter table shop.v replica identity default")
    assert _keep(source).moved == ("shop.v",)
    _change_all(source, "shop")
