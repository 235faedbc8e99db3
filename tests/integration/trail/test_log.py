"""``cdc-audit log`` on a real trail: every filter, every format, and the reader's rights."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from cdc_audit import postgres
from cdc_audit.cli.log import command
from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError, UsageError
from cdc_audit.schema.migrate import migrate
from cdc_audit.trail.follow import follow
from cdc_audit.trail.query import Filters, LogRow, compose, read_log
from tests.integration.schema.rows import insert
from tests.support.servers import Server

Log = Callable[..., Result]
_DIGITS = '{"id": 1, "price": 12345678901234567890.123456789012345678900, "n": {"deep": [1.50]}}'

ROWS: list[dict[str, Any]] = [
    {
        "table_name": "orders",
        "record_id": "1",
        "action": "INSERT",
        "user_id": "u1",
        "user_email": "ann@shop.example",
    },
    {
        "table_name": "orders",
        "record_id": "1",
        "user_id": "u2",
        "changed_fields": ["status", "total"],
        "xid": 900,
    },
    {
        "table_name": "users",
        "record_id": "1",
        "user_id": "u1",
        "changed_fields": ["email"],
        "context_trust": "forged",
    },
    {
        "schema_name": "shop",
        "table_name": "orders",
        "record_id": '["1", "2"]',
        "action": "DELETE",
        "user_id": None,
    },
    {"schema_name": "", "table_name": "exports", "record_id": None, "action": "EXPORT", "user_email": "u2"},
    {"table_name": "a.b", "record_id": "=1+1", "user_id": "\x1b[2J@x", "capture": "suppressed"},
    {
        "table_name": "orders",
        "record_id": "1",
        "action": "UPDATE",
        "ip_address": "10.0.0.9",
        "user_agent": "u1",
        "application_name": "web",
        "old_data": Jsonb({"status": "new", "total": 1}),
        "new_data": Jsonb({"status": "paid", "total": 10}),
        "context": Jsonb({"request_id": "Req-7", "tenant": "acme", "office": "Zürich"}),
    },
]


@pytest.fixture(scope="module")
def trail(audit_cluster: Server) -> Iterator[str]:
    """A database whose trail has ROWS, a day apart from 2026-11-01 12:00 on, ids from 1."""
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        migrate(connection, "audit", None)
        for number, columns in enumerate(ROWS, 1):
            insert(connection, id=number, created_at=f"2026-11-0{number} 12:00:00+00", **columns)
        insert(
            connection,
            id=8,
            created_at="2026-11-07 12:00:00+00",
            record_id="same time",
            new_data=_DIGITS,
            old_data=_DIGITS,
        )
        connection.execute("drop role if exists test_reader")
        connection.execute("create role test_reader login in role audit_admin")
    yield name
    with postgres.connect(audit_cluster.dsn(), side="audit") as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        connection.execute("drop role test_reader")


@pytest.fixture
def log(audit_cluster: Server, trail: str) -> Log:
    """``log(*arguments, user=...)``: the daemon's DSN in the environment, the reader's by --dsn."""

    def run(*arguments: str, user: str | None = "test_reader") -> Result:
        given = ["--dsn", audit_cluster.dsn(trail, user)] if user else []
        environment = {"CDC_AUDIT_AUDIT_DSN": audit_cluster.dsn(trail, "audit_writer"), "COLUMNS": "200"}
        return CliRunner().invoke(command, [*given, *arguments], env=environment)

    return run


def ids(result: Result) -> list[int]:
    assert result.exception is None, result.exception
    return [json.loads(line)["id"] for line in result.output.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], [8, 7, 6, 5, 4, 3, 2, 1]),
        (["--limit", "3"], [8, 7, 6]),
        (["--table", "users"], [3]),
        (["--table", "orders"], [8, 7, 4, 2, 1]),
        (["--table", "shop.orders"], [4]),
        (["--table", "public.orders", "--record", "1"], [7, 2, 1]),
        (["--table", '"a.b"'], [6]),
        (["--record", "1"], [7, 3, 2, 1]),
        (["--record", '["1", "2"]'], [4]),
        (["--user", "u1"], [3, 1]),
        (["--user", "ann@shop.example"], [1]),
        (["--user", "u2"], [5, 2]),
        (["--action", "delete"], [4]),
        (["--action", "EXPORT"], [5]),
        (["--field", "total"], [2]),
        (["--field", "email"], [3]),
        (["--since", "2026-11-06"], [8, 7, 6]),
        (["--since", "2026-11-06T12:00Z"], [8, 7, 6]),
        (["--until", "2026-11-02T12:00"], [1]),
        (["--until", "2026-11-03"], [2, 1]),
        (["--since", "2026-11-02", "--until", "2026-11-04", "--user", "u1"], [3]),
        (["--xid", "900"], [2]),
        (
            ["--table", "orders", "--record", "1", "--action", "UPDATE", "--field", "status", "--xid", "900"],
            [2],
        ),
        (["--record", "' or true --"], []),
        (["--email", "ann@shop.example"], [1]),
        (["--email", "u2"], [5]),
        (["--before", "status=new"], [7]),
        (["--after", "status=new"], []),
        (["--before", "status=new", "--after", "status=paid", "--after", "total=10"], [7]),
        (["--before", "status=new", "--after", "total=11"], []),
        (["--ip", "10.0.0.9"], [7]),
        (["--ip", "10.0.0.0/8"], [7]),
        (["--ip", "10.0.1.0/24"], []),
        (["--ip", "2001:db8::/32"], []),
        (["--application", "web"], [7]),
        (["--trust", "forged"], [3]),
        (["--text", "req-7"], [7]),
        (["--text", "U1"], [7]),
        (["--text", "zÜRICH"], [7]),
        (["--text", "%"], []),
        (["--before-id", "7"], [6, 5, 4, 3, 2, 1]),
        (["--before-id", "4", "--limit", "2"], [3, 2]),
        (["--before-id", "8", "--user", "u1"], [3, 1]),
    ],
)
def test_each_filter_finds_its_rows_newest_first(log: Log, arguments: list[str], found: list[int]) -> None:
    assert ids(log("--json", *arguments)) == found


def test_relative_times_are_taken_from_now(log: Log, audit_cluster: Server, trail: str) -> None:
    with (
        postgres.connect(audit_cluster.dsn(trail), side="audit") as connection,
        connection.transaction(force_rollback=True),
    ):
        insert(connection, id=99, created_at="now")
    assert ids(log("--json", "--until", "1s", "--limit", "1")) == [8]
    assert ids(log("--json", "--since", "1s")) == []


def test_json_has_every_column_with_every_digit(log: Log) -> None:
    line = log("--format", "json", "--limit", "1").output
    assert list(json.loads(line)) == list(LogRow._fields)
    assert '"price": 12345678901234567890.123456789012345678900' in line
    assert '"created_at":"2026-11-07T12:00:00.000000Z"' in line
    seventh = json.loads(log("--json", "--limit", "2").output.splitlines()[1])
    assert (seventh["ip_address"], seventh["row_hash"]) == ("10.0.0.9", "\\x" + "00" * 32)
    assert (seventh["commit_lsn"], seventh["xid"], seventh["seq"]) == ("0/1562688", 738, 1)


def test_the_columns_of_the_output_are_those_of_the_table(audit_cluster: Server, trail: str) -> None:
    with postgres.connect(audit_cluster.dsn(trail), side="audit") as connection:
        names = [
            name
            for name, *_ in connection.execute("select * from audit.audit_logs limit 0").description or ()
        ]
    assert names == list(LogRow._fields)


def test_csv_guards_formulas_and_reads_back(log: Log) -> None:
    rows = list(csv.DictReader(io.StringIO(log("--format", "csv").output, newline="")))
    assert [row["id"] for row in rows] == [str(number) for number in range(8, 0, -1)]
    assert rows[2]["record_id"] == "'=1+1"
    assert rows[6]["changed_fields"] == '["status","total"]'


def test_the_table_escapes_what_is_hostile_and_marks_what_is_doubtful(log: Log) -> None:
    lines = log().output.splitlines()
    assert len(lines) == 9
    hostile = next(line for line in lines if "a.b" in line)
    assert "\\x1b[2J@x" in hostile
    assert "suppressed" in hostile
    assert "\x1b" not in "".join(lines)
    assert "forged" in next(line for line in lines if "users" in line)
    assert all(len(line) <= 200 for line in lines)


@pytest.mark.parametrize("user", [None, "audit_writer"])
def test_the_daemons_own_role_is_refused_and_told_what_to_do(log: Log, user: str | None) -> None:
    result = log(user=user)
    assert isinstance(result.exception, NotPermittedError)
    assert result.exception.remedy is not None
    assert result.exception.remedy.startswith('grant audit_admin to "audit_writer"')


def test_a_missing_trail_is_said(audit_cluster: Server) -> None:
    result = CliRunner().invoke(command, ["--dsn", audit_cluster.dsn()])
    assert isinstance(result.exception, SettingError)
    assert "no trail in schema audit" in str(result.exception)


def test_an_audit_database_that_is_away_is_said() -> None:
    result = CliRunner().invoke(command, ["--dsn", "host=/nonexistent dbname=x"])
    assert isinstance(result.exception, UnavailableError)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "soon"],
        ["--table", "a.b.c"],
        ["--before", "status"],
        ["--after", "=x"],
        ["--ip", "10.0.0.300"],
        ["--before-id", "99999"],
        ["--before-id", "7", "--follow"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(log: Log, arguments: list[str]) -> None:
    assert isinstance(log(*arguments).exception, UsageError)


def test_help_says_whose_connection_it_needs_and_has_an_example(log: Log) -> None:
    text = " ".join(log("--help").output.split())
    assert "CDC_AUDIT_AUDIT_DSN belongs to the daemon" in text
    assert "--dsn" in text
    assert "Example: cdc-audit log" in text


def test_rows_are_fetched_as_they_are_consumed(audit_cluster: Server, trail: str) -> None:
    with postgres.connect(audit_cluster.dsn(trail), side="audit") as connection:
        rows = read_log(connection, "audit", Filters(limit=5))
        assert next(rows).id == 8
        assert [row.id for row in rows] == [7, 6, 5, 4]


def plan_of(connection: Connection, filters: Filters) -> str:
    query, values = compose("audit", filters)
    return "\n".join(line for (line,) in connection.execute(sql.SQL("explain ") + query, values))


@pytest.mark.parametrize(
    "filters", [Filters(user="u1"), Filters(table_name="orders", record="1"), Filters(xid=900)]
)
def test_the_query_is_able_to_use_the_lookup_index(
    audit_cluster: Server, trail: str, filters: Filters
) -> None:
    with postgres.connect(audit_cluster.dsn(trail), side="audit") as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_indexscan = off")
        assert "Bitmap Index Scan on audit_logs_2026_11_table_name" in plan_of(connection, filters)


def test_jsonb_of_any_kind_is_shown(audit_cluster: Server, trail: str) -> None:
    with (
        postgres.connect(audit_cluster.dsn(trail), side="audit") as connection,
        connection.transaction(force_rollback=True),
    ):
        insert(
            connection,
            id=100,
            created_at="2026-11-30 00:00:00+00",
            new_data=Jsonb("just text"),
            context=Jsonb([1]),
        )
        (row,) = read_log(connection, "audit", Filters(limit=1))
    assert (row.new_data, row.context) == ('"just text"', "[1]")


def test_pages_that_follow_each_other_are_the_whole_trail(log: Log) -> None:
    seen = ids(log("--json", "--limit", "3"))
    while page := ids(log("--json", "--limit", "3", "--before-id", str(seen[-1]))):
        seen += page
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]


def test_personal_values_are_found_by_what_they_are(audit_cluster: Server, trail: str) -> None:
    with (
        postgres.connect(audit_cluster.dsn(trail), side="audit") as connection,
        connection.transaction(force_rollback=True),
    ):
        insert(
            connection,
            id=101,
            created_at="2026-11-30 00:00:00+00",
            user_email="c1",
            new_data=Jsonb({"phone": "c2"}),
        )
        for part, field, value in (
            ("context", "user_email", '"eve@x.example"'),
            ("context", "ip_address", '"192.168.7.1"'),
            ("new_data", "phone", '"555"'),
        ):
            connection.execute(
                "insert into audit.personal_values values (101, %s, %s, '', '', %s)", (part, field, value)
            )

        def found(filters: Filters) -> list[int]:
            return [row.id for row in read_log(connection, "audit", filters)]

        assert found(Filters(email="eve@x.example")) == [101]
        assert found(Filters(ip="192.168.0.0/16")) == [101]
        assert found(Filters(ip="192.168.8.0/24")) == []
        assert found(Filters(after=(("phone", "555"),))) == [101]
        assert found(Filters(before=(("phone", "555"),))) == []
        assert found(Filters(text="EVE@")) == [101]


def test_follow_gives_each_row_once_when_its_block_is_committed(audit_cluster: Server) -> None:
    name = audit_cluster.create_database()
    dsn = audit_cluster.dsn(name)
    seen: list[int | str] = []
    with postgres.connect(dsn, side="audit") as reader, postgres.connect(dsn, side="audit") as writer:
        migrate(writer, "audit", None)

        def block(number: int, first: int, count: int) -> None:
            for row_id in range(first, first + count):  # commit times need not be in the order of commits
                second = 59 - row_id
                insert(
                    writer, id=row_id, created_at=f"2026-11-22 12:00:{second}+00", user_id=f"u{row_id % 2}"
                )
            insert(writer, "ledger", block=number, kind="data", first_id=first, row_count=count)

        block(0, 1, 5)
        steps: list[Callable[[], object]] = [
            lambda: block(1, 6, 3),
            lambda: writer.execute("begin"),
            lambda: block(2, 9, 2),
            lambda: seen.append("still open"),
            lambda: writer.execute("commit"),
            lambda: block(3, 11, 0),
            lambda: block(4, 11, 1),
        ]

        def wait() -> None:
            if not steps:
                raise KeyboardInterrupt
            steps.pop(0)()

        def watch(filters: Filters) -> None:
            seen_first = seen.append  # each as it comes: an exception ends it
            for row in follow(reader, "audit", filters, wait):
                seen_first(row.id)

        with pytest.raises(KeyboardInterrupt):
            watch(Filters(limit=2))
        assert sorted(seen[:2], key=str) == [1, 2]  # the newest by their time
        assert seen[2:] == [6, 7, 8, "still open", 9, 10, 11]
        seen.clear()
        steps.append(lambda: block(5, 12, 4))
        with pytest.raises(KeyboardInterrupt):
            watch(Filters(limit=1, user="u1"))
        assert seen[1:] == [13, 15]
    audit_cluster.execute(f'drop database "{name}" with (force)')
