"""history, show, as-of and undo, on what the daemon wrote of a random workload; copies of the tables taken then are the oracle."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random, randrange
from types import ModuleType
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import Connection

from cdc_audit.cli import as_of, history, show, undo
from cdc_audit.errors import CheckFailedError, UsageError
from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

TABLES = ("shop.items", "shop.parts", "shop.pairs")
TRANSACTIONS = 60
MAKE = """
create schema shop;
create sequence shop.moved start 1001;
create type shop.mood as enum ('fine', 'bad');
create table shop.items (id int primary key, name text, price numeric(30, 12), tags text[], doc jsonb, at timestamptz default now(),
    bytes bytea, body text, mood shop.mood, ratio float8, twice int generated always as (id * 2) stored);
create table shop.parts (id bigint generated always as identity primary key, item int references shop.items on delete cascade,
    note text);
create table shop.pairs (a text, b int, v text, primary key (a, b));
alter table shop.items replica identity full;
alter table shop.parts replica identity full;
alter table shop.pairs replica identity full;
insert into shop.items (id, name, price, body) select g, 'old ' || g, g / 7.0, repeat('x', g * 700) from generate_series(1, 15) g;
insert into shop.parts (item, note) select g, 'part' from generate_series(1, 15) g;
insert into shop.pairs select 'p' || g, g, 'v' from generate_series(1, 5) g;
"""
HOSTILE = "\x1b[2J=cmd|x\u202e\u009b31m'; drop table shop.items; -- \\"


# Which records each transaction touched, told by triggers: a copy does not show what a transaction changed and changed back.
NOTE = """
create schema oracle;
create table oracle.touched (xid bigint default pg_current_xact_id()::text::bigint, place text, record text);
create function oracle.note() returns trigger language plpgsql as $$
begin
    for n in 0..1 loop
        insert into oracle.touched (place, record)
        select tg_table_schema || '.' || tg_table_name,
               case when image ? 'id' then image ->> 'id' else jsonb_build_array(image -> 'a', image ->> 'b')::text end
          from (select to_jsonb(case n when 0 then old else new end)) as i (image) where image is not null;
    end loop;
    return null;
end $$;
""" + "".join(
    f"create trigger note after insert or update or delete on {table} for each row execute function oracle.note();"
    for table in TABLES
)

Copy = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Scene:
    """After each transaction: its xid, the time, and a copy of each table by key."""

    databases: Databases
    moments: list[tuple[int, str, Copy]] = field(default_factory=list)
    touched: dict[int, set[tuple[str, str]]] = field(default_factory=dict)

    def ask(self, module: ModuleType, *arguments: str) -> Result:
        return CliRunner().invoke(module.command, ["--dsn", self.databases.audit_dsn, *arguments])

    def told(self, module: ModuleType, *arguments: str) -> str:
        """The output of a command that must succeed."""
        done = self.ask(module, *arguments)
        assert done.exception is None, done.exception
        return done.stdout


def copy_of(source: Connection) -> Copy:
    keys = {
        "shop.items": "id::text",
        "shop.parts": "id::text",
        "shop.pairs": "jsonb_build_array(a, b::text)::text",
    }
    tables: Copy = {}
    for table, key in keys.items():
        rows = source.execute(f"select {key}, to_jsonb(t)::text from {table} t".encode()).fetchall()
        tables[table] = {name: read(text) for name, text in rows}
    return tables


def read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def step(source: Connection, rng: Random) -> None:
    item = rng.randint(1, 40)
    some = "(select id from shop.items where id >= %s order by id limit 1)"
    match rng.randrange(10):
        case 0 | 1:
            source.execute(
                "insert into shop.items (id, name, price, tags, doc, bytes, body, mood, ratio) values (%s, %s, %s, %s, %s, %s,"
                " repeat('long', %s), 'bad', %s) on conflict (id) do update set name = excluded.name, tags = excluded.tags",
                (
                    item,
                    rng.choice([HOSTILE, "=1+1", "", None]),
                    Decimal(rng.randint(1, 10**18)) / 10**9,
                    [HOSTILE, None, "b"],
                    json.dumps({"n": 1.50, "deep": [1, {"x": None}]}),
                    b"\x00\xff",
                    rng.choice([1, 4000]),
                    rng.random(),
                ),
            )
        case 2:
            source.execute(f"insert into shop.parts (item, note) select {some}, %s".encode(), (item, HOSTILE))
        case 3 | 4:
            source.execute(
                f"update shop.items set price = price + 1.10, doc = %s, name = name || '.' where id = {some}".encode(),
                (json.dumps({"k": rng.random()}), item),
            )
        case 5:
            source.execute(f"delete from shop.items where id = {some}".encode(), (item,))
        case 6:
            source.execute(
                f"update shop.items i set id = nextval('shop.moved') where id = {some} and not exists"
                " (select from shop.parts where item = i.id)".encode(),
                (item,),
            )
        case 7:
            source.execute(
                "update shop.pairs set b = b + 10, v = v || 'm' where b = %s", (rng.randint(1, 5),)
            )
        case 8:
            source.execute("update shop.items set name = name where id < %s", (item // 8,))
        case 9:
            source.execute("update shop.parts set note = note || '!' where id = %s", (item,))


@pytest.fixture(scope="module")
def scene(
    source_cluster: Server, audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A random workload in the trail, the daemon stopped. At its end every row was touched."""
    databases = new_databases(source_cluster, audit_cluster)
    try:
        databases.source.execute(MAKE + NOTE, dbname=databases.source_name)
        env = databases.environment(BATCH_FLUSH_INTERVAL="0", SOURCE_EXCLUDE="oracle.*")
        initialised(env)
        found = Scene(databases)
        rng = Random(randrange(1_000_000))  # --randomly-seed repeats it
        with (
            DaemonProcess(env, tmp_path_factory.mktemp("answers") / "log") as daemon,
            psycopg.connect(databases.source_dsn, options="-c timezone=UTC") as source,
        ):
            for number in range(TRANSACTIONS + 1):
                (xid,) = source.execute("select pg_current_xact_id()::text::bigint").fetchone() or (0,)
                source.execute(
                    "select cdc_audit.set_context(%s)", (json.dumps({"user_id": f"u{number % 3}"}),)
                )
                if number == 0:
                    source.execute("delete from shop.parts where item = 15")
                    source.execute("update shop.items set id = 3001 where id = 15")
                if number == 4:
                    source.execute("insert into shop.items (id, name) values (4001, 'whole')")
                    source.execute("insert into shop.parts (item, note) values (4001, 'part')")
                if (
                    number == 5
                ):  # a part is changed, and then goes with its item: taken back, it must come before its change
                    source.execute("update shop.parts set note = 'changed' where item = 4001")
                    source.execute("delete from shop.items where id = 4001")
                # Nothing is left of it: taken back, its part can't come before the item, which it takes away again.
                if number == 6:
                    source.execute("insert into shop.items (id, name) values (4002, 'short')")
                    source.execute("insert into shop.parts (item, note) values (4002, 'lived')")
                    source.execute("update shop.parts set note = 'changed' where item = 4002")
                    source.execute("delete from shop.items where id = 4002")
                if number == TRANSACTIONS - 1:
                    source.execute(
                        "insert into shop.items (id, name) values (2001, %s), (2002, '=1+1')", (HOSTILE,)
                    )
                if number == TRANSACTIONS:
                    source.execute("update shop.items set name = 'last'")
                    source.execute("update shop.parts set note = 'last'")
                    source.execute("update shop.pairs set v = 'last'")
                for _ in range(rng.randint(1, 4) if number < TRANSACTIONS else 0):
                    step(source, rng)
                source.commit()
                (at,) = source.execute(
                    "select to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF')"
                ).fetchone() or ("",)
                found.moments.append((xid, at, copy_of(source)))
                source.commit()
            last = f"select from audit.audit_logs where xid = {found.moments[-1][0]}"
            until(lambda: databases.audit.execute(last, dbname=databases.audit_name), "the last transaction")
            assert daemon.stop() == 0
            for xid, place, record in source.execute("select xid, place, record from oracle.touched"):
                found.touched.setdefault(xid, set()).add((place, record))
        yield found
    finally:
        databases.drop()


def test_a_table_as_of_any_time_is_what_a_copy_taken_then_was(scene: Scene) -> None:
    for _, at, copies in Random(5).sample(scene.moments, 20):
        for table in TABLES:
            done = scene.ask(as_of, table, "--at", at)
            assert done.exception is None, done.exception
            rows = [read(line) for line in done.stdout.splitlines()]
            assert sorted(map(repr, rows)) == sorted(map(repr, map(ordered(rows), copies[table].values())))
            assert "cdc-audit snapshot adds them" in done.stderr


def ordered(rows: list[dict[str, Any]]) -> Any:
    """The columns in the order of the answer; PostgreSQL's jsonb has one order, so there is one."""
    names = list(rows[0]) if rows else []
    return lambda row: {name: row[name] for name in [*names, *(set(row) - set(names))]}


def test_a_record_as_of_any_time_is_what_it_was_or_said_not_to_be_there(scene: Scene) -> None:
    rng = Random(3)
    for _, at, copies in rng.sample(scene.moments, 12):
        for record in [*rng.sample(sorted(copies["shop.items"]), 3), "999999"]:
            done = scene.ask(as_of, "shop.items", record, "--at", at)
            if record in copies["shop.items"]:
                assert read(done.stdout) == copies["shop.items"][record]
            else:
                assert isinstance(done.exception, CheckFailedError)


def test_before_the_trail_began_nothing_is_claimed(scene: Scene) -> None:
    done = scene.ask(as_of, "shop.items", "--at", "2020-01-01")
    assert isinstance(done.exception, UsageError)
    assert "does not reach back" in str(done.exception)


def test_no_output_holds_what_moves_a_terminal_and_no_csv_cell_is_a_formula(scene: Scene) -> None:
    at = scene.moments[-2][1]
    texts = [
        scene.told(history, "shop.items", "2001"),
        scene.told(undo, "--user", "u1", "--since", "1h"),
    ]
    row = scene.databases.audit.execute(
        "select id from audit.audit_logs where new_data ->> 'name' = %s limit 1",
        (HOSTILE,),
        dbname=scene.databases.audit_name,
    )[0][0]
    texts.append(scene.told(show, str(row)))
    for text in texts:
        assert text
        assert all(line.isprintable() for line in text.splitlines())
    for arguments in (("--at", at), ("--at", at, "--format", "csv")):
        assert "drop table" in scene.ask(as_of, "shop.items", *arguments).stdout
    text = scene.ask(as_of, "shop.items", "--at", at).stdout
    assert all(line.isprintable() for line in text.splitlines())
    text = scene.ask(as_of, "shop.items", "--at", at, "--format", "csv").stdout
    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    assert any(cell.startswith("'=1+1") for cell in cells)
    assert any(
        cell.startswith("\x1b[2J=cmd") for cell in cells
    )  # left as it is: without the escape it would be a formula
    assert [cell for cell in cells if cell.startswith(("=", "@", "+"))] == []


def test_history_follows_a_record_across_its_keys(scene: Scene) -> None:
    old, new = "15", "3001"
    ids = [
        {json.loads(line)["id"] for line in scene.told(history, "shop.items", key, "--json").splitlines()}
        for key in (old, new)
    ]
    assert ids[1] <= ids[0]
    assert ids[1]
    fields = scene.ask(history, "items", old, "--field", "id").stdout
    assert f"    id: {old} → {new}" in fields
    pair = scene.ask(history, "shop.pairs", '["p1", "1"]').stdout
    assert "    b: 1 → 11" in pair or "v: v → last" in pair


def test_a_row_is_shown_with_its_proof_and_its_transaction(scene: Scene) -> None:
    last = scene.moments[-1][0]
    ids = [
        number
        for (number,) in scene.databases.audit.execute(
            f"select id from audit.audit_logs where xid = {last} order by id",
            dbname=scene.databases.audit_name,
        )
    ]
    done = scene.ask(show, str(ids[0]), "--json", "--limit", "1000")
    assert done.exception is None, done.exception
    shown = json.loads(done.stdout)
    assert shown["proof"]["holds"] is True
    assert shown["row"]["row_hash"] == "\\x" + shown["proof"]["leaf"]
    assert shown["transaction"] == ids[1:]
    assert "proof: leaf" in scene.ask(show, str(ids[0])).stdout
    assert isinstance(scene.ask(show, "99999999").exception, UsageError)


def test_a_row_that_was_altered_has_no_proof(scene: Scene) -> None:
    with psycopg.connect(scene.databases.audit_dsn) as audit:
        audit.execute("alter table audit.audit_logs disable trigger refuse_change")
        audit.execute("update audit.audit_logs set user_id = 'somebody else' where id = 2")
        audit.commit()
        done = scene.ask(show, "2", "--json")
        audit.execute("update audit.audit_logs set user_id = 'u0' where id = 2")
        audit.execute("alter table audit.audit_logs enable always trigger refuse_change")
        audit.commit()
    assert isinstance(done.exception, CheckFailedError)
    assert json.loads(done.stdout)["proof"]["holds"] is False


def test_undo_of_all_transactions_from_the_last_one_restores_each_state(scene: Scene) -> None:
    rng, outcomes = Random(randrange(1_000_000)), Counter[str]()
    with psycopg.connect(scene.databases.source_dsn, autocommit=True, options="-c timezone=UTC") as source:
        for number in range(len(scene.moments) - 1, 0, -1):
            xid, _, after = scene.moments[number]
            assert copy_of(source) == after
            for earlier in rng.sample(range(1, number + 1), min(3, number)):
                outcomes[undone_alone(scene, source, number, earlier)] += 1
            done = scene.ask(undo, "--xid", str(xid), "--as", "dba", "--reason", HOSTILE)
            if isinstance(done.exception, CheckFailedError):
                assert "no such changes" in str(done.exception)
            else:
                source.execute(done.stdout.encode())
            assert copy_of(source) == scene.moments[number - 1][2], (number, xid)
            if number == 30:
                refuses_what_has_changed_since(scene, source)
    assert outcomes["restored"] > 20, outcomes
    assert outcomes["refused"] > 20, outcomes


REFUSALS = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.UniqueViolation,
)


def undone_alone(scene: Scene, source: Connection, now: int, number: int) -> str:
    """Take one transaction back where the source is as it was after another one, later; then leave it as it was.

    Where nothing has changed its records since, they are what they were before it, and all others what they are now; where
    something has, or where that would leave a part without its item or take a part away, it refuses and nothing is changed.
    """
    xid, _, after = scene.moments[number]
    before, present = scene.moments[number - 1][2], scene.moments[now][2]
    touched = scene.touched.get(xid, set())
    if not touched:
        return "nothing to do"
    wanted = {place: dict(rows) for place, rows in present.items()}
    for place, record in touched:
        wanted[place].pop(record, None)
        if record in before[place]:
            wanted[place][record] = before[place][record]
    may = all(present[place].get(record) == after[place].get(record) for place, record in touched) and all(
        part["item"] is None or str(part["item"]) in wanted["shop.items"]
        for part in wanted["shop.parts"].values()
    )
    script = scene.told(undo, "--xid", str(xid))
    source.execute("begin")
    try:
        source.execute(script.replace("begin;", "", 1).removesuffix("commit;\n").encode())
        assert may, (number, now)
        assert copy_of(source) == wanted, (number, now)
    except REFUSALS:
        assert not may, (number, now)
        return "refused"
    finally:
        source.execute("rollback")
        assert copy_of(source) == present
    return "restored"


def refuses_what_has_changed_since(scene: Scene, source: Connection) -> None:
    """A change that a later one lies over can't be taken back, and nothing of its transaction is."""
    now = copy_of(source)
    rows = scene.databases.audit.execute(
        f"select id from audit.audit_logs where xid = {scene.moments[-1][0]} and table_name = 'items' limit 1",
        dbname=scene.databases.audit_name,
    )
    script = scene.ask(undo, "--id", str(rows[0][0])).stdout  # taken back already
    with pytest.raises(psycopg.errors.SerializationFailure, match="has changed since"):
        source.execute(script.encode())
    source.rollback()
    assert copy_of(source) == now


def test_undo_wants_to_know_exactly_what(scene: Scene) -> None:
    for arguments in ([], ["--xid", "1", "--id", "1"], ["--user", "u1"], ["--id", "1", "--until", "now"]):
        assert isinstance(scene.ask(undo, *arguments).exception, UsageError), arguments


def test_what_has_no_whole_images_is_not_undone(databases: Databases, tmp_path: Path) -> None:
    databases.source.execute("create table t (id int primary key, v text)", dbname=databases.source_name)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with (
        DaemonProcess(env, tmp_path / "log") as daemon,
        psycopg.connect(databases.source_dsn, autocommit=True) as source,
    ):
        source.execute("insert into t values (1, 'a')")
        source.execute("update t set v = 'b'")
        source.execute("truncate t")
        rows = "select id from audit.audit_logs where action = 'TRUNCATE'"
        until(lambda: databases.audit.execute(rows, dbname=databases.audit_name), "the last row")
        assert daemon.stop() == 0
    for row, why in ((2, "no whole images"), (3, "TRUNCATE leaves no images")):
        done = CliRunner().invoke(undo.command, ["--dsn", databases.audit_dsn, "--id", str(row)])
        assert isinstance(done.exception, CheckFailedError)
        assert why in str(done.exception)
        assert done.stdout == ""
