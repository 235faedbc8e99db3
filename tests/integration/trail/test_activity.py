"""``who``, ``suspicious`` and ``deletions`` on a trail with old months; no question reads an old month from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import get_args

import pytest
from click.testing import CliRunner, Result
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.cli import as_of, deletions, history, log, report, show, suspicious, undo, who
from cdc_audit.errors import NotPermittedError, UsageError
from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.schema.migrate import migrate
from cdc_audit.trail import activity
from cdc_audit.trail.query import Filters, compose, where
from cdc_audit.trail.suspicious import compose as suspicious_query
from tests.support.servers import Server

# user, table, action, rows, beginning, seconds between rows
RUNS = [
    ("bulk", "orders", "UPDATE", 101, "2026-11-20 10:30", 30),  # over an hour's end
    ("steady", "orders", "UPDATE", 100, "2026-11-20 10:30", 30),
    ("slow", "orders", "UPDATE", 300, "2026-11-20 00:00", 40),
    ("twice", "users", "DELETE", 120, "2026-11-20 01:00", 1),
    ("twice", "users", "DELETE", 150, "2026-11-20 09:00", 1),
    ("mixed", "orders", "INSERT", 60, "2026-11-20 10:00", 1),
    ("mixed", "orders", "DELETE", 60, "2026-11-20 10:00", 1),
    (None, "logs", "INSERT", 130, "2026-11-20 05:00", 1),
    ("bulk", "users", "TRUNCATE", 1, "2026-11-21 08:00", 1),
    ("bulk", "users", "UPDATE", 200, "2026-03-10 10:00", 1),
    ("bulk", "users", "UPDATE", 200, "2026-04-10 10:00", 1),
]


@pytest.fixture(scope="module")
def audit(audit_cluster: Server) -> Iterator[str]:
    """The DSN of a trail that has RUNS, each month in its partition."""
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        migrate(connection, "audit", None)
        for month in ("2026-03-01", "2026-04-01", "2026-11-01"):
            connection.execute("select audit.ensure_partition(%s)", (month,))
        first = 1
        for user, table, action, count, begins, apart in RUNS:
            connection.execute(
                "insert into audit.audit_logs (id, created_at, schema_name, table_name, record_id, action, user_id,"
                " context_trust, capture, xid, commit_lsn, seq, row_hash) select %s + g, %s::timestamptz + g * %s * interval '1 s',"
                " 'public', %s, g::text, %s, %s, 'signed', 'full', 1, '0/1', g + 1, '' from generate_series(0, %s - 1) g",
                (first, f"{begins}+00", apart, table, action, user, count),
            )
            first += count
        connection.execute("vacuum analyze audit.audit_logs")
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def run(module: ModuleType, dsn: str, *arguments: str) -> Result:
    return CliRunner().invoke(module.command, ["--dsn", dsn, *arguments], env={"COLUMNS": "80"})


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exception is None, result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_bulk_operations_are_found_in_any_hour_and_each_run_for_itself(audit: str) -> None:
    found = lines(run(suspicious, audit, "--since", "2026-11-01", "--json"))
    assert [(row["user"], row["action"], row["table_name"], row["rows"]) for row in found] == [
        ("bulk", "UPDATE", "orders", 101),
        ("twice", "DELETE", "users", 150),
        (None, "INSERT", "logs", 130),
        ("twice", "DELETE", "users", 120),
    ]
    assert found[0]["last"] == "2026-11-20T11:20:00Z"


def test_threshold_and_window_are_what_is_said(audit: str) -> None:
    since = ("--since", "2026-11-01", "--json")
    assert len(lines(run(suspicious, audit, *since, "--threshold", "130"))) == 1
    users = {
        row["user"] for row in lines(run(suspicious, audit, *since, "--threshold", "59", "--window", "1m"))
    }
    assert users == {"twice", "mixed", None}
    assert isinstance(run(suspicious, audit, "--window", "soon").exception, UsageError)
    assert isinstance(run(suspicious, audit, "--window", "2026-01-01").exception, UsageError)


def test_nothing_suspicious_says_so_on_stderr(audit: str) -> None:
    done = run(suspicious, audit, "--since", "2026-11-21")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing\n")


def test_who_sums_a_users_rows_by_table_action_and_time(audit: str) -> None:
    found = lines(run(who, audit, "bulk", "--since", "2026-04-01", "--json"))
    assert [(row["table_name"], row["action"], row["rows"]) for row in found if "action" in row] == [
        ("users", "UPDATE", 200),
        ("orders", "UPDATE", 101),
        ("users", "TRUNCATE", 1),
    ]
    assert [(row["day"], row["rows"]) for row in found if "day" in row] == [
        ("2026-04-10T00:00:00Z", 200),
        ("2026-11-20T00:00:00Z", 101),
        ("2026-11-21T00:00:00Z", 1),
    ]


def test_who_draws_hours_up_to_two_days_within_the_terminals_width(audit: str) -> None:
    done = run(who, audit, "bulk", "--since", "2026-11-20", "--until", "2026-11-21")
    assert "2026-11-20 10:00  60  █" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_deletions_are_deletes_and_truncates_newest_first(audit: str) -> None:
    found = lines(run(deletions, audit, "--since", "2026-11-20", "--table", "users", "--json"))
    assert len(found) == 271
    assert found[0]["action"] == "TRUNCATE"
    done = run(deletions, audit, "--since", "2026-11-20", "--limit", "3")
    assert len(done.stdout.splitlines()) == 4
    assert "only the newest 3 are shown" in done.stderr
    assert lines(run(deletions, audit, "--json")) == []


@pytest.mark.parametrize("module", [who, suspicious, deletions])
def test_who_may_not_read_is_told_what_to_do(audit: str, audit_cluster: Server, module: ModuleType) -> None:
    dsn = audit.replace("user=postgres", "user=audit_writer")
    done = run(module, f"{dsn} user=audit_writer", *(["u"] if module is who else []))
    assert isinstance(done.exception, NotPermittedError)


RECENT = datetime(2026, 11, 20, tzinfo=UTC)
ASKED = [
    Filters(user="bulk"),
    Filters(table_name="orders", record="7"),
    Filters(xid=1),
    Filters(xid=1, commit_lsn="0/1"),
    Filters(id=17),
    Filters(above_id=17, up_to_id=19, oldest_first=True),
    Filters(table_name="orders", record="7", limit=None, oldest_first=True),
    Filters(since=RECENT, before=(("status", "new"),)),
    Filters(since=RECENT, email="a@b.c"),
    Filters(since=RECENT, ip="10.0.0.0/8", application="web", trust="signed", text="x"),
    Filters(since=RECENT, removals=True),
    Filters(before_at=RECENT, before_id=17),
    Filters(),
]


def plan(connection: Connection, query: sql.Composed, values: dict[str, object]) -> str:
    with connection.transaction():
        connection.execute(
            "select set_config('enable_seqscan', 'off', true), set_config('cursor_tuple_fraction', '1', true)"
        )
        return "\n".join(line for (line,) in connection.execute(sql.SQL("explain ") + query, values))


@pytest.mark.parametrize("filters", ASKED)
def test_no_question_of_the_log_reads_a_partition_from_end_to_end(audit: str, filters: Filters) -> None:
    with postgres.connect(audit, side="audit") as connection:
        text = plan(connection, *compose("audit", filters))
    assert "Seq Scan" not in text, text
    if filters.since:
        assert "audit_logs_2026_03" not in text


def test_sums_of_recent_times_leave_old_partitions_alone(audit: str) -> None:
    with postgres.connect(audit, side="audit") as connection:
        for name in ("who", "who_when"):
            conditions, values = where("audit", Filters(user="bulk", since=RECENT), opened=True)
            query = sql.SQL(activity._SQL[name]).format(
                schema=sql.Identifier("audit"), conditions=conditions, iso=sql.SQL(activity._SQL["iso"])
            )
            text = plan(connection, query, {**values, "unit": "day"})
            assert "Seq Scan" not in text, text
            assert "audit_logs_2026_03" not in text
        for kind in get_args(SuspiciousRule.model_fields["kind"].annotation):
            rule = SuspiciousRule(kind=kind)
            text = plan(connection, *suspicious_query("audit", Filters(since=RECENT), rule, opened=True))
            assert "Seq Scan" not in text, text
            assert "audit_logs_2026_03" not in text


@pytest.mark.parametrize("module", [who, suspicious, deletions, log, report, history, show, as_of, undo])
def test_help_has_an_example_of_options_that_are_there(module: ModuleType) -> None:
    text = module.command.epilog
    options = {name for option in module.command.params for name in option.opts}
    assert {word for word in text.split() if word.startswith("--")} <= options


CLASSIC = """
SELECT * FROM audit_logs WHERE table_name = 'users' AND record_id = '7' ORDER BY created_at DESC;
SELECT table_name, record_id, action, old_data, new_data FROM audit_logs WHERE user_id = 'bulk' ORDER BY created_at DESC;
SELECT * FROM audit_logs WHERE action = 'DELETE' AND created_at > NOW() - INTERVAL '24 hours';
SELECT user_id, action, table_name, date_trunc('hour', created_at) AS hour, COUNT(*) FROM audit_logs
 GROUP BY user_id, action, table_name, date_trunc('hour', created_at) HAVING COUNT(*) > 100 ORDER BY COUNT(*) DESC;
SELECT id, user_email, ip_address, user_agent FROM audit_logs WHERE 'email' = ANY(changed_fields);
SELECT record_id, old_data->>'status' AS was, new_data->>'status' AS is_now FROM audit_logs
 WHERE table_name = 'orders' AND old_data->>'status' IS DISTINCT FROM new_data->>'status'
"""


@pytest.mark.parametrize("query", CLASSIC.split(";"))
def test_the_queries_written_for_a_triggers_audit_logs_run_unchanged(audit: str, query: str) -> None:
    with postgres.connect(audit, side="audit") as connection:
        connection.execute("set search_path = audit")
        found = connection.execute(query.encode()).fetchall()
    if "HAVING" in query:
        assert {row[0] for row in found} == {"bulk", "twice", None}
    if "record_id = '7'" in query:
        assert len(found) == 4
