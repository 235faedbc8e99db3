"""Months that are over get look-up indexes: once, by who may only write, at the cost of none but those who come late to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from psycopg import Connection

from cdc_audit.cli.schema import command
from cdc_audit.errors import CheckFailedError, NotPermittedError, UnavailableError
from cdc_audit.ops.months import tend
from cdc_audit.ops.tiers import Tiers
from cdc_audit.ops.watch import Watch
from cdc_audit.schema import migrate as migrations
from cdc_audit.schema.partitions import build_indexes, missing_indexes
from tests.integration.schema.conftest import Connect
from tests.integration.schema.rows import insert
from tests.support.servers import Server

KINDS = ["record", "user", "terms", "images", "address", "transaction"]
OLD, NEW = "2026-08", "2026-09"


def names(month: str) -> list[str]:
    return [f"audit_logs_{month.replace('-', '_')}_{kind}" for kind in KINDS]


@pytest.fixture
def trail(audit: Connection) -> Connection:
    """Two months with rows; the ledger's newest row is a day and an hour behind the end of the first."""
    for month in (OLD, NEW):
        audit.execute("select audit.ensure_partition(%s)", (f"{month}-01",))
    insert(audit, id=1, created_at=f"{OLD}-10 12:00:00+00", record_id="r1")
    insert(audit, id=2, created_at=f"{NEW}-02 01:00:00+00", record_id="r2")
    insert(audit, "ledger", kind="data", last_commit_at=f"{NEW}-02 01:00:00+00")
    insert(audit, "ledger", block=1, kind="heartbeat")
    return audit


def test_a_month_is_over_a_day_after_its_end_by_the_trails_own_clock(audit: Connection) -> None:
    for month in (OLD, NEW):
        audit.execute("select audit.ensure_partition(%s)", (f"{month}-01",))
    assert missing_indexes(audit, "audit") == []
    insert(audit, "ledger", kind="data", last_commit_at=f"{NEW}-01 23:59:59+00")
    assert missing_indexes(audit, "audit") == []
    insert(audit, "ledger", block=1, kind="data", last_commit_at=f"{NEW}-02 00:00:00+00")
    assert missing_indexes(audit, "audit") == names(OLD)
    # a source whose clock is wrong by years closes nothing that the audit server's clock has not seen the end of
    insert(audit, "ledger", block=2, kind="data", last_commit_at="2099-01-01 00:00:00+00")
    (month,) = audit.execute("select to_char(now() at time zone 'UTC', 'YYYY_MM')").fetchone() or ("",)
    assert not any(month in name for name in missing_indexes(audit, "audit"))


def test_the_daemons_role_builds_what_is_missing_once(trail: Connection, connect: Connect) -> None:
    writer = connect("audit_writer")
    assert missing_indexes(writer, "audit") == names(OLD)
    assert list(build_indexes(writer, "audit")) == names(OLD)
    assert list(build_indexes(writer, "audit")) == []
    trail.execute("drop index audit.audit_logs_2026_08_terms")
    assert list(build_indexes(writer, "audit")) == ["audit_logs_2026_08_terms"]
    owners = trail.execute(
        "select distinct relowner::regrole::text from pg_class where relname = any(%s)", (names(OLD),)
    ).fetchall()
    assert owners == [("audit_owner",)]


def test_what_was_stopped_half_way_goes_on_where_it_was(trail: Connection, connect: Connect) -> None:
    first = build_indexes(connect("audit_writer"), "audit")
    assert [next(first), next(first)] == names(OLD)[:2]
    del first  # each has been committed
    assert list(build_indexes(connect("audit_writer"), "audit")) == names(OLD)[2:]


def test_rows_that_come_late_are_stored_and_found_whatever_their_keys(
    trail: Connection, connect: Connect
) -> None:
    list(build_indexes(connect("audit_writer"), "audit"))
    chooser = random.Random(9)  # incompressible
    long = "".join(chooser.choice("0123456789abcdef") for _ in range(20_000))
    for number, key in enumerate((long, long[:-1] + "x"), 3):
        insert(
            connect("audit_writer"), id=number, created_at=f"{OLD}-11 12:00:00+00", record_id=key, user_id=key,
            user_email=key, table_name=key, action=key, application_name=key, new_data=f'{{"{key}": "{key}"}}',
        )  # fmt: skip
    trail.execute("set enable_seqscan = off; set enable_indexscan = off")
    for column in ("record_id", "user_id"):
        query = f"select id from audit.audit_logs where {column} = %s".encode()
        plan = trail.execute(b"explain " + query, (long,)).fetchall()
        assert any(f"audit_logs_2026_08_{column[:-3]}" in line for (line,) in plan), plan
        assert trail.execute(query, (long,)).fetchall() == [(3,)]


def test_a_month_that_is_being_written_to_is_left_for_later(trail: Connection, connect: Connect) -> None:
    late, builder = connect("audit_writer"), connect("audit_writer")
    with late.transaction():
        insert(late, id=3, created_at=f"{OLD}-11 12:00:00+00")
        with pytest.raises(UnavailableError, match="written to"):
            list(build_indexes(builder, "audit"))
        insert(late, id=4, created_at=f"{OLD}-11 12:00:01+00")
    assert list(build_indexes(builder, "audit")) == names(OLD)


def test_a_second_session_leaves_it_to_the_first(trail: Connection, connect: Connect) -> None:
    first = connect("audit_writer")
    with first.transaction(force_rollback=True):
        assert first.execute("select audit.build_index()").fetchone() == (names(OLD)[0],)
        assert list(build_indexes(connect("audit_writer"), "audit")) == []
        # and partitions are made meanwhile
        assert connect("audit_writer").execute("select audit.ensure_partition('2026-10-01')").fetchone() == (
            True,
        )


def test_a_reader_sees_what_is_missing_and_is_refused_to_build(trail: Connection) -> None:
    trail.execute("set role audit_admin")
    assert missing_indexes(trail, "audit") == names(OLD)
    with pytest.raises(NotPermittedError):
        list(build_indexes(trail, "audit"))


def test_the_command_checks_builds_and_says_so(
    trail: Connection, audit_cluster: Server, database: str
) -> None:
    def call(*arguments: str) -> tuple[str, BaseException | None]:
        environment = {"CDC_AUDIT_AUDIT_DSN": audit_cluster.dsn(database, "audit_writer")}
        result = CliRunner().invoke(command, ["index", *arguments], env=environment)
        return result.output, result.exception

    output, error = call("--check")
    assert output.splitlines() == [f"missing {name}" for name in names(OLD)]
    assert isinstance(error, CheckFailedError)
    assert "cdc-audit schema index" in str(error.remedy)
    assert call()[0].splitlines() == [*(f"built {name}" for name in names(OLD)), "done"]
    assert call() == ("no look-up index is missing\n", None)
    assert call("--check")[1] is None


class _Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def surveyed(self, tiers: Tiers) -> None:
        assert tiers.holds == 0

    def informed(self, event: str, **facts: object) -> None:
        self.events.append((event, facts.get("index", facts.get("reason"))))


def test_the_daemon_builds_them_beside_its_work_and_a_stop_ends_a_building(
    trail: Connection, audit_cluster: Server, database: str, connect: Connect
) -> None:
    told = _Told()
    watch: Watch = told  # type: ignore[assignment]
    dsn = audit_cluster.dsn(database, "audit_writer")

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - what it waits for is in the server
                await asyncio.sleep(0.02)

    def waiting() -> int:
        (count,) = trail.execute(
            "select count(*) from pg_stat_activity where application_name = 'cdc-audit index' and wait_event_type = 'Lock'"
        ).fetchone() or (0,)
        return int(count)

    async def story() -> None:
        late = connect("audit_writer")
        with late.transaction():
            insert(late, id=3, created_at=f"{OLD}-11 12:00:00+00")
            task = asyncio.create_task(tend(dsn, "audit", watch, hot=12, first_after=0, interval=0.1))
            await until(lambda: waiting() == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: waiting() == 0)
            task = asyncio.create_task(tend(dsn, "audit", watch, hot=12, first_after=0, interval=0.1))
            await until(lambda: [event for event, _ in told.events] == ["index_postponed"])
        await until(lambda: ("index_built", names(OLD)[-1]) in told.events)
        task.cancel()

    asyncio.run(story())
    assert [index for event, index in told.events if event == "index_built"] == names(OLD)


def test_version_4_is_migrated_and_partitions_without_rows_get_what_new_ones_have(
    empty: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "_MIGRATIONS", migrations._MIGRATIONS[:4])
        older.setattr(migrations, "LATEST", 4)
        migrations.migrate(empty, "audit", None)
    for month in (OLD, NEW):
        empty.execute("select audit.ensure_partition(%s)", (f"{month}-01",))
    insert(empty, id=1, created_at=f"{OLD}-11 12:00:00+00", record_id="r1")
    insert(empty, "ledger", kind="data", last_commit_at=f"{NEW}-02 01:00:00+00", row_count=1)
    assert migrations.migrate(empty, "audit", None)[0] == "0005_lookup"
    found = empty.execute(
        "select relname::text from pg_class where relname like '%\\_open' order by 1"
    ).fetchall()
    assert ("audit_logs_2026_09_open",) in found
    assert ("audit_logs_2026_08_open",) not in found
    assert len(found) == 5  # September, this month, and three ahead
    told = empty.execute(
        "select distinct attrelid::regclass::text from pg_attribute where attoptions = '{n_distinct=-0.1}'"
        " and attname = 'user_id'"
    ).fetchall()
    assert {name for (name,) in told} >= {"audit.audit_logs_2026_08", "audit.audit_logs_2026_09"}
    assert list(build_indexes(empty, "audit")) == names(OLD)
    assert empty.execute("select id from audit.audit_logs where record_id = 'r1'").fetchall() == [(1,)]
