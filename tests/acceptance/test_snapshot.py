"""Snapshots: the present rows in the trail, as of a position to which all changes fit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_audit.model.lsn import parse_lsn
from cdc_audit.source import publication
from tests.integration.decode.type_zoo import EXTENSIONS, TYPES, ZOO
from tests.support import second_openings
from tests.support import second_verifier as second
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.live import HOSTILE_SETTINGS
from tests.support.proof import check_proof
from tests.support.servers import Server

PLUGINS = pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
TABLES = ("app.a", "app.b", "app.c")
State = dict[tuple[str, int], str]  # a row's image by table and id


def run(databases: Databases, statements: str) -> None:
    databases.source.execute(statements, dbname=databases.source_name)


def trail(databases: Databases, columns: str, rest: str = "order by id") -> list[tuple[Any, ...]]:
    return databases.audit.execute(
        f"select {columns} from audit.audit_logs {rest}", dbname=databases.audit_name
    )


def blocks(databases: Databases) -> list[tuple[Any, ...]]:
    return databases.audit.execute(
        "select detail ->> 'table', row_count, detail, start_lsn = end_lsn from audit.ledger"
        " where kind = 'snapshot' order by block",
        dbname=databases.audit_name,
    )


def snapshot(env: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    done = cdc_audit("snapshot", "--json", *arguments, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_whole(databases: Databases, env: dict[str, str]) -> int:
    """Three verifiers say that the trail is whole; how many rows it has."""
    done = cdc_audit("verify", env=env)
    assert done.returncode in {0, 3}, done.stdout
    assert second.verify(databases.audit_dsn, "audit", [], {}) == []
    return check_proof(databases.audit_dsn)


def make_tables(databases: Databases) -> None:
    run(databases, "create schema app; create table mark (id int generated always as identity primary key)")
    for table in TABLES:
        run(
            databases,
            f"create table {table} (id int primary key, n int not null, v numeric, t text);"
            f"alter table {table} replica identity full;"
            f"insert into {table} select g, 0, g * 1.10, repeat(chr(97 + g % 26), g % 50) from generate_series(1, 3000) g",
        )


def settle(databases: Databases) -> None:
    """Wait until the trail holds everything that has been committed so far."""
    ((xid,),) = databases.source.execute(
        "with m as (insert into mark default values returning 1) select pg_current_xact_id()::text::bigint from m",
        dbname=databases.source_name,
    )
    until(lambda: trail(databases, "1", f"where xid = {xid} and table_name = 'mark'"), "the mark")


@contextmanager
def load(databases: Databases, workers: int = 3) -> Iterator[None]:
    """Sessions that change random rows, in transactions of a few statements, some of which stay open for a while."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            with psycopg.connect(databases.source_dsn) as source:
                while not stop.is_set():
                    table, key = dice.choice(TABLES), dice.randrange(1, 4000)
                    for _ in range(dice.randrange(1, 6)):
                        statement = dice.choice(
                            (
                                "insert into {} values (%s, 0, 1.50, 'new') on conflict do nothing",
                                "update {} set n = n + 1, v = v * 2 where id = %s and n < 60",
                                "delete from {} where id = %s",
                            )
                        )
                        source.execute(statement.format(table).encode(), (key,))
                        key = min(4000, key + 1)
                        stop.wait(0.002 if dice.random() < 0.2 else 0)
                    if dice.random() < 0.1:
                        source.rollback()
                    source.commit()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def replayed(databases: Databases) -> State:
    """The state that the trail gives: by position, each table beginning with its snapshot, and every later change fitting."""
    rows = trail(
        databases,
        "id, commit_lsn::text, schema_name || '.' || table_name, action, record_id, (old_data ->> 'id')::int, old_data::text,"
        " (new_data ->> 'id')::int, new_data::text",
    )
    starts = {row[2]: parse_lsn(row[1]) for row in rows if row[3] == "SNAPSHOT"}
    assert set(starts) == set(TABLES)
    state: State = {}
    for _, _, table, action, record, _, old, new_key, new in rows:
        if action == "SNAPSHOT":
            assert (table, new_key) not in state
            assert (old, record) == (None, str(new_key))
            state[table, new_key] = new
    changes = [row for row in rows if row[2] in starts and row[3] != "SNAPSHOT"]
    later = [row for row in changes if parse_lsn(row[1]) > starts[row[2]]]
    for row_id, _, table, action, _, old_key, old, new_key, new in later:
        if old is not None:
            assert state.pop((table, old_key)) == old, f"row {row_id}: {action} of another row than was there"
        if new is not None:
            assert (table, new_key) not in state, f"row {row_id}: {action} of a row that was there"
            state[table, new_key] = new
    assert len(later) > 100, "hardly anything changed after the snapshot"
    return state


def present(databases: Databases) -> State:
    found: State = {}
    for table in TABLES:
        rows = databases.source.execute(
            f"select id, to_jsonb(one)::text from {table} one", dbname=databases.source_name
        )
        found |= {(table, key): image for key, image in rows}
    return found


@PLUGINS
def test_state_at_the_snapshot_and_later_changes_give_the_present_state(
    plugin: str, databases: Databases, tmp_path: Path
) -> None:
    """Under load all the time: the slot holds changes from before the snapshot, and the daemon comes later."""
    make_tables(databases)
    env = databases.environment(SOURCE_PLUGIN=plugin, BATCH_FLUSH_INTERVAL="0.1")
    initialised(env)
    with load(databases):
        until(
            lambda: databases.source.execute(
                "select count(*) > 100 from app.a where n > 0", dbname=databases.source_name
            )[0][0],
            "changes before",
        )
        taken = snapshot(env, "--tables", "app.*", "--reason", "the trail begins")
        with DaemonProcess(env, tmp_path / "log") as daemon:
            daemon.until_ready()
            settle(databases)
            assert daemon.stop() == 0
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        settle(databases)
        assert daemon.stop() == 0
    assert [one["table"] for one in taken] == list(TABLES)
    before = trail(databases, "count(*)", f"where action <> 'SNAPSHOT' and commit_lsn <= '{taken[0]['lsn']}'")
    assert before[0][0] > 0, "changes before the snapshot are in the trail, too"
    assert replayed(databases) == present(databases)
    assert check_whole(databases, env) == trail(databases, "count(*)", "")[0][0]


def test_the_columns_of_a_snapshots_rows_and_its_blocks_say_what_they_are(databases: Databases) -> None:
    make_tables(databases)
    env = databases.environment()
    initialised(env)
    (a,) = snapshot(env, "--tables", "app.a", "--reason", "why not")
    columns = "action, capture, context_trust, xid, old_data, changed_fields, count(*), min(seq), max(seq), commit_lsn::text"
    assert trail(databases, columns, "group by 1, 2, 3, 4, 5, 6, 10") == [
        ("SNAPSHOT", "snapshot", "none", None, None, None, 3000, 1, 3000, a["lsn"])
    ]
    assert trail(databases, "count(*)", "where created_at between now() - interval '1 minute' and now()") == [
        (3000,)
    ]
    assert a == {"table": "app.a", "rows": 3000, "block": 1, "lsn": a["lsn"]}
    detail = {
        "snapshot": 1,
        "table": "app.a",
        "tables": ["app.a"],
        "reason": "why not",
        "left": 0,
        "lsn": a["lsn"],
    }
    assert blocks(databases) == [("app.a", 3000, detail, True)]


@pytest.fixture(params=["wal2json", "pgoutput"])
def hostile(request: pytest.FixtureRequest, databases: Databases) -> tuple[Databases, dict[str, str]]:
    """A source whose settings are as hostile to plain output as they can be."""
    for name, value in HOSTILE_SETTINGS.items():
        databases.source.execute(f"alter database {databases.source_name} set {name} = '{value}'")
    return databases, databases.environment(SOURCE_PLUGIN=request.param)


def test_every_value_of_the_zoo_is_what_to_jsonb_says(hostile: tuple[Databases, dict[str, str]]) -> None:
    databases, env = hostile
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("set search_path = public")
        for statement in (*EXTENSIONS, *TYPES):
            source.execute(statement)
        for number, (type_name, literals) in enumerate(ZOO):
            source.execute(f"create table zoo_{number} (n int primary key, v {type_name})".encode())
            for n, literal in enumerate(literals):
                value, given = "%s::text::" + type_name, [n, literal]
                if literal is not None and literal.startswith("SQL:"):
                    value, given = literal[4:], [n]
                source.execute(f"insert into zoo_{number} select %s, {value}".encode(), given)
    initialised(env)
    snapshot(env, "--tables", "public.zoo_*")
    found = trail(databases, "table_name, record_id, new_data::text")
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute(
            "set search_path = public; set datestyle = iso; set timezone = utc; set bytea_output = hex; "
            "set intervalstyle = postgres; set extra_float_digits = 3; set lc_monetary = 'C'"
        )
        wanted = [
            (f"zoo_{number}", *row)
            for number in range(len(ZOO))
            for row in source.execute(f"select n::text, to_jsonb(t)::text from zoo_{number} t".encode())
        ]
    assert len(wanted) > 500
    assert sorted(found) == sorted(wanted)
    check_whole(databases, env)


def test_a_database_of_another_encoding_gives_utf_8(source_cluster: Server, audit_cluster: Server) -> None:
    for encoding in ("LATIN1", "EUC_JP", "SQL_ASCII"):
        databases = new_databases(source_cluster, audit_cluster)
        name = f"{databases.source_name}_{encoding.lower()}"
        databases.source.execute(
            f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
        )
        other = Databases(
            databases.source, databases.audit, name, databases.audit_name, f"{databases.slot}_x"
        )
        try:
            with psycopg.connect(other.source_dsn, autocommit=True, client_encoding="utf8") as source:
                text, column = ("日本\\\t", "語") if encoding == "EUC_JP" else ("é\\\t\n", "é")
                source.execute(f'create table "{column}" (id int primary key, "{column}" text)')
                source.execute(f'insert into "{column}" values (1, %s)', (text,))
            env = other.environment()
            initialised(env)
            snapshot(env)
            assert trail(other, "table_name, new_data") == [(column, {"id": 1, column: text})]
        finally:
            other.source.execute("select pg_drop_replication_slot(%s)", (other.slot,))
            other.source.execute(f"drop database {name} with (force)")
            databases.drop()


def test_each_table_is_read_in_its_own_way(databases: Databases) -> None:
    """Partitions, heirs, generated columns, no columns, no key, names with any character; not what the WAL doesn't have."""
    run(
        databases,
        """
        create table parted (id int, d int, primary key (id, d)) partition by list (d);
        create table parted_1 partition of parted for values in (1);
        create table parted_2 (d int, id int, primary key (id, d));
        alter table parted attach partition parted_2 for values in (2);
        insert into parted values (7, 1), (8, 2);
        create table parent (id int primary key);
        create table heir (more text) inherits (parent);
        insert into parent values (1);
        insert into heir values (2, 'm');
        create table made (id int primary key, twice int generated always as (id * 2) stored);
        insert into made values (21);
        create table blank ();
        insert into blank default values;
        create table keyless (v text);
        insert into keyless values (null), ('');
        create table "a.b""c" ("x""y%s" int primary key);
        insert into "a.b""c" values (5);
        create table nobody (id int);
        create unlogged table fleeting (id int);
        insert into fleeting values (1);
        create view seen as select * from made;
        create materialized view kept as select * from made;
        """,
    )
    env = databases.environment()
    initialised(env)
    taken = snapshot(env)
    assert trail(
        databases, "table_name, partition_name, record_id, new_data", "order by 1, 2, 3, 4::text"
    ) == [
        ('a.b"c', None, "5", {'x"y%s': 5}),
        ("blank", None, None, {}),
        ("heir", None, None, {"id": 2, "more": "m"}),
        ("keyless", None, None, {"v": None}),
        ("keyless", None, None, {"v": ""}),
        ("made", None, "21", {"id": 21, "twice": 42}),
        ("parent", None, "1", {"id": 1}),
        ("parted", "parted_1", '["7", "1"]', {"id": 7, "d": 1}),
        ("parted", "parted_2", '["2", "8"]', {"id": 8, "d": 2}),
    ]
    assert ("public.nobody", 0) in [(one["table"], one["rows"]) for one in taken], (
        "an empty table is on record as empty"
    )
    check_whole(databases, env)


@PLUGINS
def test_killed_in_the_middle_it_goes_on_with_the_tables_that_are_left(
    plugin: str, databases: Databases
) -> None:
    make_tables(databases)
    env = databases.environment(SOURCE_PLUGIN=plugin)
    initialised(env)
    arguments = ("--tables", "app.*", "--reason", "first")
    killed = cdc_audit("snapshot", *arguments, env=env | {"CDC_AUDIT_FAILPOINT": "after-copy:2"})
    assert killed.returncode == -9
    first = blocks(databases)
    done = [table for table, *_ in first]
    assert done == [TABLES[0]], "the table that was being written is not there at all"
    run(databases, "update app.a set n = 77; update app.c set n = 77; create table app.d as select 1 as n")
    if plugin == "pgoutput":
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            publication.keep_in_step(source, databases.slot, ["*.*"], [])
    again = snapshot(env, *arguments)
    assert [one["table"] for one in again] == ["app.b", "app.c", "app.d"]
    assert trail(databases, "table_name, count(*), min(new_data ->> 'n'), count(distinct commit_lsn)", "group by 1 order by 1") == [
        ("a", 3000, "0", 1), ("b", 3000, "0", 1), ("c", 3000, "77", 1), ("d", 1, "1", 1),
    ]  # fmt: skip
    assert {detail["snapshot"] for _, _, detail, _ in blocks(databases)} == {first[0][2]["snapshot"]}
    assert again[0]["lsn"] > first[0][2]["lsn"]
    assert [one["table"] for one in snapshot(env, *arguments)] == ["app.a", "app.b", "app.c", "app.d"], (
        "finished: a new one"
    )
    check_whole(databases, env)


def test_killed_before_the_commit_of_a_table_or_after_it_nothing_is_there_twice(databases: Databases) -> None:
    make_tables(databases)
    env = databases.environment()
    initialised(env)
    for place in ("mid-copy", "after-copy", "before-commit:2", "after-begin:2"):
        killed = cdc_audit("snapshot", "--tables", "app.*", env=env | {"CDC_AUDIT_FAILPOINT": place})
        assert killed.returncode == -9, place
    snapshot(env, "--tables", "app.*")
    assert trail(databases, "table_name, count(*), count(distinct record_id)", "group by 1 order by 1") == [
        (name, 3000, 3000) for name in ("a", "b", "c")
    ]
    check_whole(databases, env)


def test_a_snapshot_that_was_cut_short_before_a_gap_begins_anew(databases: Databases) -> None:
    make_tables(databases)
    env = databases.environment()
    initialised(env)
    cdc_audit("snapshot", "--reason", "lost", env=env | {"CDC_AUDIT_FAILPOINT": "before-commit:2"})
    assert [table for table, *_ in blocks(databases)] == ["app.a"]
    done = cdc_audit("slot", "recreate", "--reason", "lost", "--snapshot", "--yes", env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [table for table, *_ in blocks(databases)] == ["app.a", "app.a", "app.b", "app.c", "public.mark"]


@PLUGINS
def test_recreating_the_slot_with_a_snapshot_bounds_the_gap(
    plugin: str, databases: Databases, tmp_path: Path
) -> None:
    """What changed in the gap is the difference between a row's last image before it and its SNAPSHOT image."""
    make_tables(databases)
    env = databases.environment(SOURCE_PLUGIN=plugin, BATCH_FLUSH_INTERVAL="0")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(databases, "update app.a set t = 'before' where id = 5")
        settle(databases)
        assert daemon.stop() == 0
    run(databases, f"select pg_drop_replication_slot('{databases.slot}')")
    run(databases, "update app.a set t = 'in the gap' where id = 5; delete from app.a where id = 6")
    done = cdc_audit("slot", "recreate", "--reason", "ticket 1", "--snapshot", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "app.a, 2,999 rows as of" in done.stdout
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        run(databases, "update app.a set t = 'after' where id = 5")
        settle(databases)
        assert daemon.stop() == 0
    images = trail(
        databases,
        "action, old_data ->> 't', new_data ->> 't'",
        "where record_id = '5' and table_name = 'a' order by id",
    )
    assert images[0][::2] == ("UPDATE", "before")
    assert images[1:] == [("SNAPSHOT", None, "in the gap"), ("UPDATE", "in the gap", "after")]
    kinds = databases.audit.execute("select distinct kind from audit.ledger", dbname=databases.audit_name)
    assert {"gap", "snapshot"} <= {kind for (kind,) in kinds}
    check_whole(databases, env)


def test_init_may_begin_the_trail_with_a_snapshot(databases: Databases) -> None:
    make_tables(databases)
    env = databases.environment()
    done = cdc_audit("init", "--snapshot", env=env)
    assert done.returncode == 0, done.stderr
    assert trail(databases, "count(*)", "where action = 'SNAPSHOT' and schema_name = 'app'") == [(9000,)]


def test_secrets_are_masked_and_personal_values_can_be_erased(databases: Databases, tmp_path: Path) -> None:
    run(
        databases,
        "create table people (id int primary key, name text, password text);"
        "insert into people values (1, 'Ada', 'canary-1'), (2, 'Bob', null)",
    )
    file = tmp_path / "cdc-audit.toml"
    file.write_text('[[redact.rules]]\ntable = "public.people"\ncolumn = "name"\nmode = "personal"\n')
    assert cdc_audit("key", "generate", str(tmp_path / "signing.pem"), env={}).returncode == 0
    env = databases.environment(CONFIG=str(file), LEDGER_SIGNING_KEY_FILE=str(tmp_path / "signing.pem"))
    initialised(env)
    snapshot(env)
    images = trail(databases, "new_data")
    assert [image["password"] for (image,) in images] == ["[redacted]", None]
    assert all(image["name"].startswith("personal:") for (image,) in images), images
    public = str(tmp_path / "signing.pem.pub")
    assert cdc_audit("verify", "--public-key", public, env=env).returncode == 0
    erased = cdc_audit("erase", "--table", "people", "--record", "1", "--reason", "asked", env=env)
    assert erased.returncode == 0, erased.stderr
    verified = cdc_audit("verify", "--public-key", public, env=env)
    assert "erased: 1 values in 1 rows" in verified.stdout
    assert verified.returncode == 0, verified.stdout
    assert second_openings.verify(databases.audit_dsn, "audit") == []


def test_while_a_daemon_runs_it_is_refused_and_while_it_runs_a_daemon_waits(
    databases: Databases, tmp_path: Path
) -> None:
    make_tables(databases)
    env = databases.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        refused = cdc_audit("snapshot", env=env)
        assert refused.returncode == 75
        assert "systemctl stop cdc-audit" in refused.stderr
        assert daemon.stop() == 0
    cdc_audit("snapshot", env=env | {"CDC_AUDIT_FAILPOINT": "mid-copy=error"})
    snapshot(env)


def test_what_the_role_may_not_read_is_named_with_what_mends_it(databases: Databases) -> None:
    run(
        databases,
        "create schema app; create table app.open (id int primary key); create table app.closed (id int primary key);"
        "create table app.hidden (id int primary key); insert into app.hidden values (1);"
        "alter table app.hidden enable row level security;",
    )
    role = f"least_{databases.source_name}"
    run(
        databases,
        f"create role {role} login replication; grant usage on schema app to {role}; grant select on app.open to {role}",
    )
    run(databases, f"grant select on app.hidden to {role}")
    env = databases.environment()
    initialised(env)
    least = env | {"CDC_AUDIT_SOURCE_DSN": databases.source.dsn(databases.source_name, role)}
    try:
        for number, said in enumerate(("app.closed", "row-level security hides rows of app.hidden", "")):
            done = cdc_audit("snapshot", "--tables", "app.*", env=least)
            assert done.returncode == (77 if said else 0), done.stderr
            assert said in done.stderr
            assert number == 2 or not blocks(databases)
            if said:
                run(databases, done.stderr.partition("to mend it: ")[2])
        assert trail(databases, "table_name") == [("hidden",)]
    finally:
        run(databases, f"drop owned by {role}; drop role {role}")


def test_a_missing_slot_an_empty_ledger_and_no_table_are_refused(databases: Databases) -> None:
    env = databases.environment()
    assert "cdc-audit init" in cdc_audit("snapshot", env=env).stderr
    initialised(env)
    nothing = cdc_audit("snapshot", "--tables", "no.*", env=env)
    assert (nothing.returncode, "matches no.*" in nothing.stderr) == (2, True)
    assert cdc_audit("snapshot", "--tables", "plain", env=env).returncode == 2
    run(databases, f"select pg_drop_replication_slot('{databases.slot}')")
    missing = cdc_audit("snapshot", env=env)
    assert (missing.returncode, "slot recreate --snapshot" in missing.stderr) == (78, True)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("truncate app.b", "truncated or rewritten just now: app.b"),
        ("alter table app.b alter n type bigint", "truncated or rewritten just now: app.b"),
        ("drop table app.b", "app.b was dropped just now"),
        ("begin; lock table app.b", "app.b was locked by others for 5 s"),
    ],
)
def test_a_table_that_is_emptied_while_the_snapshot_begins_is_noticed(
    statement: str, said: str, databases: Databases
) -> None:
    """It would be read as empty: TRUNCATE and rewrites leave nothing for older snapshots."""
    make_tables(databases)
    env = databases.environment()
    initialised(env)
    halted = {**env, "CDC_AUDIT_FAILPOINT": "snapshot-adopted=stop"}
    with (
        subprocess.Popen(
            [sys.executable, "-m", "cdc_audit", "snapshot"], env=halted, stderr=subprocess.PIPE, text=True
        ) as process,
        psycopg.connect(databases.source_dsn, autocommit=True) as other,
    ):
        state = Path(f"/proc/{process.pid}/stat")
        try:
            until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it has halted")
            other.execute(statement.encode())
        finally:
            process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, said in stderr) == (69, True), stderr
    assert not blocks(databases)
    snapshot(env)
    check_whole(databases, env)


# The kernel counts what a process was before it became another program, too: this one is small, the tests' own is not.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_a_table(databases: Databases) -> None:
    peaks = []
    env = databases.environment()
    for name, count in (("few", 50_000), ("many", 500_000)):
        run(
            databases,
            f"create table {name} (id int primary key, name text, price numeric, at timestamptz, data jsonb);"
            f"insert into {name} select n, 'name ' || n, n * 1.10, now(), jsonb_build_object('n', n)"
            f" from generate_series(1, {count}) n",
        )
    initialised(env)
    for name in ("few", "many"):
        began = time.monotonic()
        snapshot = [sys.executable, "-m", "cdc_audit", "snapshot", "--tables", f"public.{name}"]
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, *snapshot], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
        print(f"{name}: {time.monotonic() - began:.1f} s, peak resident memory {peaks[-1]:.0f} MiB")
    assert trail(databases, "count(*), count(distinct record_id)", "where table_name = 'many'") == [
        (500_000,) * 2
    ]
    assert peaks[1] < peaks[0] + 10
    assert peaks[1] < 150
