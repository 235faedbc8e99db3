"""The classic queries, written as they were with triggers, use an index; keys of any length are stored."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.schema.migrate import migrate
from tests.integration.schema.rows import insert
from tests.support.servers import Server

_ROWS = 120_000
_FILL = f"""
    insert into audit.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data,
                                  new_data, changed_fields, user_id, user_email, context_trust, capture, xid,
                                  commit_lsn, seq, row_hash)
    select i, '2026-11-01 00:00:00+00'::timestamptz + i * interval '15 seconds', 'public', 'table_' || i % 10,
           md5(i::text), 'UPDATE', jsonb_build_object('id', i, 'note', repeat('x', 200)),
           jsonb_build_object('id', i), array['note'], 'user_' || (hashint4(i) & 8191),
           'user_' || (hashint4(i) & 8191) || '@example.org', 'signed', 'full', 1000 + i / 3,
           '0/0'::pg_lsn + 100000 + i / 3 * 300, i % 3 + 1, '\\x00'
      from generate_series(1, {_ROWS}) as i
"""


@pytest.fixture(scope="module")
def trail(audit_cluster: Server) -> Iterator[Connection]:
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        migrate(connection, "audit", None)
        connection.execute("select audit.ensure_partition('2026-11-01')")
        connection.execute("alter table audit.audit_logs_2026_11 set (autovacuum_enabled = off)")
        connection.execute(_FILL.encode())
        connection.execute("set default_statistics_target = 1000")  # all rows are looked at: plans don't vary
        connection.execute("vacuum analyze audit.audit_logs")
        connection.execute("set search_path = audit")
        yield connection
    with postgres.connect(audit_cluster.dsn(), side="audit") as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


CLASSIC = {
    "one record's history": """
        select * from audit_logs where table_name='table_7' and record_id=md5('77777')
         order by created_at desc""",
    "the newest of one record": """
        select * from audit_logs where table_name='table_7' and record_id=md5('77777')
         order by created_at desc limit 50""",
    "one user's actions": "select * from audit_logs where user_id='user_77' order by created_at desc",
    "one user's actions by e-mail": """
        select * from audit_logs where user_email='user_77@example.org' order by created_at desc""",
    "a time range": """
        select * from audit_logs where created_at >= '2026-11-10' and created_at < '2026-11-10 06:00'""",
    "one user in a time range": """
        select * from audit_logs
         where user_id='user_77' and created_at >= '2026-11-10' and created_at < '2026-11-12'""",
    "the newest rows": "select * from audit_logs order by created_at desc limit 50",
    "one transaction by xid": "select * from audit_logs where xid = 20000 order by seq",
    "one transaction by position": """
        select * from audit_logs where commit_lsn = '0/0'::pg_lsn + 100000 + 20000 * 300 order by seq""",
    "a table without rows": "select * from audit_logs where table_name='no_such_table'",
}


@pytest.mark.parametrize("question", list(CLASSIC))
def test_a_classic_query_reads_a_part_of_the_trail_by_an_index(trail: Connection, question: str) -> None:
    plan = "\n".join(line for (line,) in trail.execute(("explain " + CLASSIC[question]).encode()))
    month = [line for line in plan.splitlines() if "audit_logs_2026_11" in line]
    assert month, plan
    assert not any("Seq Scan" in line for line in month), plan


def test_the_classic_queries_find_what_is_there(trail: Connection) -> None:
    found = [len(trail.execute(query.encode()).fetchall()) for query in CLASSIC.values()]
    assert found[0] == found[1] == 1
    assert found[2] == found[3] > 1
    assert found[4] == 6 * 60 * 4
    assert found[6] == 50
    assert found[7] == found[8] == 3
    assert found[9] == 0


def test_keys_of_20_kb_are_stored_and_told_apart_by_plain_equality(audit: Connection) -> None:
    """Case 31."""
    chooser = random.Random(7)  # incompressible
    long = "".join(chooser.choice("0123456789abcdef") for _ in range(20_000))
    for number, key in enumerate((long, long[:-1] + "x", "short"), 1):
        insert(audit, id=number, record_id=key, user_id=key, user_email=key)
    audit.execute("vacuum analyze audit.audit_logs")
    audit.execute("set enable_seqscan = off")
    for column in ("record_id", "user_id", "user_email"):
        query = sql.SQL("select id from audit.audit_logs where table_name = 'orders' and {} = %s").format(
            sql.Identifier(column)
        )
        assert audit.execute(query, (long,)).fetchall() == [(1,)]
        assert audit.execute(query, (long[:-1] + "x",)).fetchall() == [(2,)]


def test_rows_added_after_the_last_vacuum_are_found_by_the_index_too(audit: Connection) -> None:
    audit.execute("set enable_seqscan = off")
    for number in range(1, 30):
        insert(audit, id=number, record_id=f"r{number}")
    query = "select id from audit.audit_logs where table_name = 'orders' and record_id = 'r7'"
    assert audit.execute(query.encode()).fetchall() == [(7,)]
    audit.execute("vacuum audit.audit_logs")
    insert(audit, id=30, record_id="r7")
    assert audit.execute(query.encode()).fetchall() == [(7,), (30,)]


def test_no_index_of_a_month_that_is_written_has_random_keys_in_it(audit: Connection) -> None:
    audit.execute("select audit.ensure_partition('2026-11-01')")
    indexes = audit.execute(
        "select am.amname::text, pg_get_indexdef(c.oid) from pg_class c join pg_am am on am.oid = c.relam"
        " join pg_index i on i.indexrelid = c.oid"
        " where i.indrelid = 'audit.audit_logs_2026_11'::regclass order by 1, 2"
    ).fetchall()
    assert [kind for kind, _ in indexes] == ["brin", "brin", "btree", "btree"]
    assert [definition.rpartition("(")[2] for kind, definition in indexes if kind == "btree"] == [
        "created_at)",
        "id, created_at)",
    ]
