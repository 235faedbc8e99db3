"""Questions to a trail of several months: answers as from reading everything, by indexes, and no further back than they need."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from click.testing import CliRunner
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.cli import log as log_command
from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.trail import activity, query
from cdc_audit.trail.as_of import as_of, reach
from cdc_audit.trail.history import history
from cdc_audit.trail.query import Filters, LogRow, one_row, read_log
from cdc_audit.trail.suspicious import findings
from cdc_audit.trail.verify import composed
from tests.integration.trail.months import MONTHS, ROWS_A_MONTH, indexes, make_months, plans, whole_months
from tests.support.servers import Server

ROWS = len(MONTHS) * ROWS_A_MONTH
RARE = [number * ROWS_A_MONTH + i for number in range(len(MONTHS)) for i in (2500, 1500, 500)]
IN_AUGUST = datetime(2026, 8, 10, tzinfo=UTC)
AUGUST = range(2 * ROWS_A_MONTH + 1, 3 * ROWS_A_MONTH + 1)


@pytest.fixture(scope="module")
def dsn(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        make_months(connection)
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def trail(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A look at the newest 200 rows, not 10,000: the trail is small."""
    monkeypatch.setattr(query, "_NEWEST_ROWS", 200)
    monkeypatch.setattr(query, "_FREQUENT", 2)
    with postgres.connect(dsn, side="audit") as connection:
        yield connection


# What is rare, and which of a past month's indexes finds it.
FOUND_BY = [
    (Filters(table_name="settings"), "terms"),
    (Filters(action="READ"), "terms"),
    (Filters(action="read"), "terms"),
    (Filters(application="psql"), "terms"),
    (Filters(trust="forged"), "terms"),
    (Filters(field="note"), "terms"),
    (Filters(email="u107@example.org"), "terms"),
    (Filters(user="u107"), "user"),
    (Filters(user="u107@example.org"), "terms"),
    (Filters(record="421"), "record"),
    (Filters(table_name="table_1", record="421"), "record"),
    (Filters(after=(("total", "4711"),)), "images"),
    (Filters(before=(("total", "4711"),)), "images"),
    (Filters(after=(("total", "nothing"),)), "images"),
    (Filters(ip="192.0.2.7/32"), "address"),
    (Filters(ip="192.0.2.0/24"), "address"),
    (Filters(removals=True, user="u107"), "user"),
]


@pytest.mark.parametrize(("filters", "kind"), FOUND_BY)
def test_what_is_rare_is_found_by_an_index_of_each_month_that_is_over(
    trail: Connection, filters: Filters, kind: str
) -> None:
    with plans(trail) as seen:
        found = [row.id for row in read_log(trail, "audit", filters)]
    assert kind in indexes(seen), "\n".join(seen)
    assert [whole_months(plan) for plan in seen] == [[]] * len(seen)
    assert found == [row.id for row in everything(trail) if matches(row, filters)][:50]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(field="note"),
        Filters(after=(("total", str(ROWS - 2_000)),)),
        Filters(before=(("total", str(ROWS - 2_000)),)),
        Filters(after=(("total", "nothing"),)),
        Filters(after=(("total", str(ROWS - 2_000)),), field="total", text="shop"),
    ],
)
def test_of_the_month_that_is_written_only_ids_that_may_have_it_are_asked_for_what_is_rare(
    trail: Connection, filters: Filters
) -> None:
    with plans(trail) as seen:
        found = [row.id for row in read_log(trail, "audit", filters)]
    assert found == [row.id for row in everything(trail) if matches(row, filters)][:50]
    assert not any("Seq Scan on audit_logs_2026" in plan for plan in seen), "\n".join(seen)
    assert any("id >= " in plan and "audit_logs_2026_09" in plan for plan in seen), "\n".join(seen)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(table_name="table_1"),
        Filters(action="UPDATE"),
        Filters(field="total"),
        Filters(ip="10.0.0.0/8"),
        Filters(trust="signed"),
        Filters(text="SHOP"),
    ],
)
def test_of_what_is_frequent_only_the_newest_rows_are_read(trail: Connection, filters: Filters) -> None:
    with plans(trail) as seen:
        found = [row.id for row in read_log(trail, "audit", filters)]
    assert len(found) == 50
    assert len(seen) == 2
    assert "audit_logs_2026_08" not in seen[1]


def test_a_text_is_looked_for_in_the_newest_ids_of_all_months_at_once(trail: Connection) -> None:
    asked = Filters(text="rare/", above_id=1_000)
    with plans(trail) as seen:
        found = [row.id for row in read_log(trail, "audit", asked)]
    assert found == [row.id for row in everything(trail) if matches(row, asked)]
    assert min(found) < ROWS - 10_000  # beyond the newest, which are read first
    assert len(seen) == 3
    assert [whole_months(plan) for plan in seen] == [[]] * len(seen)


def test_a_page_ends_with_the_month_that_fills_it(trail: Connection) -> None:
    with plans(trail) as seen:
        list(read_log(trail, "audit", Filters(record="421", limit=6)))
    assert "audit_logs_2026_08" in seen[-1]
    assert "audit_logs_2026_07" not in seen[-1]


def test_times_read_their_months_alone(trail: Connection) -> None:
    asked = Filters(since=IN_AUGUST, until=IN_AUGUST + timedelta(days=1), user="u107")
    with plans(trail) as seen:
        list(read_log(trail, "audit", asked))
        activity.shares(trail, "audit", asked)
        activity.by_time(trail, "audit", asked, "hour")
        findings(trail, "audit", replace(asked, user=None), [SuspiciousRule(kind="bulk")])
    assert len(seen) >= 5
    for month in ("2026_06", "2026_07", "2026_09"):
        assert not any(f"audit_logs_{month}" in plan for plan in seen)
    assert [whole_months(plan) for plan in seen] == [[]] * len(seen)


def test_the_life_of_a_record_and_its_past_are_found_by_indexes(trail: Connection) -> None:
    with plans(trail) as seen:
        rows = history(partial(read_log, trail, "audit"), ("public", "table_1"), "421")
        state = as_of(
            partial(read_log, trail, "audit"), reach(trail, "audit"), ("public", "table_1"), IN_AUGUST, "421"
        )
    assert [row.id for row in rows] == [
        row.id for row in reversed(everything(trail)) if (row.table_name, row.record_id) == ("table_1", "421")
    ]
    before = [row for row in rows if row.created_at <= "2026-08-10" and row.action == "UPDATE"]
    assert [{key: int(value) for key, value in one.items()} for one in state.rows.values()] == [
        json.loads(before[-1].new_data or "")
    ]
    assert indexes(seen) >= {"record", "terms"}
    assert [whole_months(plan) for plan in seen] == [[]] * len(seen)


def test_a_row_its_transaction_and_a_transaction_to_undo_are_found_by_indexes(trail: Connection) -> None:
    with plans(trail) as seen:
        row = one_row(trail, "audit", AUGUST[100])
        xid = Filters(xid=row.xid, limit=None, oldest_first=True)
        assert len(list(read_log(trail, "audit", xid))) == 3
        at = datetime.fromisoformat(row.created_at)
        moment = replace(xid, commit_lsn=row.commit_lsn, since=at, until=at + timedelta(microseconds=1))
        assert row in list(read_log(trail, "audit", moment))
    assert [whole_months(plan) for plan in seen] == [[]] * len(seen)
    assert "audit_logs_2026_07" not in seen[-1]


def test_the_block_of_a_row_is_found_by_an_index(trail: Connection) -> None:
    trail.execute("set enable_seqscan = off")
    asked = composed("block_of_row", "audit")
    for row_id, block in (
        (1, 0),
        (ROWS_A_MONTH, 0),
        (ROWS_A_MONTH + 1, 1),
        (ROWS, 3),
        (ROWS + 1, None),
        (0, None),
    ):
        found = trail.execute(asked, {"id": row_id}).fetchone()
        assert (found[0] if found else None) == block
    plan = trail.execute(sql.SQL("explain ") + asked, {"id": 5000}).fetchall()
    assert any("ledger_rows" in line for (line,) in plan)


CLASSIC = {
    "select * from audit_logs where table_name = 'table_1' and record_id = '421' order by created_at desc": "record",
    "select * from audit_logs where user_id = 'u107' order by created_at desc": "user",
    "select * from audit_logs where user_id = 'u107' order by created_at desc limit 50": "user",
}


@pytest.mark.parametrize("classic", list(CLASSIC))
def test_the_classic_queries_find_past_months_by_an_index_as_they_stand(
    trail: Connection, classic: str
) -> None:
    trail.execute("set search_path = audit")
    plan = "\n".join(line for (line,) in trail.execute(f"explain {classic}".encode()).fetchall())
    assert indexes([plan]) == {CLASSIC[classic]}, plan
    assert whole_months(plan) == []


_everything: dict[str, list[LogRow]] = {}


def everything(connection: Connection) -> list[LogRow]:
    """All rows, newest first, by a statement that has no condition; asked once."""
    name = connection.info.dbname
    if name not in _everything:
        rows = read_log(connection, "audit", Filters(limit=None))
        _everything[name] = sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
        assert len(_everything[name]) == ROWS
    return _everything[name]


def matches(row: LogRow, filters: Filters) -> bool:
    """What each filter means, without SQL."""
    new, old = json.loads(row.new_data or "{}"), json.loads(row.old_data or "{}")
    says: list[bool] = [
        filters.table_name in (None, row.table_name),
        filters.record in (None, row.record_id),
        filters.user is None or filters.user in (row.user_id, row.user_email),
        filters.action is None or row.action in (filters.action, filters.action.upper()),
        filters.field is None or filters.field in (row.changed_fields or []),
        filters.email in (None, row.user_email),
        filters.application in (None, row.application_name),
        filters.trust in (None, row.context_trust),
        filters.ip is None
        or (row.ip_address or "").startswith(filters.ip.partition("/")[0].removesuffix(".0")),
        filters.xid in (None, row.xid),
        filters.above_id is None or row.id > filters.above_id,
        filters.since is None or datetime.fromisoformat(row.created_at) >= filters.since,
        filters.until is None or datetime.fromisoformat(row.created_at) < filters.until,
        not filters.removals or row.action in ("DELETE", "TRUNCATE"),
        all(str(new.get(column)) == text for column, text in filters.after),
        all(str(old.get(column)) == text for column, text in filters.before),
        filters.text is None or filters.text.lower() in f"{row.context} {row.user_agent}".lower(),
    ]
    return all(says)


def test_random_questions_in_random_pages_give_what_reading_everything_gives(trail: Connection) -> None:
    rand = random.Random(11)
    choices: dict[str, Callable[[], object]] = {
        "table_name": lambda: rand.choice(["table_1", "settings", "nowhere"]),
        "record": lambda: str(rand.randrange(700)),
        "user": lambda: rand.choice([f"u{rand.randrange(300)}", "u5@example.org"]),
        "action": lambda: rand.choice(["UPDATE", "delete", "READ", "EXPORT"]),
        "field": lambda: rand.choice(["total", "note"]),
        "trust": lambda: rand.choice(["signed", "forged", "none"]),
        "ip": lambda: rand.choice(["10.0.0.0/24", "192.0.2.7/32", "192.0.2.0/24"]),
        "after": lambda: (("id", str(rand.randrange(700))),),
        "before": lambda: (("total", str(rand.randrange(ROWS))),),
        "text": lambda: rand.choice(["shop/1", f'"request": {rand.randrange(ROWS)}']),
        "since": lambda: IN_AUGUST + timedelta(hours=rand.randrange(-1500, 900)),
        "until": lambda: IN_AUGUST + timedelta(hours=rand.randrange(-1500, 900)),
        "removals": lambda: True,
    }
    for _ in range(60):
        asked = {name: choices[name]() for name in rand.sample(list(choices), rand.randint(0, 3))}
        filters = Filters(**asked, limit=rand.choice([1, 7, 60]))  # type: ignore[arg-type]
        expected = [row.id for row in everything(trail) if matches(row, filters)]
        for _ in range(3):
            page = list(read_log(trail, "audit", filters))
            assert [row.id for row in page] == expected[: filters.limit], filters
            expected = expected[len(page) :]
            if not page:
                break
            last = page[-1]
            filters = replace(filters, before_at=datetime.fromisoformat(last.created_at), before_id=last.id)


def test_a_text_that_no_index_serves_is_looked_for_in_so_many_rows_and_that_is_said(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_command, "_MOST_SEARCHED", 2_000)

    def ask(*arguments: str) -> tuple[list[int], str]:
        done = CliRunner().invoke(
            log_command.command, ["--dsn", dsn, "--json", "--text", "rare/1", *arguments]
        )
        assert done.exception is None
        return [json.loads(line)["id"] for line in done.stdout.splitlines()], done.stderr

    found, said = ask()
    assert found == RARE[-3:-1]
    assert f"looked through 2,000 rows; to go on: --before-id {ROWS - 2_000 + 1};" in said
    again, said = ask("--before-id", str(ROWS - 2_000 + 1))
    assert again == [RARE[-1], RARE[-6]]
    assert "--before-id" in said
    assert ask("--limit", "1") == (RARE[-3:-2], "")
    assert ask("--since", "2026-06-01") == (sorted(RARE, reverse=True), "")
    assert ask("--before-id", "1500") == ([500], "")
