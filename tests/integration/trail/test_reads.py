"""``[audit] record_reads``: each command that reads the trail leaves one row that readers can't avoid, forge or change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from cdc_audit import cli, postgres
from cdc_audit.errors import NotPermittedError, SettingError
from tests.support.servers import Server
from tests.support.small_trail import BEGUN, Shop, row, said_by, write_small_trail

COMMANDS = {
    "log": ["log", "--table", "orders", "--since", "2026-11-01", "--before", "status=new", "--format", "csv"],
    "history": ["history", "orders", "42"],
    "show": ["show", "1"],
    "deletions": ["deletions", "--since", "2026-11-01", "--json"],
    "who": ["who", "u42", "--since", "2026-11-01"],
    "context missing": ["context", "missing", "--since", "2026-11-01"],
    "suspicious": ["suspicious", "--since", "2026-11-01", "--threshold", "0"],
    "as-of": ["as-of", "orders", "42", "--at", "2026-11-21"],
    "undo": ["undo", "--xid", "739"],
    "report": ["report", "--since", "2026-11-01", "--output", "OUTPUT"],
    "verify": ["verify"],
}
COUNTS = {"log": 1, "history": 3, "show": 1, "deletions": 1, "who": 3, "as-of": 1, "undo": 1, "verify": 3}
NEW, PAID = {"id": 42, "status": "new"}, {"id": 42, "status": "paid"}


@pytest.fixture(scope="module")
def trail(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    shop = Shop(BEGUN)
    shop.transaction(said_by("u42"), row("orders", None, NEW))
    shop.transaction(said_by("u42"), row("orders", NEW, PAID))
    shop.transaction(said_by("u42"), row("orders", PAID, None), minutes=3000)
    write_small_trail(audit_cluster.dsn(name), shop.stretches)
    audit_cluster.execute("create role test_reader login in role audit_admin")
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')
    audit_cluster.execute("drop role test_reader")


@pytest.fixture
def admin(audit_cluster: Server, trail: str) -> Iterator[psycopg.Connection]:
    with postgres.connect(audit_cluster.dsn(trail), side="audit") as connection:
        yield connection


def run(dsn: str, arguments: list[str], tmp_path: Path, on: bool = True) -> Result:
    environment = {"CDC_AUDIT_AUDIT_RECORD_READS": "true"} if on else {}
    given = [one.replace("OUTPUT", str(tmp_path / "report")) for one in arguments]
    return CliRunner().invoke(cli.cdc_audit, [*given, "--dsn", dsn], env=environment)


def newest(admin: psycopg.Connection) -> dict[str, Any]:
    found = admin.execute("select to_jsonb(r)::text from audit.reads r order by id desc limit 1").fetchone()
    return dict(json.loads(found[0])) if found else {}


def count(admin: psycopg.Connection) -> int:
    return int(admin.execute("select count(*) from audit.reads").fetchall()[0][0])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_leaves_one_row_of_who_what_and_how_many(
    name: str, audit_cluster: Server, trail: str, admin: psycopg.Connection, tmp_path: Path
) -> None:
    dsn = audit_cluster.dsn(trail, "test_reader") + " password=seldom"
    before = count(admin)
    done = run(dsn, COMMANDS[name], tmp_path)
    assert done.exit_code == (1 if name == "verify" and done.exception else 0) or name == "verify", (
        done.exception
    )
    assert count(admin) == before + 1
    found = newest(admin)
    assert (found["command"], found["db_user"]) == (name, "test_reader")
    if name in COUNTS:
        assert found["row_count"] == COUNTS[name]
    assert "seldom" not in json.dumps(found)
    if name == "log":
        assert found["filters"] == {
            "table": "orders",
            "since": "2026-11-01",
            "before": ["status=new"],
            "form": "csv",
        }
    run(dsn, COMMANDS[name], tmp_path, on=False)
    assert count(admin) == before + 1


def test_what_was_typed_is_kept_as_far_as_json_can_hold_it(
    audit_cluster: Server, trail: str, admin: psycopg.Connection, tmp_path: Path
) -> None:
    hostile = "\x1b[2J\u202e'; drop table x; -- \\u0000 \\udcff"
    done = run(audit_cluster.dsn(trail, "test_reader"), ["log", "--user", hostile], tmp_path)
    assert done.exception is None, done.exception
    assert newest(admin)["filters"] == {"user": hostile}


def test_a_reader_can_neither_forge_change_nor_avoid_it(
    audit_cluster: Server, trail: str, admin: psycopg.Connection, tmp_path: Path
) -> None:
    with postgres.connect(audit_cluster.dsn(trail, "test_reader"), side="audit") as reader:
        reader.execute("set role audit_admin")
        reader.execute("select audit.record_read('log', '{}', 1)")
        assert newest(admin)["db_user"] == "test_reader"
        for statement in (
            "insert into audit.reads (db_user, command, filters) values ('bob', 'log', '{}')",
            "update audit.reads set db_user = 'bob'",
            "delete from audit.reads",
            "truncate audit.reads",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement.encode())
    admin.execute("revoke execute on function audit.record_read(text, jsonb, bigint) from audit_admin")
    for name, arguments in COMMANDS.items():
        done = run(audit_cluster.dsn(trail, "test_reader"), arguments, tmp_path)
        assert isinstance(done.exception, NotPermittedError), name
        assert "can't be recorded" in str(done.exception)
        assert done.stdout == "", name
        assert not (tmp_path / "report.html").exists()
    admin.execute("grant execute on function audit.record_read(text, jsonb, bigint) to audit_admin")


def test_where_it_can_not_be_recorded_the_remedy_is_said(
    audit_cluster: Server, trail: str, admin: psycopg.Connection, tmp_path: Path
) -> None:
    dsn = audit_cluster.dsn(trail, "test_reader")
    done = run(f"{dsn} options='-c default_transaction_read_only=on'", ["show", "1"], tmp_path)
    assert isinstance(done.exception, SettingError)
    assert "name the primary" in str(done.exception)
    admin.execute("alter function audit.record_read(text, jsonb, bigint) rename to record_read_later")
    done = run(dsn, ["show", "1"], tmp_path)
    admin.execute("alter function audit.record_read_later(text, jsonb, bigint) rename to record_read")
    assert isinstance(done.exception, SettingError)
    assert "cdc-audit schema migrate" in str(done.exception)
