"""Values of every type, as a real wal2json and real output functions print them, against to_jsonb."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest

from cdc_audit.decode import built_in_types
from cdc_audit.decode.values import from_text, from_wal2json
from cdc_audit.errors import UnknownTypeError
from cdc_audit.model.catalog import TypeInfo
from cdc_audit.model.jsonb import NotJsonbError, canonical
from cdc_audit.source.catalog import look_up
from tests.integration.decode.json_texts import json_texts
from tests.integration.decode.type_zoo import BEYOND_JSONB, EXTENSIONS, TYPES, ZOO
from tests.support.servers import Server

SETTINGS = (
    "-c DateStyle=ISO -c TimeZone=UTC -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=3 "
    "-c lc_monetary=C"
)
SLOT = "values_zoo"
CHANGES = """
    select data from pg_logical_slot_get_changes(
        %s, null, null, 'format-version', '2', 'include-types', '0', 'include-type-oids', '1',
        'include-pk', '1', 'include-transaction', '0')
"""
# format() calls the output function, as pgoutput does; a cast to text is something else for some types
STORED = """
    select n, (to_jsonb(z) -> 'v')::text, case when num_nulls(v) = 0 then format('%s', v) end
    from zoo_{} z order by n
"""
LINE = re.compile(
    rb'"table":"zoo_(\d+)","columns":\[\{"name":"n","typeoid":23,"value":(\d+)\},'
    rb'\{"name":"v","typeoid":(-?\d+),"value":("(?:[^"\\]|\\.)*"|[^"{},]+)\}\]',
    re.DOTALL,
)


class Seen(NamedTuple):
    """A value: what wal2json printed, what its type's output function prints, what to_jsonb makes of it."""

    type_name: str
    n: int
    type_oid: int
    token: bytes
    text: str | None
    image: bytes


class Zoo(NamedTuple):
    values: list[Seen]
    types: dict[int, TypeInfo | None]


@pytest.fixture(scope="module")
def dsn(source_cluster: Server) -> str:
    return source_cluster.dsn(source_cluster.create_database())


@pytest.fixture(scope="module")
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, options=SETTINGS, autocommit=True) as made:
        try:
            yield made
        finally:
            made.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                (SLOT,),
            )


@pytest.fixture(scope="module")
def zoo(dsn: str, connection: psycopg.Connection) -> Zoo:
    """All values inserted, one table a type, and read back both ways."""
    for statement in (*EXTENSIONS, *TYPES):
        connection.execute(statement)
    connection.execute("select pg_create_logical_replication_slot(%s, 'wal2json')", (SLOT,))
    for number, (type_name, literals) in enumerate(ZOO):
        connection.execute(f"create table zoo_{number} (n int, v {type_name})")
        for n, literal in enumerate(literals):
            if literal is not None and literal.startswith("SQL:"):
                connection.execute(f"insert into zoo_{number} select %s, {literal[4:]}", (n,))
            else:
                statement = f"insert into zoo_{number} values (%s, %s::text::{type_name})"
                connection.execute(statement, (n, literal))
    tokens = _tokens(connection)
    values = []
    for number, (type_name, literals) in enumerate(ZOO):
        stored = connection.execute(STORED.format(number)).fetchall()
        assert len(stored) == len(literals)
        for n, image, text in stored:
            values.append(Seen(type_name, n, *tokens[number, n], text, image.encode()))
    return Zoo(values, asyncio.run(_looked_up(dsn, {value.type_oid for value in values})))


def _tokens(connection: psycopg.Connection) -> dict[tuple[int, int], tuple[int, bytes]]:
    """(table, n) -> (type oid, token), cut from wal2json's lines."""
    tokens = {}
    for (line,) in connection.execute(CHANGES, (SLOT,)):
        match = LINE.search(line.encode())
        assert match, "a line of another form"
        table, n, oid, token = match.groups()
        tokens[int(table), int(n)] = int(oid) & 0xFFFFFFFF, token
    return tokens


async def _looked_up(dsn: str, oids: set[int]) -> dict[int, TypeInfo | None]:
    """What the daemon would look up for columns of these types."""
    types: dict[int, TypeInfo | None] = {}
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for oid in oids:
            try:
                from_text(oid, types)
            except UnknownTypeError as error:
                found, _ = await look_up(connection, error.type_oids, frozenset())
                types |= found
    return types


def _differences(pairs: list[tuple[Seen, bytes]]) -> list[str]:
    return [
        f"{seen.type_name} #{seen.n}: {seen.token[:80]!r} / {str(seen.text)[:80]!r} became {ours[:80]!r}, "
        f"not {seen.image[:80]!r}"
        for seen, ours in pairs
        if ours != seen.image
    ]


def test_the_zoo_is_wide_enough(zoo: Zoo) -> None:
    assert len({value.type_oid for value in zoo.values}) >= 100
    assert len(zoo.values) >= 500


def test_a_wal2json_token_becomes_what_to_jsonb_writes(zoo: Zoo) -> None:
    pairs = []
    for seen in zoo.values:
        convert = from_wal2json(seen.type_oid, zoo.types)
        ours = convert(seen.token) if convert else seen.token
        if seen.token == b"null" and seen.image in (b'"NaN"', b'"Infinity"', b'"-Infinity"'):
            assert ours == b"null", "wal2json 2.5 destroys these, and nobody may guess"
            continue
        pairs.append((seen, ours))
    assert _differences(pairs) == []


def test_a_type_s_text_becomes_what_to_jsonb_writes(zoo: Zoo) -> None:
    pairs = [
        (seen, from_text(seen.type_oid, zoo.types)(seen.text)) for seen in zoo.values if seen.text is not None
    ]
    assert _differences(pairs) == []


def test_json_that_jsonb_cannot_hold_stays_a_string_of_its_text(connection: psycopg.Connection) -> None:
    for text in BEYOND_JSONB:
        with pytest.raises(psycopg.Error):
            connection.execute("select to_jsonb(%s::json)", (text,))
        row = connection.execute("select %s::json::text, to_jsonb(%s::text)::text", (text, text)).fetchone()
        assert row
        assert from_text(114, {})(row[0]) == row[1].encode()
        convert = from_wal2json(114, {})
        assert convert
        assert convert(row[1].encode()) == row[1].encode()


def test_canonical_prints_what_the_server_prints_and_refuses_what_it_refuses(
    connection: psycopg.Connection,
) -> None:
    connection.execute("""
        create function pg_temp.try_jsonb(t text) returns text language plpgsql as
        $$ begin return t::jsonb::text; exception when others then return null; end $$
    """)
    texts = json_texts(random.Random(20261122), 1500)
    rows = connection.execute(
        "select t, pg_temp.try_jsonb(t) from unnest(%s::text[]) with ordinality as u (t, n) order by n",
        (texts,),
    ).fetchall()
    wrong = []
    for text, expected in rows:
        try:
            ours = canonical(text).decode()
        except NotJsonbError:
            ours = None
        if ours != expected:
            wrong.append(f"{text[:200]!r} became {ours!r:.200}, not {expected!r:.200}")
    assert wrong == []
    assert sum(expected is None for _, expected in rows) > 200
    assert sum(expected is not None for _, expected in rows) > 700


def test_the_table_of_built_in_types_is_the_server_s(connection: psycopg.Connection) -> None:
    arrays = connection.execute("""
        select a.oid::bigint, a.typelem::bigint from pg_type a join pg_type e on e.oid = a.typelem
        where a.oid < 10000 and a.typsubscript = 'array_subscript_handler'::regproc and e.typarray = a.oid
          and e.typtype not in ('c', 'p')
    """).fetchall()
    scalars = connection.execute("""
        select t.oid::bigint from pg_type t
        where t.oid < 10000 and t.typtype not in ('c', 'p')
          and not exists (select from pg_type e where e.oid = t.typelem and e.typarray = t.oid)
    """).fetchall()
    # Another major version may know more types: they are looked up.
    assert dict(arrays).items() >= built_in_types.ARRAYS.items()
    assert {oid for (oid,) in scalars} >= built_in_types.SCALARS
    if connection.info.server_version // 10000 == 15:
        assert len(arrays) == len(built_in_types.ARRAYS)
        assert len(scalars) == len(built_in_types.SCALARS)
