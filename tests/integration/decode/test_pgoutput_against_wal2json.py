"""The same changes through both plugins at once: the same events, shapes and values.

What remains different is said in the docstring of ``decode.pgoutput``, and each has a test here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, cast

import psycopg
import pytest

from cdc_audit.decode.scope import Scope
from cdc_audit.model.event import Event, Message, Row, Truncate
from cdc_audit.source import install, publication
from cdc_audit.source.plugin_options import pgoutput_options
from cdc_audit.source.stream import Stream
from tests.integration.decode.two_slots import Transaction, TwoSlots
from tests.integration.decode.type_zoo import EXTENSIONS, TYPES, ZOO
from tests.support.databases import drop_slots
from tests.support.servers import Server
from tests.support.workload import Workload

CLAIMS = """
create schema oracle;
create table oracle.claim (claimed_user text not null, trust text not null);
"""


class Place(NamedTuple):
    """A fresh database with both slots, and a connection of its application."""

    app: psycopg.Connection
    slots: TwoSlots
    dsn: str


@pytest.fixture
def place(source_cluster: Server) -> Iterator[Place]:
    yield from _place(source_cluster, source_cluster.create_database())


def _place(server: Server, name: str, encoding: str = "utf-8") -> Iterator[Place]:
    dsn = server.dsn(name)
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as app:
        try:
            yield Place(app, TwoSlots(dsn, name, exclude=("oracle.*",), encoding=encoding), dsn)
        finally:
            drop_slots(server, name)


def _same(place: Place) -> list[Transaction]:
    """What both plugins give of all that has come, without the known differences. Fails where they differ."""
    left, right = place.slots.by_pgoutput(), _comparable(place, place.slots.by_wal2json())
    left = _comparable(place, left)
    for ours, theirs in zip(left, right, strict=False):
        for mine, its in zip(ours.events, theirs.events, strict=False):
            assert mine == its
        assert ours == theirs
    assert len(left) == len(right)
    return left


def _comparable(place: Place, transactions: list[Transaction]) -> list[Transaction]:
    roots = {
        (schema, table)
        for schema, table in place.app.execute(
            "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind = 'p'"
        )
    }
    kept = [
        transaction._replace(events=[event for event in transaction.events if not _is_left_out(event, roots)])
        for transaction in transactions
    ]
    return [transaction for transaction in kept if transaction.events]


def _is_left_out(event: Event, roots: set[tuple[str, str]]) -> bool:
    """The TRUNCATE of a partitioned table beside its partitions', messages of others."""
    if isinstance(event, Truncate):
        return not event.partition and (event.schema, event.table) in roots
    return isinstance(event, Message) and not event.prefix.startswith("cdc_audit.")


def _rows(transactions: list[Transaction]) -> list[Row]:
    events = [event for transaction in transactions for event in transaction.events]
    return [cast("Row", event) for event in events if type(event) is tuple]


def test_a_random_workload_gives_the_same_events(place: Place) -> None:
    """Concurrent sessions, contexts, key changes, TOAST, partitions, cascades, COPY, MERGE, TRUNCATE."""
    install.install(place.app)
    place.app.execute(CLAIMS)
    Workload.install(place.dsn)
    place.slots.publish(place.app)
    Workload(place.dsn, seed=23, transactions=1000, suppressed=False).run()
    same = _same(place)
    rows = _rows(same)
    assert len(rows) > 1000
    assert {row[0].action for row in rows} == {"INSERT", "UPDATE", "DELETE"}
    assert any(row[0].unchanged_toast for row in rows)
    assert any(isinstance(event, Truncate) for transaction in same for event in transaction.events)
    assert any(isinstance(event, Message) for transaction in same for event in transaction.events)


def test_every_type_of_the_zoo_gives_the_same_values_but_nan_and_infinities(place: Place) -> None:
    """wal2json 2.5 makes null of them where a column's own type is numeric or float; pgoutput doesn't."""
    app = place.app
    for statement in (*EXTENSIONS, *TYPES):
        app.execute(statement)
    for number, (type_name, _) in enumerate(ZOO):
        app.execute(f"create table zoo_{number} (n int, v {type_name})")
        app.execute(f"alter table zoo_{number} replica identity full")
    place.slots.publish(app)
    for number, (type_name, literals) in enumerate(ZOO):
        for n, literal in enumerate(literals):
            if literal is not None and literal.startswith("SQL:"):
                app.execute(f"insert into zoo_{number} select %s, {literal[4:]}", (n,))
            else:
                app.execute(f"insert into zoo_{number} values (%s, %s::text::{type_name})", (n, literal))
        app.execute(f"update zoo_{number} set n = n + 1000; delete from zoo_{number}")
    ours, theirs = _rows(place.slots.by_pgoutput()), _rows(place.slots.by_wal2json())
    images = sum(len(literals) for _, literals in ZOO) * 3
    assert len(ours) == len(theirs) == images
    lost = 0
    for mine, its in zip(ours, theirs, strict=True):
        assert mine[0] == its[0]
        for one, other in zip(mine[1] + mine[2], its[1] + its[2], strict=True):
            if one in (b'"NaN"', b'"Infinity"', b'"-Infinity"') and other == b"null":
                lost += 1
            else:
                assert one == other, mine[0].table
    assert lost > 20


IDENTITIES = """
create table public.plain (id int, big text, v text);
alter table public.plain alter big set storage external;
create table public.keyed (b text, a int, big text, v text, primary key (a, b));
alter table public.keyed alter big set storage external;
create table public.only_key (a int, b int, primary key (a, b));
create table public.by_index (id int primary key, code text not null, v text); create unique index c on public.by_index (code);
alter table public.by_index replica identity using index c;
create table public.no_pk_index (code text not null, v text); create unique index d on public.no_pk_index (code);
alter table public.no_pk_index replica identity using index d;
create table public.including (id int, more int, v text, primary key (id) include (more));
create table public.empty (); alter table public.empty replica identity full;
create table public."Hos""tile\\.name, {%s} é
" ("a""b" int primary key, "c,d" text, "select" text);
create table public.long_key (id text primary key, v text); alter table public.long_key alter id set storage external;
"""


def test_every_replica_identity_gives_the_same_shapes(place: Place) -> None:
    """Cases 21-30 and 37-40: whole rows, keys, indexes, changes of key, TOAST with and without an old image."""
    app = place.app
    app.execute(IDENTITIES)
    app.execute("alter table public.plain replica identity full")
    place.slots.publish(app)
    odd = 'public."Hos""tile\\.name, {%%s} é\n"'
    for statement in (
        "insert into plain values (1, repeat('x', 9000), 'a'), (2, null, null)",
        "update plain set v = 'b'",
        "update plain set big = null where id = 1",
        "delete from plain",
        "insert into keyed values ('b', 1, repeat('x', 9000), 'a')",
        "update keyed set v = 'b'",
        "update keyed set v = null, a = 2",
        "update keyed set big = 'short'",
        "alter table keyed replica identity full; update keyed set big = repeat('y', 9000); update keyed set v = 'z'",
        "alter table keyed replica identity default; update keyed set v = 'y'; delete from keyed",
        "insert into only_key values (1, 2); update only_key set a = 3; update only_key set b = b; delete from only_key",
        "insert into by_index values (1, 'x', 'a'); update by_index set v = 'b'; update by_index set code = 'y'",
        "update by_index set id = 2; delete from by_index",
        "insert into no_pk_index values ('x', 'a'); update no_pk_index set v = 'b'; update no_pk_index set code = 'y'",
        "delete from no_pk_index",
        "insert into including values (1, 2, 'a'); update including set v = 'b'; delete from including",
        "insert into empty default values; delete from empty",
        f"insert into {odd} values (1, 'x', 'y'); update {odd} set \"c,d\" = 'z'; delete from {odd}",
        "insert into long_key values (repeat('k', 2500), 'a'); update long_key set v = 'b'; delete from long_key",
        "truncate plain, keyed",
    ):
        app.execute(statement.replace("%%", "%").encode())
    rows = _rows(_same(place))
    by_table = {row[0].table: row[0] for row in rows}
    assert len(by_table) == 9
    assert by_table["plain"].old_is_full
    assert by_table["keyed"].key == ("b", "a")
    assert ("big",) in {row[0].unchanged_toast for row in rows}


def test_a_schema_that_changes_in_mid_stream_gives_the_same_events(place: Place) -> None:
    """Cases 29, 41, 42, 80: renamed, added, dropped and retyped columns, also inside the transaction; renamed tables."""
    app = place.app
    app.execute("create table t (id int primary key, v text, gone int); create type pair as (a int, b text)")
    app.execute("create table composite (id int primary key, p pair)")
    place.slots.publish(app)
    for statement in (
        "insert into t values (1, 'a', 1)",
        "begin; update t set v = 'b'; alter table t rename id to ident; update t set v = 'c'; commit",
        "alter table t add more numeric default 1.50; update t set v = 'd'; alter table t drop gone",
        "begin; update t set v = 'e'; alter table t alter more type text; update t set v = 'f'; commit",
        "alter table t replica identity full; update t set v = 'g'; alter table t rename v to w; update t set w = 'h'",
        "alter table t rename to u; update u set w = 'i'; delete from u",
        "insert into composite values (1, row(1, 'x')); alter type pair add attribute c bool",
        "insert into composite values (2, row(1, 'x', true)); update composite set id = id + 10",
    ):
        app.execute(statement.encode())
    assert len(_rows(_same(place))) == 14


def test_what_is_decoded_after_the_key_was_renamed_still_has_it(place: Place) -> None:
    """Under REPLICA IDENTITY FULL pgoutput doesn't tell the key: it's looked up, as it is now."""
    app = place.app
    app.execute("create table t (v text, id int primary key); alter table t replica identity full")
    place.slots.publish(app)
    app.execute("insert into t values ('a', 1); update t set v = 'b'; alter table t rename id to ident")
    app.execute("alter table t add more int; update t set v = 'c'")
    assert [row[0].key for row in _rows(_same(place))] == [("id",), ("id",), ("ident",)]


def test_generated_columns_come_from_wal2json_only_before_postgresql_18(place: Place) -> None:
    app = place.app
    app.execute("create table t (id int primary key, twice int generated always as (id * 2) stored)")
    place.slots.publish(app)
    app.execute("insert into t values (1)")
    ours, theirs = _rows(place.slots.by_pgoutput()), _rows(place.slots.by_wal2json())
    assert (theirs[0][0].new_columns, theirs[0][1]) == (("id", "twice"), [b"1", b"2"])
    assert ours[0][0].new_columns == (("id", "twice") if app.info.server_version >= 180000 else ("id",))


def test_the_truncate_of_a_partitioned_table_comes_from_wal2json_only(place: Place) -> None:
    app = place.app
    app.execute("create table t (id int primary key) partition by range (id)")
    app.execute("create table t_1 partition of t for values from (0) to (10)")
    place.slots.publish(app)
    app.execute("insert into t values (1); truncate t")
    ours, theirs = place.slots.by_pgoutput(), place.slots.by_wal2json()
    assert [event for event in ours[-1].events if isinstance(event, Truncate)] == [
        Truncate("public", "t", "t_1")
    ]
    assert Truncate("public", "t", "") in theirs[-1].events


def test_messages_are_the_same_also_when_they_are_no_text(place: Place) -> None:
    """Cases 68, 72, 73."""
    for content in ('\'{"a": "é"}\'', "''", "'\\xff7b7d'::bytea", "'\\x7b007d'::bytea", "'\\xc3a9c3'::bytea"):
        for transactional in ("true", "false"):
            place.app.execute(
                f"select pg_logical_emit_message({transactional}, 'cdc_audit.context', {content})".encode()
            )
    place.app.execute(
        "select pg_logical_emit_message(true, 'somebody else''s', 'x'); create table flushed ()"
    )
    events = [event for transaction in _same(place) for event in transaction.events]
    assert len(events) == 10
    assert {event.content for event in events if isinstance(event, Message)} == {
        '{"a": "é"}',
        "",
        "\ufffdÿ{}",
        "{",
        "\ufffdéÃ",
    }


def test_another_selection_of_tables_counts_from_there_on_for_described_tables_too(place: Place) -> None:
    app = place.app
    app.execute("create table t (id int primary key); create table u (id int primary key)")
    place.slots.publish(app)
    app.execute("insert into t values (1); insert into u values (1)")
    assert [row[0].table for row in _rows(_same(place))] == ["t", "u"]
    for decoder in (place.slots.pgoutput, place.slots.wal2json):
        decoder.rescope(Scope(exclude=["public.t"]))
    app.execute("insert into t values (2); insert into u values (2); truncate t, u")
    events = [event for transaction in _same(place) for event in transaction.events]
    assert len(events) == 2


@pytest.mark.parametrize(
    ("name", "encoding", "text"),
    [("LATIN1", "latin-1", "é"), ("EUC_JP", "euc_jp", "日本"), ("SQL_ASCII", "utf-8", "é日本")],
)
def test_databases_of_other_encodings_give_the_same_text(
    source_cluster: Server, name: str, encoding: str, text: str
) -> None:
    """Case 64. The server converts nothing: names, values and messages all are in its encoding."""
    database = f"{source_cluster.create_database()}_{name.lower()}"
    source_cluster.execute(
        f"create database {database} encoding '{name}' lc_collate 'C' lc_ctype 'C' template template0"
    )
    for place in _place(source_cluster, database, encoding):
        place.app.execute(
            f'create table "{text}" (id int primary key, "{text}" text, a text[], j jsonb, n numeric)'.encode()
        )
        place.slots.publish(place.app)
        place.app.execute(
            f'insert into "{text}" values (1, \'{text}\', \'{{{text},""}}\', \'{{"{text}": "{text}"}}\', 1.50);'
            f"select pg_logical_emit_message(true, 'cdc_audit.context', '{text}');"
            f'update "{text}" set n = 2'.encode()
        )
        events = [event for transaction in _same(place) for event in transaction.events]
        assert events[1][:3] == (True, "cdc_audit.context", text)
        shape, new, _ = cast("Row", events[0])
        assert (shape.table, shape.new_columns[1], new[1]) == (text, text, f'"{text}"'.encode())


def test_bytes_of_no_encoding_pass_through_a_real_stream_that_asks_for_no_conversion(
    source_cluster: Server,
) -> None:
    """Case 64: with client_encoding UTF8 the server would end the stream at such a row, again and again."""
    database = f"{source_cluster.create_database()}_ascii"
    source_cluster.execute(
        f"create database {database} encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0"
    )
    for place in _place(source_cluster, database):
        place.app.execute("create table t (id int primary key, v text)")
        place.slots.publish(place.app)
        place.app.execute(r"insert into t values (1, e'caf\351 \303\251')")
        payloads = asyncio.run(_streamed(f"{place.dsn} client_encoding=SQL_ASCII", database))
        assert [p for p in payloads if p[:1] == b"I"] == [
            payloads[-2][:5] + b"N\0\2t\0\0\0\0011t\0\0\0\7caf\xe9 \xc3\xa9"
        ]
        assert _rows(_same(place))[0][1] == [b"1", '"café é"'.encode()]


async def _streamed(dsn: str, name: str) -> list[bytes]:
    """One transaction's messages, as the daemon's own stream gets them."""
    stream = await Stream.open(dsn, application_name="test", slot=f"{name}_p", plugin="pgoutput")
    try:
        options = pgoutput_options(publications=publication.names(name))
        await stream.start(f"{name}_p", "pgoutput", 0, options)
        payloads: list[bytes] = []
        async with asyncio.timeout(20):
            while not payloads or payloads[-1][:1] != b"C":
                payloads += [item for item in stream.receive().items if isinstance(item, bytes)]
                await stream.wait(0.1)
        return payloads
    finally:
        await stream.close()
