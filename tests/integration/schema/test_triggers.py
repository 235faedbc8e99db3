"""Changing what is written is refused by triggers, also to those whom no privilege stops."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import Connection

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
     where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p') and relname <> 'schema_version'
"""


def guarded(connection: Connection) -> set[str]:
    """The tables on which both triggers are there and enabled always; fails on any other trigger."""
    found: dict[str, set[tuple[str, int]]] = {}
    for table, trigger, enabled, events in connection.execute(STATE):
        assert enabled == "A", (table, trigger)
        found.setdefault(table, set()).add((trigger, events))
    return {
        table for table, both in found.items() if both == {("refuse_change", 24), ("refuse_truncate", 32)}
    }


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
    leaf = "audit_logs_2021_05" if month == "2021-05" else "audit_logs_default"
    audit.execute(f"set session_replication_role = {replication_role}".encode())
    for table in ("audit_logs", leaf, "ledger"):
        column = "kind" if table == "ledger" else "action"
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
