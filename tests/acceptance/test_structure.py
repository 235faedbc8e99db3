"""Tables, keys, transactions and DDL in every shape, through a running daemon, against what triggers saw.

The numbers of cases are those of the table in tests/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.databases import new_databases
from tests.support.live import Live, Scene, running
from tests.support.proof import check_proof
from tests.support.servers import Server

WHO = "select pg_logical_emit_message(true, 'cdc_audit.context', '{{\"user_id\":\"{}\"}}')"
WHAT = "action, record_id"


@pytest.fixture(scope="module")
def live(
    source_cluster: Server, audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    databases = new_databases(source_cluster, audit_cluster)
    log = tmp_path_factory.mktemp("daemon") / "log"
    try:
        with running(databases, log, SOURCE_EXCLUDE="oracle.*,scene_hidden.*") as live:
            yield live
            live.settle()
            check_proof(databases.audit_dsn)  # whatever the tests did: lines, hashes, roots and chain hold
    finally:
        databases.drop()


@pytest.fixture
def scene(live: Live) -> Scene:
    return live.scene()


def one_table(scene: Scene, columns: str, *, identity: str = "full", table: str = "t") -> None:
    """A watched table."""
    scene.run(f"create table {table} ({columns})")
    scene.run(f"alter table {table} replica identity {identity}")
    scene.watch(table)


# Transactions


def test_transactions_without_changes_leave_no_rows_and_are_acknowledged(scene: Scene) -> None:
    """Cases 1, 2, 7, 36: DDL, filtered tables, a transaction id alone, sequences, locks."""
    one_table(scene, "id int generated always as identity primary key, v text")
    scene.run("insert into t (v) values ('a')")
    scene.run("create schema if not exists scene_hidden; create table scene_hidden.h (id int)")
    before = confirmed(scene.live)
    scene.run("insert into scene_hidden.h values (1)")
    scene.run("select txid_current()")
    scene.run("begin; select * from t for update; commit")
    scene.run("select nextval('t_id_seq')")
    scene.run("create index on t (v); alter table t add check (v <> 'x')")
    assert scene.trail(WHAT) == [("INSERT", "1")]
    assert scene.trail(WHAT, of="scene_hidden") == []
    assert confirmed(scene.live) > before


def confirmed(live: Live) -> int:
    """The position that the daemon has acknowledged, after a checkpoint's worth of waiting for the slot's row."""
    query = "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s"
    row = live.source.execute(query, (live.databases.slot,)).fetchone()
    assert row
    return int(row[0])


def test_rows_of_one_copy_share_a_position_and_are_all_there(scene: Scene) -> None:
    """Cases 3, 4: positions in the log aren't unique, neither of rows nor of a message and its next change."""
    one_table(scene, "id int primary key, v text")
    with scene.live.source.transaction():
        scene.run(WHO.format("copier"))
        with scene.live.source.cursor().copy("copy t from stdin") as copy:
            for number in range(500):
                copy.write_row((number, "same"))
    rows = scene.trail("record_id, user_id, seq, commit_lsn")
    assert [(row[0], row[1], row[2]) for row in rows] == [(str(n), "copier", n + 1) for n in range(500)]
    assert len({row[3] for row in rows}) == 1
    scene.check()


def test_truncate_is_one_row_a_table_in_its_place(scene: Scene) -> None:
    """Cases 5, 6, 7: several tables, CASCADE, roots and leaves, RESTART IDENTITY, between inserts."""
    scene.run("create table a (id int generated always as identity primary key)")
    scene.run("create table b (id int primary key references a); create table c (id int primary key)")
    scene.run("create table p (id int primary key) partition by range (id)")
    scene.run("create table p1 partition of p for values from (0) to (10)")
    scene.run("create table p2 partition of p for values from (10) to (20)")
    scene.run("insert into c values (1); truncate a, c restart identity cascade; insert into c values (2)")
    scene.run("truncate p; truncate p2")
    assert scene.trail("action, table_name, partition_name, new_data is null and old_data is null") == [
        ("INSERT", "c", None, False),
        ("TRUNCATE", "a", None, True),
        ("TRUNCATE", "c", None, True),
        ("TRUNCATE", "b", None, True),
        ("INSERT", "c", None, False),
        ("TRUNCATE", "p", None, True),
        ("TRUNCATE", "p", "p1", True),
        ("TRUNCATE", "p", "p2", True),
        ("TRUNCATE", "p", "p2", True),
    ]


def test_what_is_rolled_back_is_not_there_but_an_event_outside_of_the_transaction_is(scene: Scene) -> None:
    """Cases 8, 68: a non-transactional message comes at once, and is nobody's context."""
    one_table(scene, "id int primary key")
    scene.run(f"begin; {WHO.format('ghost')}; insert into t values (1); rollback")
    scene.run(
        """begin; select pg_logical_emit_message(false, 'cdc_audit.context', '{"user_id":"nobody"}');"""
        f"""select cdc_audit.log_event('EXPORT', '{scene.schema}.t', '7', null, false); insert into t values (2); rollback"""
    )
    scene.run("insert into t values (3)")
    assert scene.trail("action, record_id, user_id") == [("EXPORT", "7", None), ("INSERT", "3", None)]


def test_what_a_savepoint_undoes_is_gone_and_the_rest_has_the_transactions_id(scene: Scene) -> None:
    """Cases 9, 10: ROLLBACK TO, RELEASE, and PL/pgSQL's exception blocks."""
    one_table(scene, "id int primary key, v text")
    scene.run(
        f"""
        begin; {WHO.format("outer")}; insert into t values (1, 'kept');
        savepoint s; {WHO.format("inner")}; insert into t values (2, 'undone'); rollback to s;
        savepoint s; insert into t values (3, 'released'); release s;
        do $$ begin
            insert into t values (4, 'tried');
            begin insert into t values (5, 'undone'), (1, 'twice'); exception when unique_violation then null; end;
        end $$;
        insert into oracle.claim (claimed_user, trust) values ('{scene.schema}', '');
        commit
        """
    )
    (xid,) = scene.live.source.execute(
        "select xid from oracle.claim where claimed_user = %s", (scene.schema,)
    ).fetchone() or (0,)
    assert scene.trail("record_id, user_id, xid") == [(key, "outer", xid) for key in "134"]
    scene.check()


def test_a_prepared_transaction_comes_with_its_second_commit_or_not_at_all(scene: Scene) -> None:
    """Case 11: nothing at PREPARE, all at COMMIT PREPARED, nothing after ROLLBACK PREPARED."""
    one_table(scene, "id int primary key")
    scene.run(
        f"begin; {WHO.format('first')}; insert into t values (1); prepare transaction '{scene.schema}_1'"
    )
    scene.run(f"begin; insert into t values (2); prepare transaction '{scene.schema}_2'")
    scene.run("insert into t values (3)")
    assert scene.trail(WHAT) == [("INSERT", "3")]
    scene.run(f"commit prepared '{scene.schema}_1'")
    scene.run(f"rollback prepared '{scene.schema}_2'")
    assert scene.trail("action, record_id, user_id") == [("INSERT", "3", None), ("INSERT", "1", "first")]
    moments = scene.trail("created_at")
    assert moments[0] < moments[1]


def test_transactions_stand_in_the_order_of_their_commits(scene: Scene) -> None:
    """Case 12: the one that began first and committed last is last."""
    one_table(scene, "id int primary key")
    with psycopg.connect(scene.live.databases.source_dsn) as slow:
        slow.execute(f"insert into {scene.schema}.t values (1)")
        scene.run("insert into t values (2)")
        slow.commit()
    assert scene.trail("record_id") == [("2",), ("1",)]
    assert scene.trail("commit_lsn") == sorted(scene.trail("commit_lsn"))


# Identity and keys


def test_an_update_under_the_default_identity_knows_the_key_only(scene: Scene) -> None:
    """Cases 21, 22: the old key where it changed, and then it is the record's id."""
    one_table(scene, "id int primary key, v text", identity="default")
    scene.run("insert into t values (1, 'a')")
    scene.run("update t set v = 'b'; update t set id = 2; delete from t")
    assert scene.trail("action, record_id, capture, old_data, new_data, changed_fields") == [
        ("INSERT", "1", "full", None, {"id": 1, "v": "a"}, None),
        ("UPDATE", "1", "partial", {"id": 1}, {"id": 1, "v": "b"}, None),
        ("UPDATE", "1", "partial", {"id": 1}, {"id": 2, "v": "b"}, None),
        ("DELETE", "2", "partial", {"id": 2}, None, None),
    ]


def test_a_full_identity_gives_whole_old_rows_and_the_key(scene: Scene) -> None:
    """Cases 23, 34: nulls included; an update that changes nothing names no field."""
    one_table(scene, "id int primary key, v text, w int")
    scene.run("insert into t values (1, null, null); update t set v = v; update t set w = 5; delete from t")
    assert scene.trail("action, record_id, capture, changed_fields") == [
        ("INSERT", "1", "full", None),
        ("UPDATE", "1", "full", []),
        ("UPDATE", "1", "full", ["w"]),
        ("DELETE", "1", "full", None),
    ]
    scene.check()


def test_an_index_as_identity_names_the_record_where_there_is_no_key(scene: Scene) -> None:
    """Case 24."""
    scene.run("create table t (a int not null, b text not null, c int); create unique index i on t (b, a)")
    scene.run("alter table t replica identity using index i")
    scene.run("insert into t values (1, 'x', 1); update t set c = 2; delete from t")
    assert scene.trail("action, record_id, old_data, capture") == [
        ("INSERT", None, None, "full"),
        ("UPDATE", '["1", "x"]', {"a": 1, "b": "x"}, "partial"),
        ("DELETE", '["1", "x"]', {"a": 1, "b": "x"}, "partial"),
    ]


@pytest.mark.parametrize(
    "table",
    [
        "t (id int)",
        "t (id int primary key); alter table t replica identity nothing",
        "t (id int primary key deferrable initially deferred)",
    ],
    ids=["no key", "identity nothing", "deferrable key"],
)
def test_changes_without_a_usable_identity_are_suppressed_rows(scene: Scene, table: str) -> None:
    """Case 25: the plugin sends no row; that it happened is known."""
    scene.run(f"create table {table}")
    scene.run("insert into t values (1); update t set id = 2; delete from t")
    assert scene.trail("action, capture, old_data, new_data ->> 'id'") == [
        ("INSERT", "full", None, "1"),
        ("UPDATE", "suppressed", None, None),
        ("DELETE", "suppressed", None, None),
    ]


def test_an_identity_that_changes_in_mid_transaction_counts_from_its_place(scene: Scene) -> None:
    """Case 26: default, full, nothing, and back, within one transaction and between two."""
    one_table(scene, "id int primary key, v text", identity="default")
    scene.run("insert into t values (1, 'a')")
    scene.run(
        """
        update t set v = 'b'; alter table t replica identity full; update t set v = 'c';
        alter table t replica identity nothing; update t set v = 'd';
        alter table t replica identity default; update t set v = 'e'
        """
    )
    scene.run("alter table t replica identity full")
    scene.run("update t set v = 'f'")
    assert scene.trail("capture, old_data ->> 'v', new_data ->> 'v'") == [
        ("full", None, "a"),
        ("partial", None, "b"),
        ("full", "b", "c"),
        ("suppressed", None, None),
        ("partial", None, "e"),
        ("full", "e", "f"),
    ]


def test_a_key_that_is_dropped_leaves_full_rows_without_record_id_then_none(scene: Scene) -> None:
    """Case 27."""
    one_table(scene, "id int primary key, v text")
    scene.run("insert into t values (1, 'a'); alter table t drop constraint t_pkey; update t set v = 'b'")
    scene.run("alter table t replica identity default; update t set v = 'c'")
    rows = scene.trail("action, record_id, capture")
    assert rows[0] == ("INSERT", "1", "full")
    assert rows[1][2] == "full"
    assert rows[2] == ("UPDATE", None, "suppressed")


def test_a_renamed_key_column_has_its_old_name_before_and_its_new_one_after(scene: Scene) -> None:
    """Case 29: also within one transaction."""
    one_table(scene, "id int primary key, v text")
    scene.run(
        "insert into t values (1, 'a'); alter table t rename id to key; update t set v = 'b';"
        "alter table t rename key to k2"
    )
    scene.run("update t set v = 'c'")
    assert scene.trail("record_id, new_data") == [
        ("1", {"id": 1, "v": "a"}),
        ("1", {"key": 1, "v": "b"}),
        ("1", {"k2": 1, "v": "c"}),
    ]


def test_a_composite_key_is_an_unambiguous_array_in_column_order(scene: Scene) -> None:
    """Case 30."""
    one_table(scene, "a text, b int, c text, primary key (c, a, b)")
    scene.run("""insert into t values ('x|y', 1, 'z'), ('x', 2, 'y","z'), ('', 3, '[]')""")
    assert scene.trail("record_id") == [
        ('["x|y", "1", "z"]',),
        ('["x", "2", "y\\",\\"z"]',),
        ('["", "3", "[]"]',),
    ]


def test_keys_of_20_kb_are_stored_and_found(scene: Scene) -> None:
    """Case 31: longer than a btree takes in the audit database; also in a composite key."""
    one_table(scene, "id text, n int, v text")
    scene.run("alter table t alter id set storage external")
    # A primary key of this length compresses below the source's own bound.
    scene.run("alter table t alter id set storage extended, add primary key (id, n)")
    scene.run("insert into t values (repeat('k', 20000), 1, 'a'); update t set v = 'b'; delete from t")
    key = json.dumps(["k" * 20000, "1"])
    assert scene.trail("record_id, capture") == [(key, "full")] * 3
    found = scene.live.audit.execute(
        "select count(*) from audit.audit_logs where record_id = %s", (key,)
    ).fetchone()
    assert found == (3,)
    scene.check()


# Statements


def test_what_a_foreign_key_cascades_to_follows_under_the_same_context(scene: Scene) -> None:
    """Case 32: deletes, and changed keys."""
    one_table(scene, "code text primary key", table="parent")
    one_table(
        scene,
        "id int primary key, code text references parent on delete cascade on update cascade",
        table="child",
    )
    scene.run("insert into parent values ('a'), ('b'); insert into child values (1, 'a'), (2, 'a'), (3, 'b')")
    scene.run(
        f"begin; {WHO.format('u')}; update parent set code = 'c' where code = 'a'; delete from parent; commit"
    )
    rows = scene.trail("action, table_name, record_id, user_id")[5:]
    assert [row[:3] for row in rows] == [
        ("UPDATE", "parent", "a"), ("UPDATE", "child", "1"), ("UPDATE", "child", "2"),
        ("DELETE", "parent", "b"), ("DELETE", "parent", "c"),
        ("DELETE", "child", "3"), ("DELETE", "child", "1"), ("DELETE", "child", "2"),
    ]  # fmt: skip
    assert {row[3] for row in rows} == {"u"}
    scene.check()


def test_upserts_and_merge_are_what_they_did(scene: Scene) -> None:
    """Case 33: DO UPDATE is an update, DO NOTHING is nothing."""
    one_table(scene, "id int primary key, v text")
    scene.run("insert into t values (1, 'a'), (2, 'b')")
    upsert = "insert into t values (1, 'x'), (3, 'y') on conflict (id) do"
    scene.run(f"{upsert} nothing; {upsert} update set v = excluded.v")
    actions = ["INSERT"] * 3 + ["UPDATE"] * 2
    if scene.live.source.info.server_version >= 150000:
        scene.run(
            "merge into t using (values (1, 'm'), (2, null), (9, 'n')) s (id, v) on t.id = s.id"
            " when matched and s.v is null then delete when matched then update set v = s.v"
            " when not matched then insert values (s.id, s.v)"
        )
        actions += ["UPDATE", "DELETE", "INSERT"]
    assert [row[0] for row in scene.trail("action")] == actions
    scene.check()


def test_a_table_made_of_a_query_is_full_of_inserts(scene: Scene) -> None:
    """Case 78: CREATE TABLE AS, SELECT INTO."""
    scene.run("create table t as select g as id, 'v' || g as v from generate_series(1, 3) g")
    scene.run("select * into t2 from t where id = 1")
    assert scene.trail("table_name, new_data ->> 'v', record_id, capture") == [
        ("t", "v1", None, "full"), ("t", "v2", None, "full"), ("t", "v3", None, "full"), ("t2", "v1", None, "full"),
    ]  # fmt: skip


def test_generated_and_identity_columns_are_values_like_others(scene: Scene) -> None:
    """Case 66: stored ones."""
    one_table(
        scene,
        "id int generated by default as identity primary key, a int, b int generated always as (a * 2) stored",
    )
    scene.run("insert into t (a) values (4); update t set a = 5; delete from t")
    scene.check()


def test_virtual_generated_columns_do_not_harm_the_others(scene: Scene) -> None:
    """Case 66: PostgreSQL 18; they aren't stored, so a plugin sees no value."""
    if scene.live.source.info.server_version < 180000:
        pytest.skip("virtual generated columns need PostgreSQL 18")
    scene.run("create table t (id int primary key, a int, b int generated always as (a * 2) virtual)")
    scene.run("insert into t (id, a) values (1, 4)")
    assert scene.trail("record_id, new_data ->> 'a', new_data ->> 'b'") == [("1", "4", None)]


# Partitions


def test_a_row_that_moves_is_deleted_in_one_leaf_and_inserted_in_another(scene: Scene) -> None:
    """Cases 35, 79: leaves are named beside their root; new partitions and partitions of partitions too."""
    scene.run("create table p (r text, id int, v text, primary key (r, id)) partition by list (r)")
    scene.run("create table a partition of p for values in ('a'); alter table a replica identity full")
    scene.run("create table b partition of p for values in ('b') partition by range (id)")
    scene.run(
        "create table b1 partition of b for values from (0) to (9); alter table b1 replica identity full"
    )
    scene.watch("p")
    scene.run("insert into p values ('a', 1, 'x'); update p set v = 'y'; update p set r = 'b'")
    scene.run(
        "create table b2 partition of b for values from (9) to (99); alter table b2 replica identity full"
    )
    scene.run("update p set id = 10; delete from p")
    assert scene.trail("action, table_name, partition_name, record_id") == [
        ("INSERT", "p", "a", '["a", "1"]'),
        ("UPDATE", "p", "a", '["a", "1"]'),
        ("DELETE", "p", "a", '["a", "1"]'),
        ("INSERT", "p", "b1", '["b", "1"]'),
        ("DELETE", "p", "b1", '["b", "1"]'),
        ("INSERT", "p", "b2", '["b", "10"]'),
        ("DELETE", "p", "b2", '["b", "10"]'),
    ]
    scene.check()


def test_a_partition_may_have_its_columns_in_another_order(scene: Scene) -> None:
    """Case 79."""
    scene.run("create table p (id int primary key, v text, gone int) partition by range (id)")
    scene.run(
        "create table other (v text, dropped int, id int not null, gone int); alter table other drop dropped"
    )
    scene.run("alter table p attach partition other for values from (0) to (9); alter table p drop gone")
    scene.run("alter table other replica identity full")
    scene.watch("p")
    scene.run("insert into p values (1, 'a'); update p set v = 'b'")
    assert scene.trail("table_name, partition_name, record_id") == [("p", "other", "1")] * 2
    scene.check()


def test_a_table_that_is_attached_or_detached_is_named_accordingly(scene: Scene) -> None:
    """Case 79: the next second at the latest."""
    scene.run(
        "create table p (id int primary key) partition by range (id); create table t (id int primary key)"
    )
    scene.run("insert into t values (1)")
    scene.live.settle()
    assert scene.trail("table_name, partition_name") == [("t", None)]
    scene.run("alter table p attach partition t for values from (0) to (9)")
    scene.live.next_second()
    scene.run("insert into p values (2)")
    assert scene.trail("table_name, partition_name")[-1] == ("p", "t")
    scene.run("alter table p detach partition t")
    scene.live.next_second()
    scene.run("insert into t values (3)")
    assert scene.trail("table_name, partition_name")[-1] == ("t", None)


# Columns that come and go


def test_columns_may_come_go_and_change_in_the_transaction_that_changes_rows(scene: Scene) -> None:
    """Cases 41, 42, 43: added with and without default, dropped, renamed, retyped; rewrites are no changes of rows."""
    one_table(scene, "id int primary key, a text, n int, z text")
    scene.run("insert into t values (1, 'a', 5, 'z')")
    scene.run(
        """
        update t set a = 'b';
        alter table t add column d text default 'dflt'; update t set a = 'c';
        alter table t add column e int[]; update t set e = '{1,2}';
        alter table t drop column a; update t set d = 'e';
        alter table t rename d to "D d"; update t set n = 6;
        alter table t alter n type text using 'x' || n; update t set z = 'y';
        alter table t alter e type text using e::text; update t set e = 'f'
        """
    )
    scene.run("alter table t add column f numeric not null default 1.50; alter table t drop column z")
    scene.run("update t set f = 2.50; delete from t")
    changes = scene.check()
    assert len(changes) == 10
    assert {capture for (capture,) in scene.trail("capture")} == {"full"}


def test_rewrites_of_a_table_are_no_changes_of_rows(scene: Scene) -> None:
    """Case 43: new types, volatile defaults, CLUSTER, VACUUM FULL, SET LOGGED."""
    one_table(scene, "id int primary key, v text")
    scene.run("insert into t values (1, 'a')")
    scene.run("alter table t alter v type varchar(9) using 'x'; alter table t add r float8 default random()")
    scene.run("cluster t using t_pkey")
    scene.run("vacuum full t")
    scene.run("alter table t set unlogged; alter table t set logged")
    scene.run("update t set v = 'b'")
    assert [row[0] for row in scene.trail("action")] == ["INSERT", "UPDATE"]
    scene.check()


def test_events_keep_the_names_that_tables_had(scene: Scene) -> None:
    """Case 80: renamed, moved to another schema, dropped and made anew."""
    other = f"{scene.schema}_other"
    scene.run(f"create schema {other}; create table t (id int primary key, v text)")
    scene.run("insert into t values (1, 'a'); alter table t rename to u; insert into u values (2, 'b')")
    scene.run(f"alter table u set schema {other}; insert into {other}.u values (3, 'c')")
    scene.run(
        f"drop table {other}.u; create table t (v int, id text primary key); insert into t values (4, 'd')"
    )
    assert scene.trail("table_name, new_data") == [
        ("t", {"id": 1, "v": "a"}),
        ("u", {"id": 2, "v": "b"}),
        ("t", {"id": "d", "v": 4}),
    ]
    assert scene.trail("table_name, record_id", of=other) == [("u", "3")]


def test_a_type_is_known_as_it_is_after_ddl_of_its_own_transaction(scene: Scene) -> None:
    scene.run("create type pair as (a int, b text); create type mood as enum ('ok')")
    one_table(scene, "id int primary key, p pair, m mood")
    scene.run("insert into t values (1, row(1, 'x'), 'ok')")
    scene.live.settle()
    scene.run("alter type pair add attribute c bool; alter type mood add value 'new'")
    scene.run("insert into t values (2, row(1, 'x', true), 'new')")
    scene.live.settle()
    scene.run("alter type pair drop attribute b; alter type mood rename value 'ok' to 'fine'")
    scene.run("update t set m = 'fine'")
    scene.live.settle()
    scene.run("alter type pair rename attribute c to d")
    scene.run("update t set id = id + 5")
    scene.live.settle()
    scene.run("alter type pair drop attribute a; alter type pair add attribute e int")
    scene.run("delete from t")
    scene.check()


# TOAST


@pytest.mark.parametrize("identity", ["full", "default", "using index", "nothing"])
def test_a_long_value_that_stays_is_copied_or_absent_and_named_never_null(
    scene: Scene, identity: str
) -> None:
    """Cases 37, 38, 39: unchanged, changed, set to null."""
    scene.run("create table t (id int primary key, k text not null, body text, n int)")
    scene.run("create unique index i on t (k); alter table t alter body set storage external")
    scene.run(f"alter table t replica identity {identity}{' i' if identity == 'using index' else ''}")
    scene.watch("t")
    scene.run("insert into t values (1, 'k', repeat('x', 9000), 1)")
    scene.run("update t set n = 2; update t set body = repeat('y', 9000); update t set body = null")
    rows = scene.trail("new_data ? 'body', length(new_data ->> 'body'), unchanged_toast, capture")
    assert rows[0] == (True, 9000, None, "full")
    if identity == "full":
        assert rows[1:] == [
            (True, 9000, None, "full"),
            (True, 9000, None, "full"),
            (True, None, None, "full"),
        ]
        scene.check()
    elif identity == "nothing":
        assert [row[3] for row in rows[1:]] == ["suppressed"] * 3
    else:
        assert rows[1:] == [
            (False, None, ["body"], "partial"), (True, 9000, None, "partial"), (True, None, None, "partial"),
        ]  # fmt: skip


def test_a_long_value_in_the_key_is_in_the_old_image(scene: Scene) -> None:
    """Case 40: older minors left it out."""
    scene.run("create table t (id text primary key, n int); alter table t alter id set storage external")
    scene.run("alter table t replica identity default")
    scene.run("insert into t values (repeat('k', 2500), 1); update t set n = 2; delete from t")
    assert scene.trail("length(record_id), coalesce(length(old_data ->> 'id'), 0)") == [
        (2500, 0),
        (2500, 2500),
        (2500, 2500),
    ]


# Names and kinds


def test_names_may_hold_any_character(live: Live) -> None:
    """Cases 60, 61, 62, 63: in schemas, tables, columns, types and their defaults."""
    odd = "Odd. \"x\", 'y' \\ %s\n\t[é日]{}:;*"
    scene = live.scene(odd)
    name = '"' + odd.replace('"', '""') + '"'
    mood = name[:-1] + 'T"'
    scene.run(f"create type {mood} as enum ('é\"', 'b')")
    one_table(
        scene,
        f'{name} int generated by default as identity primary key, "value" {mood} default \'é"\', "name" text,'
        ' "%(x)s" text default \'say "x"\'',
        table=name,
    )
    scene.run(f"insert into {name} default values; update {name} set \"name\" = 'n'; delete from {name}")
    rows = scene.trail("table_name, record_id, changed_fields")
    assert rows == [(odd, "1", None), (odd, "1", ["name"]), (odd, "1", None)]
    scene.check()


def test_tables_without_columns_have_empty_rows(scene: Scene) -> None:
    """Case 65."""
    one_table(scene, "")
    scene.run("insert into t default values; delete from t")
    rows = scene.trail("action, record_id, old_data, new_data")
    assert rows[0] == ("INSERT", None, None, {})
    assert len(rows) == 2


def test_what_is_no_table_of_the_applications_gives_no_rows(scene: Scene) -> None:
    """Cases 76, 77: unlogged, temporary and foreign tables, sequences, large objects, materialized views."""
    scene.run("create unlogged table u (id int); create temp table tmp (id int); create sequence s")
    scene.run("insert into u values (1); insert into tmp values (1); select nextval('s')")
    scene.run("select lo_unlink(lo_from_bytea(0, 'x'))")
    one_table(scene, "id int primary key")
    scene.run(
        "insert into t values (1); create materialized view m as select * from t; create unique index on m (id)"
    )
    scene.run("insert into t values (2); refresh materialized view m")
    scene.run("insert into t values (3)")
    scene.run("refresh materialized view concurrently m")
    scene.run("delete from t where id = 1")
    scene.run("refresh materialized view concurrently m")
    assert {row[0] for row in scene.trail("table_name")} == {"t"}
    scene.check()


# Messages


def test_contexts_count_from_their_place_and_rows_before_the_first_take_it(scene: Scene) -> None:
    """Cases 69, 71."""
    one_table(scene, "id int primary key")
    scene.run(
        f"begin; insert into t values (1); {WHO.format('a')}; insert into t values (2);"
        f"{WHO.format('b')}; insert into t values (3); commit"
    )
    scene.run("insert into t values (4)")
    assert scene.trail("record_id, user_id, context_trust") == [
        ("1", "a", "asserted"), ("2", "a", "asserted"), ("3", "b", "asserted"), ("4", None, "none"),
    ]  # fmt: skip


def test_a_context_without_changes_leaves_nothing_behind(scene: Scene) -> None:
    """Case 70: the next transaction has nothing of it."""
    one_table(scene, "id int primary key")
    scene.run(WHO.format("lonely"))
    scene.run("insert into t values (1)")
    assert scene.trail("record_id, user_id") == [("1", None)]


@pytest.mark.parametrize(
    "content",
    ["''", "'not json'", "'[1]'", "'null'", "repeat('[', 100000)", "repeat('x', 2000000)", r"'\x7b22e922'::bytea",
     r"'\x00'::bytea", r"""'{"user_id":"\u0000"}'""", """'{"user_id":"a","user_id":"b"}'"""],
    ids=["empty", "text", "array", "null", "deep", "2 MB", "not utf-8", "NUL", "escaped NUL", "twice"],
)  # fmt: skip
def test_a_malformed_context_is_invalid_and_its_rows_are_there(scene: Scene, content: str) -> None:
    """Cases 45, 72, 73, 75."""
    one_table(scene, "id int primary key")
    scene.run(
        f"begin; select pg_logical_emit_message(true, 'cdc_audit.context', {content}); insert into t values (1); commit"
    )
    rows = scene.trail("record_id, context_trust, user_id, length(context ->> 'raw') <= 1024")
    assert rows == [("1", "invalid", None, True)]


def test_only_messages_of_our_exact_names_are_ours(scene: Scene) -> None:
    """Cases 73, 74."""
    one_table(scene, "id int primary key")
    names = ("cdc_audit", "cdc_audit.context2", "CDC_AUDIT.CONTEXT", "", "xcdc_audit.context", "audit")
    statements = [
        f"""select pg_logical_emit_message(true, '{name}', '{{"user_id":"x"}}')""" for name in names
    ]
    scene.run("begin; " + "; ".join(statements) + "; insert into t values (1); commit")
    assert scene.trail("record_id, context_trust") == [("1", "none")]


# Encodings


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_of_another_encoding_is_stored_as_utf_8(
    encoding: str, source_cluster: Server, audit_cluster: Server, tmp_path: Path
) -> None:
    """Case 64: the stream is in the server's encoding; SQL_ASCII's bytes are UTF-8 where they can be, else LATIN1."""
    databases = new_databases(source_cluster, audit_cluster)
    source_cluster.execute(f"drop database {databases.source_name}")
    source_cluster.execute(
        f"create database {databases.source_name} template template0 encoding '{encoding}' locale 'C'"
    )
    word = "日本語" if encoding == "EUC_JP" else "é"
    client = {"SQL_ASCII": "utf8"}.get(encoding, encoding)
    try:
        with running(databases, tmp_path / "log") as live:
            live.source.execute(f"set client_encoding = {client}" if encoding == "SQL_ASCII" else "select 1")
            scene = live.scene()
            one_table(scene, f'id int primary key, "{word}" text, j jsonb', table=f'"t{word}"')
            scene.run(WHO.format(word))
            scene.run(
                f"begin; {WHO.format(word)}; insert into \"t{word}\" values (1, 'a{word}', '{{\"{word}\":1}}'); commit"
            )
            if encoding == "SQL_ASCII":
                scene.run(f"""insert into "t{word}" values (2, e'{word}\\xe9', null)""")
            scene.run(f"""update "t{word}" set "{word}" = '{word}{word}' where id = 1""")
            rows = scene.trail("table_name, user_id, new_data")
            images = [row[2] for row in rows]
            assert {row[0] for row in rows} == {f"t{word}"}
            assert rows[0][1] == word
            assert images[0] == {"id": 1, word: f"a{word}", "j": {word: 1}}
            assert images[-1][word] == word + word
            scene.run(
                f'create table "l{word}" (id int); insert into "l{word}" values (1); update "l{word}" set id = 2'
            )
            assert scene.trail("table_name, capture")[-2:] == [
                (f"l{word}", "full"),
                (f"l{word}", "suppressed"),
            ]
            if encoding == "SQL_ASCII":
                assert images[1][word] == word + "é"
            check_proof(databases.audit_dsn)
    finally:
        databases.drop()
