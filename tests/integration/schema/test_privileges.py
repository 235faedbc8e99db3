"""Who may do what with the trail, by role and verb."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import psycopg
import pytest
from psycopg import Connection

from cdc_audit.schema.migrate import LATEST, migrate
from tests.integration.schema.conftest import Connect
from tests.integration.schema.rows import insert

TABLES = (
    "audit_logs",
    "audit_logs_default",
    "audit_logs_2026_11",
    "digests",
    "ledger",
    "personal_values",
    "reads",
    "schema_version",
)
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
ALLOWED = {
    "audit_writer": {
        ("audit_logs", "INSERT"),
        ("ledger", "INSERT"),
        ("ledger", "SELECT"),
        ("personal_values", "INSERT"),
        ("schema_version", "SELECT"),
    },
    "audit_admin": {(table, "SELECT") for table in TABLES},
    "audit_owner": set(product(TABLES, ("SELECT", "INSERT", "REFERENCES", "TRIGGER")))
    | {("schema_version", "UPDATE"), ("schema_version", "DELETE"), ("schema_version", "TRUNCATE")}
    | {("digests", "UPDATE"), ("digests", "DELETE"), ("digests", "TRUNCATE")}  # no part of the proof
    | {("personal_values", "UPDATE")},  # of salt and value, as its trigger says
}


@pytest.fixture
def with_month(audit: Connection) -> Connection:
    audit.execute("select audit.ensure_partition('2026-11-30')")
    return audit


_HAS = """
    select has_table_privilege(%(role)s, %(table)s, %(verb)s)
           or (%(verb)s in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
               and has_any_column_privilege(%(role)s, %(table)s, %(verb)s))
"""
_GRANTED_TO_PUBLIC = """
    select relname::text from pg_class, aclexplode(relacl)
     where relnamespace = 'audit'::regnamespace and grantee = 0
     union all
    select proname::text from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
     where pronamespace = 'audit'::regnamespace and grantee = 0
     union all
    select nspname::text from pg_namespace, aclexplode(nspacl) where nspname = 'audit' and grantee = 0
"""


def has(connection: Connection, role: str, table: str, verb: str) -> bool:
    row = connection.execute(_HAS, {"role": role, "table": f"audit.{table}", "verb": verb}).fetchone()
    return row == (True,)


@pytest.mark.parametrize("role", list(ALLOWED))
def test_each_role_has_exactly_its_rights_on_each_table(with_month: Connection, role: str) -> None:
    granted = {(table, verb) for table, verb in product(TABLES, VERBS) if has(with_month, role, table, verb)}
    assert granted == ALLOWED[role]


_FUNCTIONS = (
    "select oid::regprocedure::text from pg_proc where pronamespace = 'audit'::regnamespace order by 1"
)
_MAY_EXECUTE = "select has_function_privilege(%s, %s::regprocedure, 'EXECUTE')"
_ON_SCHEMA = "select has_schema_privilege(%s, 'audit', %s)"


def test_the_matrix_of_every_role_and_verb_on_every_object(
    with_month: Connection, record_property: Callable[[str, object], None]
) -> None:
    """Printed at the end of the run: what is not named there is refused."""
    roles = (*ALLOWED, "public")
    matrix: dict[str, dict[str, list[str]]] = {}
    for table in TABLES:
        matrix[table] = {
            role: [verb for verb in VERBS if has(with_month, role, table, verb)] for role in roles
        }
        for role in roles:
            assert matrix[table][role] == [
                verb for verb in VERBS if (table, verb) in ALLOWED.get(role, set())
            ], f"{role} on {table}"
    functions = [str(name) for (name,) in with_month.execute(_FUNCTIONS).fetchall()]
    for name in functions:
        may = {role: with_month.execute(_MAY_EXECUTE, (role, name)).fetchone() == (True,) for role in roles}
        matrix[name] = {role: ["EXECUTE"] if may[role] else [] for role in roles}
        plain = name.partition("(")[0].removeprefix("audit.")
        assert may == {
            "audit_owner": True,
            "audit_writer": plain in {"ensure_partition", "build_index", "missing_indexes", "digest_rows"},
            "audit_admin": plain in {"missing_indexes", "record_read"},
            "public": False,
        }, name
    matrix["(schema)"] = {
        role: [
            verb
            for verb in ("USAGE", "CREATE")
            if with_month.execute(_ON_SCHEMA, (role, verb)).fetchone() == (True,)
        ]
        for role in roles
    }
    assert [matrix["(schema)"][role] for role in roles] == [["USAGE"], ["USAGE"], ["USAGE", "CREATE"], []]
    for name, cells in matrix.items():
        row = (name, *(" ".join(cells[role]) or "-" for role in roles))
        record_property("table", ("Rights in the audit schema", ("object", *roles), row))


def test_public_has_nothing(with_month: Connection) -> None:
    assert with_month.execute(_GRANTED_TO_PUBLIC).fetchall() == []


def test_only_the_writer_and_the_owner_can_make_partitions(with_month: Connection) -> None:
    for role, allowed in (("audit_writer", True), ("audit_owner", True), ("audit_admin", False)):
        assert with_month.execute(
            "select has_function_privilege(%s, 'audit.ensure_partition(date)', 'EXECUTE')", (role,)
        ).fetchone() == (allowed,)


def test_only_the_owner_can_erase_and_only_its_two_columns(audit: Connection) -> None:
    for role, allowed in (("audit_writer", False), ("audit_owner", True), ("audit_admin", False)):
        assert audit.execute(
            "select has_function_privilege(%s, 'audit.erase(audit.ledger)', 'EXECUTE')", (role,)
        ).fetchone() == (allowed,)
    columns = audit.execute(
        "select attname::text from pg_attribute where attrelid = 'audit.personal_values'::regclass and attnum > 0"
        " and has_column_privilege('audit_owner', attrelid, attnum, 'UPDATE') order by 1"
    ).fetchall()
    assert columns == [("salt",), ("value",)]


_POWERLESS = """
    select rolname::text, rolcanlogin, rolpassword is not null from pg_authid
     where rolname in ('audit_owner', 'audit_writer', 'audit_admin')
       and not (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls) order by 1
"""
_POWER = """
    select pg_has_role(role, 'audit_owner', 'MEMBER'), has_schema_privilege(role, 'audit', 'CREATE')
      from unnest(array['audit_writer', 'audit_admin']) as role
"""


def test_the_roles_have_no_power_beyond_their_rights(audit: Connection) -> None:
    roles = audit.execute(_POWERLESS).fetchall()
    assert roles == [
        ("audit_admin", False, False),
        ("audit_owner", False, False),
        ("audit_writer", True, False),
    ]
    assert audit.execute(_POWER).fetchall() == [(False, False)] * 2


WRITER_CAN_NOT = [
    "select count(*) from audit.audit_logs",
    "select id from audit.audit_logs_default",
    "copy audit.audit_logs to stdout",
    "insert into audit.audit_logs_default select * from audit.audit_logs_default",
    "update audit.audit_logs set action = ''",
    "delete from audit.audit_logs",
    "truncate audit.audit_logs",
    "drop table audit.audit_logs_default",
    "alter table audit.audit_logs disable trigger all",
    "update audit.ledger set kind = ''",
    "delete from audit.ledger",
    "truncate audit.ledger",
    "select value from audit.personal_values",
    "update audit.personal_values set salt = null, value = null",
    "delete from audit.personal_values",
    "truncate audit.personal_values",
    "select audit.erase(l) from audit.ledger as l",
    "select command from audit.reads",
    "select audit.record_read('log', '{}', 1)",
    "set session_replication_role = replica",
    "set role audit_owner",
    "set role audit_admin",
    "select audit.protect('audit_logs')",
    "create table audit.x (i int)",
    "insert into audit.schema_version values (9, '')",
]


_COPY = """
    copy audit.audit_logs (id, created_at, schema_name, table_name, action, context_trust, capture,
                           commit_lsn, seq, row_hash) from stdin
"""


def test_the_writer_can_add_rows_and_blocks_and_nothing_else(audit: Connection, connect: Connect) -> None:
    writer = connect("audit_writer")
    with writer.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(b"1\t2026-11-22 10:00:00+00\tpublic\torders\tINSERT\tnone\tfull\t0/1\t1\t\\\\x00\n")
    insert(writer, "ledger")
    assert writer.execute("select block from audit.ledger").fetchall() == [(0,)]
    assert writer.execute("select max(version) from audit.schema_version").fetchone() == (LATEST,)
    assert writer.execute("select pg_try_advisory_lock(1)").fetchone() == (True,)
    for statement in WRITER_CAN_NOT:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(statement.encode())
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(writer, "ledger")
    assert audit.execute("select count(*) from audit.audit_logs").fetchone() == (1,)


def test_a_member_of_audit_admin_reads_everything_and_changes_nothing(audit: Connection) -> None:
    insert(audit)
    insert(audit, "ledger")
    audit.execute("set role audit_admin")
    assert audit.execute("select id from audit.audit_logs").fetchall() == [(1,)]
    assert audit.execute("select block from audit.ledger").fetchall() == [(0,)]
    for statement in (
        "delete from audit.audit_logs",
        "truncate audit.ledger",
        "update audit.ledger set kind = ''",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            audit.execute(statement.encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        insert(audit, id=2)


def test_rights_that_were_given_away_to_public_are_taken_back_by_the_next_migration(
    audit: Connection,
) -> None:
    audit.execute("grant all on audit.audit_logs, audit.ledger to public")
    migrate(audit, "audit", None)
    assert audit.execute(
        "select has_table_privilege('audit_writer', 'audit.audit_logs', 'DELETE'),"
        " has_table_privilege('audit_writer', 'audit.ledger', 'UPDATE')"
    ).fetchone() == (False, False)
