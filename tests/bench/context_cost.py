"""What saying who acts costs an application: microseconds a transaction with each integration beside the same code without it, and
the statements that it sends, as the server's log has them.

One connection each, one transaction at a time, over a Unix socket, client and server on one processor, commits don't wait for the
disk: so that the work is what is seen, and not how long an idle processor takes to wake. A transaction that writes inserts a row
and updates it; one that only reads reads twice. The two are run in turn, first one and then the other, and only differences within
a round are taken. No daemon runs: it doesn't stand in an application's way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg

from cdc_audit.source import install
from tests.bench.context_ways import FIELDS, WAYS, Batch, by_hand, psycopg_sync
from tests.bench.figures import Report
from tests.bench.stage import Stage
from tests.support.databases import Databases

_BATCH = 200  # transactions
_COUNTED = 20
_TABLES = ("orders", "bridged", "named")
READ = ("select count(*) from orders where id = 1", "select count(*) from orders where id = 2")


def run(stage: Stage) -> Report:
    """Per integration: a write without it, what it adds to a write and to a read, and statements of ours in each."""
    report = Report(
        "cost of context: microseconds a transaction, client and server on one processor;"
        " writes insert and update a row, reads read twice"
    )
    with _one_processor(stage), stage.databases() as databases, ExitStack() as opened:
        _prepare(databases)
        for name, way in WAYS.items():
            plain = opened.enter_context(way(databases.source_dsn, False))
            audited = opened.enter_context(way(databases.source_dsn, True))
            _compare(stage, report, name, (plain, write()), (audited, write()), (plain, audited))
            _count(stage, report, name, audited)
        plain = opened.enter_context(by_hand(databases.source_dsn, False))
        setting = "select set_config('app.who', '{\"user_id\": \"u42\"}', true)"
        ours, theirs = (setting, *write("bridged")), (setting, *write())
        _compare(stage, report, "source install --guc", (plain, theirs), (plain, ours))
        _compare(stage, report, "--sessions, nobody named", (plain, write()), (plain, write("named")))
        said = opened.enter_context(psycopg_sync(databases.source_dsn, True))
        _compare(stage, report, "--sessions, psycopg", (said, write()), (said, write("named")))
    report.notes.append(f"contexts of {len(FIELDS)} fields; {_BATCH} transactions a round and way")
    return report


@contextmanager
def _one_processor(stage: Stage) -> Iterator[None]:
    """This process and the server's sessions to come share one. Linux only."""
    before = os.sched_getaffinity(0)
    for pid in (0, stage.source.pid):
        os.sched_setaffinity(pid, {min(before)})
    try:
        yield
    finally:
        for pid in (0, stage.source.pid):
            os.sched_setaffinity(pid, before)


def write(table: str = "orders") -> tuple[str, ...]:
    """The statements of a transaction that writes."""
    return (
        f"insert into {table} (app, who) values ('bench', 'u42')",
        f"update {table} set changes = changes + 1 where id = (select lastval())",
    )


def _prepare(databases: Databases) -> None:
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        for table in _TABLES:
            source.execute(
                f"create table {table} (id bigint generated always as identity primary key,"
                " app text, who text, changes int default 1)".encode()
            )
            # With some rows and statistics, plans use the primary key from the start: what is timed must not grow with the table.
            source.execute(
                f"insert into {table} (app) select 'bench' from generate_series(1, 10000)".encode()
            )
            source.execute(f"vacuum analyze {table}".encode())
        install.install(source)
        install.install_guc_bridge(source, "app.who", ["public.bridged"])
        install.install_session_triggers(source, ["public.named"])
        source.execute(f'alter database "{databases.source_name}" set synchronous_commit = off'.encode())


def _compare(
    stage: Stage,
    report: Report,
    name: str,
    without: tuple[Batch, Sequence[str]],
    with_it: tuple[Batch, Sequence[str]],
    reading: tuple[Batch, Batch] | None = None,
) -> None:
    plain, added, read, added_to_read = [], [], [], []
    for batch, statements in (without, with_it):
        batch(statements, 20)  # statements are prepared, plans cached, the first question asked
    for number in stage.rounds(name):
        base, more = _turns(without, with_it, number)
        plain.append(base)
        added.append(more - base)
        if reading is not None:
            base, more = _turns((reading[0], READ), (reading[1], READ), number)
            read.append(base)
            added_to_read.append(more - base)
    report.add(f"{name}: a write", "µs", plain)
    report.add(f"{name}: context adds", "µs", added)
    report.add(f"{name}: a read", "µs", read)
    report.add(f"{name}: context adds to it", "µs", added_to_read)


def _turns(
    without: tuple[Batch, Sequence[str]], with_it: tuple[Batch, Sequence[str]], number: int
) -> tuple[float, float]:
    """Microseconds a transaction of both; who begins changes from round to round."""
    if number % 2:
        more = _timed(*with_it)
        return _timed(*without), more
    return _timed(*without), _timed(*with_it)


def _timed(batch: Batch, statements: Sequence[str]) -> float:
    began = time.perf_counter()
    batch(statements, _BATCH)
    return (time.perf_counter() - began) / _BATCH * 1e6


def _count(stage: Stage, report: Report, name: str, batch: Batch) -> None:
    """Statements of ours in the server's log, a transaction."""
    for what, statements in (("read", READ), ("write", write())):
        stage.source.execute("alter system set log_statement = 'all'")
        stage.source.execute("select pg_reload_conf()")
        _until_logged(stage, True)
        begun = len(stage.source.log_text())
        batch(statements, _COUNTED)
        lines = stage.source.log_text()[begun:].splitlines()
        stage.source.execute("alter system reset log_statement")
        stage.source.execute("select pg_reload_conf()")
        _until_logged(stage, False)
        seen = sum(statements[0] in line for line in lines)
        if seen != _COUNTED:
            raise RuntimeError(f"{name}: the log has {seen} of {_COUNTED} transactions")
        ours = sum("cdc_audit." in line for line in lines)
        report.add(f"{name}: statements in a {what}", "", [ours / _COUNTED])


def _until_logged(stage: Stage, wanted: bool) -> None:
    """Wait until a reload has reached the server's sessions: ours is one like the others."""
    mark = "'cdc_audit bench: is this logged?'"
    deadline = time.monotonic() + 10
    while True:
        begun = len(stage.source.log_text())
        stage.source.execute(f"select {mark}")
        if (mark in stage.source.log_text()[begun:]) == wanted:
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the server's log_statement did not change")
