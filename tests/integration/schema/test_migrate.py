"""Migrations: from nothing, again, side by side, and without being a superuser."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cdc_audit import postgres
from cdc_audit.errors import NotPermittedError, SettingError
from cdc_audit.schema import migrate as migrations
from cdc_audit.schema.migrate import LATEST, installed_version, login_of, migrate, pending
from tests.integration.schema.conftest import Connect
from tests.integration.schema.rows import insert
from tests.support.servers import Server

LOGS = (
    "id bigint!, created_at timestamp with time zone!, schema_name text!, table_name text!, record_id text, "
    "action text!, old_data jsonb, new_data jsonb, changed_fields text[], user_id text, user_email text, "
    "ip_address inet, user_agent text, context jsonb, context_trust text!, db_user text, "
    "application_name text, capture text!, unchanged_toast text[], partition_name text, xid bigint, "
    "commit_lsn pg_lsn!, seq integer!, row_hash bytea!"
)
PERSONAL = "id bigint!, part text!, field text!, commitment bytea!, salt bytea, value text"
LEDGER = (
    "block bigint!, kind text!, first_id bigint!, row_count bigint!, system_identifier text!, "
    "timeline integer!, slot text!, start_lsn pg_lsn!, end_lsn pg_lsn!, "
    "last_commit_at timestamp with time zone, written_at timestamp with time zone!, rows_root bytea!, "
    "prev_hash bytea!, detail jsonb, key_id text, block_hash bytea!, signature bytea"
)
ALL = ["0001_trail", "0002_personal", "0003_retention", "0004_reads", "0005_lookup", "0006_digests"]
_COLUMNS = """
    select string_agg(attname || ' ' || format_type(atttypid, atttypmod)
                      || case when attnotnull then '!' else '' end, ', ' order by attnum)
      from pg_attribute where attrelid = %s::regclass and attnum > 0
"""


def columns(connection: Connection, table: str) -> str:
    """The table's columns in order, ``!`` for not null."""
    row = connection.execute(_COLUMNS, (table,)).fetchone()
    assert row is not None
    return str(row[0])


def test_the_tables_have_exactly_the_columns_of_the_format_in_order(audit: Connection) -> None:
    assert columns(audit, "audit.audit_logs") == LOGS
    assert columns(audit, "audit.audit_logs_default") == LOGS
    assert columns(audit, "audit.ledger") == LEDGER
    assert columns(audit, "audit.personal_values") == PERSONAL


def test_a_second_migration_applies_nothing_and_changes_no_object(empty: Connection) -> None:
    objects = """
        select oid, relname::text, relacl::text from pg_class
         where relnamespace = 'audit'::regnamespace order by oid"""
    assert migrate(empty, "audit", None) == ALL
    before = empty.execute(objects).fetchall()
    assert migrate(empty, "audit", None) == []
    assert empty.execute(objects).fetchall() == before
    assert empty.execute("select version, name from audit.schema_version").fetchall() == list(
        enumerate(ALL, 1)
    )


def test_every_migration_file_is_applied() -> None:
    files = [entry.name for entry in resources.files("cdc_audit.schema").joinpath("migrations").iterdir()]
    assert sorted(files) == [f"{name}.sql" for name in pending(None)]
    assert [int(name[:4]) for name in pending(None)] == list(range(1, LATEST + 1))
    assert pending(LATEST) == ()


def test_the_installed_version_is_none_without_a_schema_and_the_latest_with_it(empty: Connection) -> None:
    assert installed_version(empty, "audit") is None
    migrate(empty, "audit", None)
    assert installed_version(empty, "audit") == LATEST
    assert installed_version(empty, "other") is None


def test_two_schemas_in_one_database_keep_their_rows_and_partitions_apart(audit: Connection) -> None:
    migrate(audit, "audit_shop", None)
    insert(audit, schema="audit_shop")
    assert audit.execute("select count(*) from audit.audit_logs").fetchone() == (0,)
    assert audit.execute("select count(*) from audit_shop.audit_logs").fetchone() == (1,)
    audit.execute("select audit_shop.ensure_partition('2020-01-01')")
    audit.execute("set role audit_writer")
    insert(audit, schema="audit_shop", id=2)
    audit.execute("reset role")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"DELETE of audit_shop\.audit_logs"):
        audit.execute("delete from audit_shop.audit_logs")
    assert audit.execute("select to_regclass('audit.audit_logs_2020_01')").fetchone() == (None,)


def test_version_1_with_rows_is_migrated_while_a_daemon_of_that_version_writes(
    empty: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "_MIGRATIONS", ALL[:1])
        older.setattr(migrations, "LATEST", 1)
        assert migrate(empty, "audit", None) == ALL[:1]
    insert(empty, id=1)
    insert(empty, "ledger")
    before = empty.execute("select l::text from audit.audit_logs l").fetchall()
    writer = connect("audit_writer")
    with writer.transaction():
        insert(writer, id=2)
        empty.execute("set lock_timeout = '5s'")
        assert migrate(empty, "audit", None) == ALL[1:]
        insert(writer, id=3)
        insert(writer, "ledger", block=1)
    assert empty.execute("select l::text from audit.audit_logs l where id = 1").fetchall() == before
    assert empty.execute("select count(*) from audit.audit_logs").fetchone() == (3,)
    assert columns(empty, "audit.personal_values") == PERSONAL
    assert migrate(empty, "audit", None) == []


def test_a_schema_name_that_needs_quoting_works(empty: Connection) -> None:
    name = """odd "name's {x}"""
    assert migrate(empty, name, None) == ALL
    insert(empty, schema=name)
    assert migrate(empty, name, None) == []


def test_runs_at_the_same_time_in_one_database_and_in_two_make_everything_once(
    private_cluster: Callable[..., Server],
) -> None:
    server = private_cluster("roles")
    databases = [server.create_database() for _ in range(2)] * 2

    def run(database: str) -> list[str]:
        with postgres.connect(server.dsn(database), side="audit") as connection:
            return migrate(connection, "audit", None)

    with ThreadPoolExecutor(len(databases)) as pool:
        assert sorted(pool.map(run, databases)) == [[], [], ALL, ALL]


def test_an_admin_without_superuser_can_install_and_repeat(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("admin")
    database = server.create_database()
    server.execute("create role boss login createrole")
    server.execute("create role daemon login")
    server.execute(f'grant create on database "{database}" to boss')
    with postgres.connect(server.dsn(database, "boss"), side="audit") as connection:
        assert migrate(connection, "audit", "daemon") == ALL
        assert migrate(connection, "audit", "daemon") == []
        assert connection.execute("select current_user::text").fetchone() == ("boss",)
    owners = server.execute(
        "select distinct relowner::regrole::text from pg_class where relnamespace = 'audit'::regnamespace",
        dbname=database,
    )
    assert owners == [("audit_owner",)]
    with postgres.connect(server.dsn(database, "daemon"), side="audit") as connection:
        insert(connection)


def test_a_role_that_may_not_create_is_told_which_connection_to_give(
    connect: Connect, empty: Connection
) -> None:
    migrate(empty, "other", None)
    with pytest.raises(NotPermittedError) as caught:
        migrate(connect("audit_writer"), "audit", None)
    assert caught.value.remedy is not None
    assert "admin_dsn" in caught.value.remedy
    assert installed_version(empty, "audit") is None


def test_a_schema_that_somebody_else_uses_is_left_alone(empty: Connection) -> None:
    empty.execute("create schema audit; create table audit.audit_logs (id int)")
    with pytest.raises(SettingError, match="is not cdc-audit's"):
        migrate(empty, "audit", None)
    assert columns(empty, "audit.audit_logs") == "id integer"


def test_an_empty_schema_is_taken(empty: Connection) -> None:
    empty.execute("create schema audit")
    assert migrate(empty, "audit", None) == ALL


def test_a_schema_newer_than_the_program_is_refused(audit: Connection) -> None:
    audit.execute("insert into audit.schema_version values (%s, 'from the future')", (LATEST + 1,))
    with pytest.raises(SettingError, match="newer than this program"):
        migrate(audit, "audit", None)


def test_a_server_older_than_14_is_refused(empty: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_OLDEST_SERVER", 990000)
    with pytest.raises(SettingError, match="too old"):
        migrate(empty, "audit", None)


def test_a_role_that_could_change_the_trail_is_refused(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("unsafe")
    server.execute("create role audit_writer superuser")
    with (
        postgres.connect(server.dsn(), side="audit") as connection,
        pytest.raises(SettingError, match="audit_writer could change the trail"),
    ):
        migrate(connection, "audit", None)


@pytest.fixture
def login(audit_cluster: Server) -> Any:
    audit_cluster.execute("create role test_daemon login")
    yield "test_daemon"
    audit_cluster.execute("drop role test_daemon")


def members(connection: Connection) -> list[str]:
    rows = connection.execute(
        "select member::regrole::text from pg_auth_members where roleid = 'audit_writer'::regrole order by 1"
    )
    return [name for (name,) in rows if name in {"test_daemon", "postgres", "audit_writer"}]


def test_the_daemons_login_becomes_a_writer(empty: Connection, connect: Connect, login: str) -> None:
    migrate(empty, "audit", login)
    migrate(empty, "audit", login)
    assert members(empty) == [login]
    insert(connect(login))


@pytest.mark.parametrize("role", ["postgres", "audit_writer", None])
def test_a_superuser_and_audit_writer_itself_are_not_made_members(
    empty: Connection, role: str | None
) -> None:
    migrate(empty, "audit", role)
    assert members(empty) == []


def test_a_login_that_does_not_exist_is_named_and_nothing_is_installed(empty: Connection) -> None:
    with pytest.raises(SettingError, match="role nobody_such") as caught:
        migrate(empty, "audit", "nobody_such")
    assert caught.value.remedy == 'create role "nobody_such" login'
    assert installed_version(empty, "audit") is None


def test_the_login_of_a_dsn_is_what_libpq_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    assert login_of("host=x user='a b'") == "a b"
    assert login_of("postgresql://daemon@host/db") == "daemon"
    monkeypatch.setenv("PGUSER", "from_environment")
    assert login_of("host=x") == "from_environment"
    assert login_of("") is None
