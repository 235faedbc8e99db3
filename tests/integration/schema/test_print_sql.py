"""What ``schema migrate --print-sql`` prints gives, run by psql, the very same as the command."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from psycopg import Connection

from cdc_audit.cli.schema import command
from cdc_audit.schema import migrate as migrations
from cdc_audit.schema.migrate import migrate
from tests.support.psql import dumped, psql
from tests.support.servers import Server

_VERSIONS = "select version, name from audit.schema_version order by 1"
_MEMBERS = "select pg_has_role('print_sql_writer', 'audit_writer', 'MEMBER')"


def printed(server: Server, database: str, login: str = "print_sql_writer") -> str:
    environment = {
        "CDC_AUDIT_AUDIT_DSN": server.dsn(database, login),
        "CDC_AUDIT_AUDIT_ADMIN_DSN": server.dsn(database),
    }
    result = CliRunner().invoke(command, ["migrate", "--print-sql"], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_script_gives_the_same_as_the_command_from_nothing_and_from_every_older_version(
    audit_cluster: Server, empty: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.execute("create role print_sql_writer login")
    others: list[str] = []
    try:
        migrate(empty, "audit", "print_sql_writer")
        expected = dumped(audit_cluster, database, "audit")
        assert "refuse_change" in expected
        for version in range(migrations.LATEST):
            other = audit_cluster.create_database()
            others.append(other)
            dsn = audit_cluster.dsn(other)
            if version:
                # as the release printed it that ended with this migration
                with monkeypatch.context() as release:
                    release.setattr(migrations, "_MIGRATIONS", migrations._MIGRATIONS[:version])
                    older = printed(audit_cluster, other)
                psql(dsn, older, "-1")
                assert dumped(audit_cluster, other, "audit") != expected
            psql(dsn, printed(audit_cluster, other), "-1")
            assert dumped(audit_cluster, other, "audit") == expected
            assert audit_cluster.execute(_VERSIONS, dbname=other) == empty.execute(_VERSIONS).fetchall()
        assert empty.execute(_MEMBERS).fetchone() == (True,)
    finally:
        for other in others:
            audit_cluster.execute(f'drop database "{other}"')
        empty.execute("drop role print_sql_writer")


def test_printing_changes_nothing(audit_cluster: Server, empty: Connection, database: str) -> None:
    assert "create table" in printed(audit_cluster, database, "postgres")
    assert migrations.installed_version(empty, "audit") is None
