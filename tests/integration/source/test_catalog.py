"""Types and tables as the decoder needs them; to_jsonb and the catalog of a real server are the measure."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import Connection

from cdc_audit.model.catalog import TableInfo, TypeInfo, TypeKind
from cdc_audit.postgres import connect_async
from cdc_audit.source.catalog import look_up
from tests.integration.source.conftest import Database

TYPES = """
create schema t;
create type t.mood as enum ('sad', 'ok');
create domain t.positive as int check (value > 0);
create domain t.small as t.positive check (value < 10);
create domain t.tags as text[];
create domain t.tags_again as t.tags;
create type t.point3 as (x int, gone text, "Y y" t.small, m t.mood);
alter type t.point3 drop attribute gone;
create type t.nested as (id int, inside t.point3, many t.point3[]);
create domain t.good_point as t.point3;
create type t.span as range (subtype = int);
create table t.as_type (a int, b t.nested);
"""

Found = tuple[dict[int, TypeInfo | None], dict[tuple[str, str], TableInfo | None]]


def _look_up(database: Database, oids: set[int], names: set[tuple[str, str]]) -> Found:
    async def ask() -> Found:
        async with await connect_async(database.dsn(), side="source") as connection:
            return await look_up(connection, frozenset(oids), frozenset(names))

    return asyncio.run(ask())


class Types:
    """Look-ups by name of type."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self._connection = connection
        self._databases = database
        connection.execute(TYPES)

    def oid(self, name: str) -> int:
        row = self._connection.execute("select %s::regtype::oid::bigint", (name,)).fetchone()
        assert row is not None
        return int(row[0])

    def all(self, name: str) -> dict[int, TypeInfo | None]:
        return _look_up(self._databases, {self.oid(name)}, set())[0]

    def one(self, name: str) -> TypeInfo:
        found = self.all(name)[self.oid(name)]
        assert found is not None
        return found


@pytest.fixture
def types(source: Connection, database: Database) -> Types:
    return Types(source, database)


def test_an_enum_and_a_range_are_scalars_of_their_own(types: Types) -> None:
    for name in ("t.mood", "t.span", "int", "json", "pg_catalog.name", "point", "box"):
        assert types.one(name) == TypeInfo(types.oid(name), TypeKind.SCALAR, types.oid(name))


def test_a_domain_over_a_domain_resolves_to_the_base_type(types: Types) -> None:
    found = types.one("t.small")
    assert (found.kind, found.base, found.is_domain) == (TypeKind.SCALAR, types.oid("int"), True)


def test_a_domain_over_an_array_is_an_array_and_a_domain(types: Types) -> None:
    found = types.one("t.tags_again")
    assert (found.kind, found.base, found.element, found.is_domain) == (
        TypeKind.ARRAY,
        types.oid("text[]"),
        types.oid("text"),
        True,
    )


def test_an_array_knows_its_elements_and_what_stands_between_them(types: Types) -> None:
    assert types.one("t.mood[]")[1:] == (
        TypeKind.ARRAY,
        types.oid("t.mood[]"),
        types.oid("t.mood"),
        (),
        ",",
        False,
    )
    assert types.one("box[]").delimiter == ";"
    assert types.one("t.small[]").element == types.oid("t.small")


def test_a_composite_has_its_fields_in_order_without_dropped_ones(types: Types) -> None:
    fields = (("x", types.oid("int")), ("Y y", types.oid("t.small")), ("m", types.oid("t.mood")))
    assert types.one("t.point3").fields == fields
    domain = types.one("t.good_point")
    assert (domain.kind, domain.fields, domain.is_domain) == (TypeKind.COMPOSITE, fields, True)


def test_everything_that_a_type_is_made_of_comes_with_it(types: Types) -> None:
    found = types.all("t.as_type[]")
    needed = (
        "t.as_type[]",
        "t.as_type",
        "t.nested",
        "t.point3",
        "t.point3[]",
        "t.small",
        "t.positive",
        "t.mood",
        "int",
    )
    assert {types.oid(name) for name in needed} == set(found)
    assert None not in found.values()


def test_int2vector_and_oidvector_are_arrays_with_blanks_as_to_jsonb_has_them(
    types: Types, source: Connection
) -> None:
    assert source.execute("select to_jsonb('1 2'::int2vector), to_jsonb('3 4'::oidvector)").fetchall() == [
        ([1, 2], ["3", "4"])
    ]
    assert types.one("int2vector")[1:6] == (
        TypeKind.ARRAY,
        types.oid("int2vector"),
        types.oid("int2"),
        (),
        " ",
    )
    assert types.one("oidvector").element == types.oid("oid")


def test_kinds_agree_with_to_jsonb_for_every_type_of_the_server(
    source: Connection, database: Database
) -> None:
    source.execute(TYPES)
    rows = source.execute("""
        select oid::bigint, oid::regtype::text from pg_type
        where typtype in ('b', 'c', 'd', 'e', 'r', 'm') and typisdefined
    """).fetchall()
    found, _ = _look_up(database, {oid for oid, _ in rows}, set())
    assert None not in found.values()
    kinds = {"array": TypeKind.ARRAY, "object": TypeKind.COMPOSITE}
    for oid, name in rows:
        info = found[oid]
        assert info is not None
        if info.kind is TypeKind.SCALAR:
            assert not info.element
            continue
        empty_array = "" if info.delimiter == " " else "{}"
        text = empty_array if info.kind is TypeKind.ARRAY else "(" + "," * (len(info.fields) - 1) + ")"
        seen = source.execute("select jsonb_typeof(to_jsonb(%s::" + name + "))", (text,)).fetchone()
        assert seen is not None
        assert kinds[seen[0]] is info.kind, name


def test_what_does_not_exist_is_none(database: Database) -> None:
    missing = ("public", "nothing")
    assert _look_up(database, {4_000_000_000}, {missing}) == ({4_000_000_000: None}, {missing: None})
    assert _look_up(database, set(), set()) == ({}, {})


def test_a_table_has_its_columns_its_kind_and_its_root(source: Connection, database: Database) -> None:
    source.execute("""
        create schema "S s";
        create table "S s"."T.t" (id int not null, gone int, "V v" text) partition by list (id);
        alter table "S s"."T.t" drop column gone;
        create table "S s".middle partition of "S s"."T.t" for values in (1) partition by list (id);
        create table public.leaf partition of "S s".middle default;
    """)
    root, leaf = ("S s", "T.t"), ("public", "leaf")
    _, found = _look_up(database, set(), {root, leaf})
    columns = (("id", 23, True), ("V v", 25, False))
    assert found == {root: TableInfo(*root, root, "p", columns), leaf: TableInfo(*leaf, root, "r", columns)}


def test_a_constraint_that_was_never_checked_does_not_count_as_not_null(
    source: Connection, database: Database
) -> None:
    source.execute("create table public.n (a int, b int not null)")
    if source.info.server_version >= 180000:
        source.execute("alter table public.n add constraint later not null a not valid")
    _, found = _look_up(database, set(), {("public", "n")})
    info = found["public", "n"]
    assert info is not None
    assert info.columns == (("a", 23, False), ("b", 23, True))
