"""Changing what is written is refused by triggers, also to those whom no privilege stops."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb

from cdc_audit.schema.migrate import migrate
from tests.integration.schema.rows import insert

# Of tgtype: 8 delete, 16 update, 32 truncate.
STATE = """
    select c.relname::text, t.tgname::text, t.tgenabled::text, t.tgtype & 56
      from pg_trigger t join pg_class c on c.oid = t.tgrelid
     where c.relnamespace = 'audit'::regnamespace order by 1, 2
"""
TABLES = """
    select relname::text from pg_class
     where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p')
       and relname not in ('schema_version', 'digests')
"""


def guarded(connection: Connection) -> set[str]:
    """The tables on which all triggers are there and enabled always; fails on any other trigger."""
    found: dict[str, set[tuple[str, int]]] = {}
    for table, trigger, enabled, events in connection.execute(STATE):
        assert enabled == "A", (table, trigger)
        found.setdefault(table, set()).add((trigger, events))
    erasable = {("refuse_change", 8), ("only_erase", 16), ("refuse_truncate", 32)}
    wanted = {"personal_values": erasable}
    plain = {("refuse_change", 24), ("refuse_truncate", 32)}
    return {table for table, triggers in found.items() if triggers == wanted.get(table, plain)}


def all_tables(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute(TABLES)}


def test_both_triggers_are_enabled_always_on_root_ledger_and_every_partition(audit: Connection) -> None:
    assert guarded(audit) == all_tables(audit)
    assert audit.execute("select audit.ensure_partition('2021-05-17')").fetchone() == (True,)
    assert "audit_logs_2021_05" in guarded(audit)
    assert guarded(audit) == all_tables(audit)


@pytest.mark.parametrize("replication_role", ["origin", "replica", "local"])
@pytest.mark.parametrize("month", ["2021-05", "2019-01"])
def test_a_superuser_is_refused_whatever_the_replication_role(
    audit: Connection, replication_role: str, month: str
) -> None:
    audit.execute("select audit.ensure_partition('2021-05-01')")
    insert(audit, created_at=f"{month}-03 00:00:00+00")
    insert(audit, "ledger")
    audit.execute("insert into audit.personal_values values (1, 'context', 'f', '\\x00', '\\x01', 'x')")
    leaf = "audit_logs_2021_05" if month == "2021-05" else "audit_logs_default"
    audit.execute(f"set session_replication_role = {replication_role}".encode())
    audit.execute("select audit.record_read('log', '{}', 1)")
    for table in ("audit_logs", leaf, "ledger", "personal_values", "reads"):
        column = {"ledger": "kind", "personal_values": "field", "reads": "command"}.get(table, "action")
        for statement in (
            f"update audit.{table} set {column} = 'x'",
            f"delete from audit.{table}",
            f"truncate audit.{table}",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="can only be added to"):
                audit.execute(statement.encode())
    assert audit.execute("select count(*), min(action) from audit.audit_logs").fetchone() == (1, "UPDATE")
    assert audit.execute("select count(*), min(kind) from audit.ledger").fetchone() == (1, "genesis")


def test_the_refusal_quotes_no_value(audit: Connection) -> None:
    insert(audit, record_id="canary-7f3a")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        audit.execute("delete from audit.audit_logs")
    assert "canary" not in str(caught.value) + str(caught.value.diag.message_detail)


def test_an_insert_that_would_overwrite_is_refused(audit: Connection) -> None:
    insert(audit, "ledger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        audit.execute(
            "insert into audit.ledger select * from audit.ledger"
            " on conflict (block) do update set kind = excluded.kind"
        )


def test_triggers_that_were_switched_off_or_dropped_are_restored_by_the_next_migration(
    audit: Connection,
) -> None:
    audit.execute("select audit.ensure_partition('2021-05-01')")
    audit.execute("alter table audit.audit_logs disable trigger all")
    audit.execute("alter table audit.audit_logs_2021_05 enable replica trigger refuse_change")
    audit.execute(
        "drop trigger refuse_truncate on audit.audit_logs_2021_05; drop trigger refuse_change on audit.ledger"
    )
    migrate(audit, "audit", None)
    assert guarded(audit) == all_tables(audit)
    audit.execute("drop trigger refuse_change on audit.audit_logs")
    migrate(audit, "audit", None)
    assert guarded(audit) == all_tables(audit)


def open_rows(connection: Connection) -> list[tuple[int, str]]:
    return connection.execute(
        "select id, part from audit.personal_values where salt is not null and value is not null order by 1, 2"
    ).fetchall()


@pytest.fixture
def openings(audit: Connection) -> Connection:
    """Two rows with three openings each."""
    insert(audit, "ledger")
    audit.execute(
        "insert into audit.personal_values select id, part, 'f', '\\x00', '\\x01', '\"v\"'"
        " from generate_series(1, 2) as id, unnest(array['context', 'new_data', 'old_data']) as part"
    )
    return audit


def erasure(detail: str) -> dict[str, Any]:
    return {"block": 1, "kind": "erasure", "first_id": 3, "detail": detail}


ERASE = "select audit.erase(jsonb_populate_record(l, %s)) from audit.ledger as l where block = 0"


def erase(connection: Connection, detail: str, **more: object) -> None:
    connection.execute(ERASE, (Jsonb({**erasure(""), "detail": json.loads(detail), **more}),))


def test_an_erasure_takes_exactly_what_its_block_names(openings: Connection) -> None:
    openings.execute("set role audit_owner")
    erase(openings, '{"ids": [[2, 2]], "parts": ["new_data", "old_data"], "values": 2}')
    openings.execute("reset role")
    assert open_rows(openings) == [(1, "context"), (1, "new_data"), (1, "old_data"), (2, "context")]
    assert openings.execute("select kind, block from audit.ledger order by 2").fetchall()[1:] == [
        ("erasure", 1)
    ]
    assert openings.execute(
        "select count(*) from audit.personal_values where commitment = '\\x00'"
    ).fetchone() == (6,)


@pytest.mark.parametrize(
    ("detail", "more"),
    [
        ('{"ids": [[2, 2]], "parts": ["context"], "values": 2}', {}),  # another number than is there
        ('{"ids": [[2, 2]], "parts": ["context"]}', {}),
        ("{}", {}),
        ('{"ids": [[2, 2]], "parts": ["context"], "values": 1}', {"kind": "data"}),
        ('{"ids": [[2, 2]], "parts": ["context"], "values": 1}', {"row_count": 1}),
    ],
)
def test_an_erasure_that_is_not_what_it_says_changes_nothing(
    openings: Connection, detail: str, more: dict[str, object]
) -> None:
    with pytest.raises(psycopg.Error):
        erase(openings, detail, **more)
    assert len(open_rows(openings)) == 6
    assert openings.execute("select count(*) from audit.ledger").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    [
        "update audit.personal_values set salt = null, value = null",
        "update audit.personal_values set salt = null, value = null where id = 2",
        "update audit.personal_values set value = null where id = 1 and part = 'context'",
        "update audit.personal_values set value = 'other' where id = 1 and part = 'context'",
        "update audit.personal_values set salt = null, value = null, commitment = '\\x05' where id = 1 and part = 'context'",
        "update audit.personal_values set id = 9, salt = null, value = null where id = 1 and part = 'context'",
        (
            "insert into audit.personal_values values (1, 'context', 'f', '\\x00', null, null)"
            " on conflict (id, part, field) do update set value = 'x'"
        ),
    ],
)
@pytest.mark.parametrize("replication_role", ["origin", "replica"])
def test_no_update_but_the_newest_erasures_is_possible(
    openings: Connection, replication_role: str, statement: str
) -> None:
    insert(openings, "ledger", **erasure('{"ids": [[1, 1]], "parts": ["context"], "values": 1}'))
    openings.execute(f"set session_replication_role = {replication_role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="can only be added to"):
        openings.execute(statement.encode())
    assert len(open_rows(openings)) == 6


def test_analyze_keeps_no_example_of_a_personal_value(openings: Connection) -> None:
    openings.execute("analyze audit.personal_values")
    kept = openings.execute(
        "select attname::text from pg_stats where schemaname = 'audit' and tablename = 'personal_values' order by 1"
    ).fetchall()
    assert kept == [("field",), ("id",), ("part",)]
