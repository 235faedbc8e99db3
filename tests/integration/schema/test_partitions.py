"""Monthly partitions: in UTC, once, ahead of time, and never at the price of a row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from threading import Barrier

import psycopg
import pytest
from psycopg import Connection

from cdc_audit.errors import NotPermittedError, UnavailableError
from cdc_audit.schema.drain import drain_default
from cdc_audit.schema.migrate import migrate
from cdc_audit.schema.partitions import ensure_ahead, partitions
from tests.integration.schema.conftest import Connect
from tests.integration.schema.rows import insert


def ensure(connection: Connection, month: str) -> bool:
    row = connection.execute("select audit.ensure_partition(%s::date)", (month,)).fetchone()
    assert row is not None
    return bool(row[0])


def places(connection: Connection) -> list[tuple[int, str]]:
    return connection.execute(
        "select id, tableoid::regclass::text from audit.audit_logs order by id"
    ).fetchall()


def test_a_partition_is_made_once_from_any_day_of_its_month(connect: Connect, audit: Connection) -> None:
    writer = connect("audit_writer")
    assert ensure(writer, "2020-02-29")
    assert ensure(writer, "2020-02-01")
    names = [one.name for one in partitions(audit, "audit")]
    assert names.count("audit_logs_2020_02") == 1
    assert audit.execute(
        "select relowner::regrole::text from pg_class where relname = 'audit_logs_2020_02'"
    ).fetchone() == ("audit_owner",)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "Asia/Kolkata", "UTC"])
def test_a_month_begins_at_midnight_utc_in_every_session(
    audit: Connection, connect: Connect, zone: str
) -> None:
    writer = connect("audit_writer")
    writer.execute(
        "select set_config('timezone', %s, false), set_config('datestyle', 'SQL, DMY', false)", (zone,)
    )
    assert ensure(writer, "2020-03-01")
    insert(writer, id=1, created_at="2020-02-29 23:59:59.999999+00")
    insert(writer, id=2, created_at="2020-03-01 00:00:00+00")
    insert(writer, id=3, created_at="2020-03-31 23:59:59.999999+00")
    insert(writer, id=4, created_at="2020-04-01 00:00:00+00")
    leaf, rest = "audit.audit_logs_2020_03", "audit.audit_logs_default"
    assert places(audit) == [(1, rest), (2, leaf), (3, leaf), (4, rest)]
    (made,) = [one for one in partitions(audit, "audit") if one.name == "audit_logs_2020_03"]
    assert (made.lower, made.upper) == (datetime(2020, 3, 1, tzinfo=UTC), datetime(2020, 4, 1, tzinfo=UTC))


def test_sessions_that_ask_for_one_month_at_once_all_get_it(audit: Connection, connect: Connect) -> None:
    writers = [connect("audit_writer") for _ in range(4)]
    for month in ("2020-05-01", "2020-06-01", "2020-07-01"):
        start = Barrier(len(writers))

        def ask(writer: Connection, month: str = month, start: Barrier = start) -> bool:
            start.wait(10)
            return ensure(writer, month)

        with ThreadPoolExecutor(len(writers)) as pool:
            assert list(pool.map(ask, writers)) == [True] * len(writers)
    names = [one.name for one in partitions(audit, "audit")]
    assert {"audit_logs_2020_05", "audit_logs_2020_06", "audit_logs_2020_07"} <= set(names)


def test_rows_in_the_default_partition_stay_there_and_are_found(audit: Connection) -> None:
    insert(audit, created_at="2020-08-31 23:00:00+00")
    assert not ensure(audit, "2020-08-01")
    assert ensure(audit, "2020-09-01")
    insert(audit, id=2, created_at="2020-08-31 23:30:00+00")
    assert places(audit) == [(1, "audit.audit_logs_default"), (2, "audit.audit_logs_default")]
    assert audit.execute(
        "select count(*) from audit.audit_logs where created_at >= '2020-08-01'"
    ).fetchone() == (2,)


def test_a_copy_that_is_still_open_in_another_partition_delays_nothing(
    audit: Connection, connect: Connect
) -> None:
    writer, other = connect("audit_writer"), connect("audit_writer")
    ensure(writer, "2020-10-01")
    with writer.transaction():
        insert(writer, created_at="2020-10-05 00:00:00+00")
        other.execute("set statement_timeout = '2s'")
        assert ensure(other, "2020-11-01")
    assert places(audit) == [(1, "audit.audit_logs_2020_10")]


def test_a_busy_default_partition_is_not_waited_for_and_the_next_call_succeeds(
    audit: Connection, connect: Connect
) -> None:
    writer, other = connect("audit_writer"), connect("audit_writer")
    with writer.transaction():
        insert(writer, created_at="2020-12-05 00:00:00+00")
        assert not ensure(other, "2021-01-01")
    assert ensure(other, "2021-01-01")
    assert not ensure(other, "2020-12-01")


@pytest.mark.parametrize("month", ["1999-12-31", "5000-01-01"])
def test_a_month_out_of_all_reason_goes_to_the_default_partition(audit: Connection, month: str) -> None:
    assert not ensure(audit, month)
    insert(audit, created_at=f"{month} 00:00:00+00")
    assert places(audit) == [(1, "audit.audit_logs_default")]


@pytest.mark.parametrize("month", [None, "infinity", "-infinity"])
def test_what_is_no_month_is_refused(audit: Connection, month: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        audit.execute("select audit.ensure_partition(%s::date)", (month,))


def test_a_table_that_merely_has_the_name_is_left_alone(audit: Connection) -> None:
    audit.execute("create table audit.audit_logs_2021_02 (i int)")
    assert not ensure(audit, "2021-02-01")


def test_a_callers_search_path_does_not_reach_into_the_function(audit: Connection, connect: Connect) -> None:
    audit.execute("create schema evil; grant usage on schema evil to public")
    for signature in ("to_char(date, text)", "format(text, variadic text[])"):
        body = "returns text language plpgsql as $$ begin raise 'trapped'; end $$"
        audit.execute(f"create function evil.{signature} {body}".encode())
    writer = connect("audit_writer")
    writer.execute("set search_path = evil, pg_catalog")
    writer.execute("create temporary table pg_inherits (inhparent oid, inhrelid oid)")
    assert ensure(writer, "2021-03-01")
    assert "audit_logs_2021_03" in [one.name for one in partitions(audit, "audit")]


def test_months_ahead_are_made_and_those_that_cannot_be_are_named(
    audit: Connection, connect: Connect
) -> None:
    assert ensure_ahead(connect("audit_writer"), "audit", 5) == []
    found = partitions(audit, "audit")
    assert len(found) == 7
    assert found[-1].name == "audit_logs_default"
    assert found[-1].lower is None
    assert all(one.upper == following.lower for one, following in pairwise(found[:-1]))
    (month,) = audit.execute(
        "select to_char(now() at time zone 'UTC' + interval '8 months', 'YYYY-MM')"
    ).fetchone() or ("",)
    insert(audit, created_at=f"{month}-15 00:00:00+00")
    assert ensure_ahead(audit, "audit", 9) == [month]


def test_partitions_tell_their_size_and_rows(audit: Connection) -> None:
    for number in range(20):
        insert(audit, id=number, created_at="2020-01-01 00:00:00+00")
    audit.execute("analyze audit.audit_logs_default")
    last = partitions(audit, "audit")[-1]
    assert (last.name, last.rows) == ("audit_logs_default", 20)
    assert last.bytes > 8192
    assert partitions(audit, "no_such_schema") == []


def test_a_reader_cannot_make_partitions_and_is_told_who_can(audit: Connection) -> None:
    audit.execute("set role audit_admin")
    with pytest.raises(NotPermittedError) as caught:
        ensure_ahead(audit, "audit")
    assert caught.value.remedy is not None
    assert "audit_writer" in caught.value.remedy


def test_rows_of_the_default_partition_are_moved_to_their_months_and_are_the_same_rows(
    audit: Connection, connect: Connect
) -> None:
    writer = connect("audit_writer")
    when = (
        "2020-03-31 23:59:59.999999+00",
        "2020-04-01 00:00:00+00",
        "1999-12-31 00:00:00+00",
        "2020-03-02 00:00:00+00",
    )
    for row_id, at in enumerate(when, 1):
        insert(writer, id=row_id, created_at=at)
    before = audit.execute("select * from audit.audit_logs order by id").fetchall()
    assert {place for _, place in places(audit)} == {"audit.audit_logs_default"}
    assert drain_default(audit, "audit") == [("2020-03", 2), ("2020-04", 1)]
    assert audit.execute("select * from audit.audit_logs order by id").fetchall() == before
    march, april, rest = (f"audit.audit_logs_{name}" for name in ("2020_03", "2020_04", "default"))
    assert places(audit) == [(1, march), (2, april), (3, rest), (4, march)]
    assert drain_default(audit, "audit") == []
    insert(writer, id=5, created_at="1998-01-01 00:00:00+00")
    insert(writer, id=6, created_at="2020-04-30 00:00:00+00")
    assert places(audit)[4:] == [(5, rest), (6, april)]
    for statement in ("delete from audit.audit_logs_default", "truncate audit.audit_logs_default"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            audit.execute(statement)
    owner = "select distinct relowner::regrole::text from pg_class where relname like 'audit_logs_%' and relkind in ('r', 'i')"
    assert audit.execute(owner).fetchall() == [("audit_owner",)]
    migrate(audit, "audit", None)


def test_a_trail_that_is_being_read_is_not_waited_for(audit: Connection, connect: Connect) -> None:
    insert(connect("audit_writer"), id=1, created_at="2020-03-31 00:00:00+00")
    reader = connect("postgres")
    with reader.transaction():
        reader.execute("select count(*) from audit.audit_logs")
        with pytest.raises(UnavailableError, match="the default partition can wait"):
            drain_default(audit, "audit")
    assert places(audit) == [(1, "audit.audit_logs_default")]
    assert drain_default(audit, "audit") == [("2020-03", 1)]
