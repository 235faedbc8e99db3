"""SIGHUP reads tables and redaction again; the rest of the configuration stays, and so do the rules of an open transaction."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

OPEN = "[source]\nexclude = []\n"
CLOSED = "[source]\nexclude = ['public.noise']\n[[redact.rules]]\ntable = 'public.t'\ncolumn = 'note'\nmode = 'mask'\n"
TABLES = "create table t (id int primary key, note text); create table noise (id int primary key)"
# Of each transaction: its rows by table and by whether they are masked.
ROWS = """
    select xid, table_name, new_data ->> 'note' is not distinct from '[redacted]', count(*)
    from audit.audit_logs group by 1, 2, 3
"""


def test_sighup_takes_other_tables_and_redaction_rules_without_losing_the_stream(
    databases: Databases, tmp_path: Path
) -> None:
    file = tmp_path / "cdc-audit.toml"
    file.write_text("[log]\nlevel = 'info'\n")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", CONFIG=str(file))
    del env["CDC_AUDIT_SOURCE_EXCLUDE"]
    databases.source.execute("create table t (id int primary key, note text)", dbname=databases.source_name)
    databases.source.execute("create table noise (id int primary key)", dbname=databases.source_name)
    initialised(env)
    query = "select table_name, new_data ->> 'note' from audit.audit_logs order by id"

    def trail() -> list[tuple[object, ...]]:
        return databases.audit.execute(query, dbname=databases.audit_name)

    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute("insert into t values (1, 'seen')", dbname=databases.source_name)
        databases.source.execute("insert into noise values (1)", dbname=databases.source_name)
        until(lambda: len(trail()) == 2, "both tables are in scope")
        file.write_text(
            "[source]\nexclude = ['public.noise']\n[[redact.rules]]\ntable = 'public.t'\ncolumn = 'note'\nmode = 'mask'\n"
        )
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reloaded"), "it says that it has reloaded")
        databases.source.execute("insert into noise values (2)", dbname=databases.source_name)
        databases.source.execute("insert into t values (2, 'unseen')", dbname=databases.source_name)
        until(lambda: len(trail()) == 3, "the third row")
        file.write_text("[source]\nexclud = ['x.y']\n")
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reload_refused"), "a wrong file is refused, and the daemon goes on")
        databases.source.execute("insert into t values (3, 'x')", dbname=databases.source_name)
        until(lambda: len(trail()) == 4, "the fourth row")
        assert daemon.stop() == 0
    assert trail() == [("t", "seen"), ("noise", None), ("t", "[redacted]"), ("t", "[redacted]")]


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_sighup_in_the_middle_of_a_transaction_leaves_it_the_rules_that_it_began_with(
    plugin: str, databases: Databases, tmp_path: Path
) -> None:
    file = tmp_path / "cdc-audit.toml"
    file.write_text(OPEN)
    env = databases.environment(CONFIG=str(file), SOURCE_PLUGIN=plugin)
    del env["CDC_AUDIT_SOURCE_EXCLUDE"]
    databases.source.execute(TABLES, dbname=databases.source_name)
    initialised(env)
    env["CDC_AUDIT_FAILPOINT"] = (
        "mid-transaction=stop"  # and that it is asleep then shows that it had begun to hand over
    )
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute(
            "insert into t select n, repeat('x', 50) from generate_series(1, 20000) n;"
            "insert into noise select generate_series(1, 10)",
            dbname=databases.source_name,
        )
        until(lambda: daemon.state == "T", "it stops in the middle of the transaction")
        file.write_text(CLOSED)
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGCONT)
        until(lambda: daemon.events("reloaded"), "it says that it has reloaded")
        databases.source.execute(
            "insert into noise values (0); insert into t values (0, 'x')", dbname=databases.source_name
        )
        until(lambda: len(counted(databases)) == 2, "both transactions")
        assert daemon.stop() == 0
    assert sorted(map(sorted, counted(databases).values())) == [
        [("noise", False, 10), ("t", False, 20000)],
        [("t", True, 1)],
    ]


def test_sighup_under_load_gives_each_transaction_the_one_set_of_rules_or_the_other(
    databases: Databases, tmp_path: Path
) -> None:
    """A table that comes back into scope is no longer left out by the server either."""
    file = tmp_path / "cdc-audit.toml"
    file.write_text(CLOSED)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", CONFIG=str(file))
    del env["CDC_AUDIT_SOURCE_EXCLUDE"]
    databases.source.execute(TABLES, dbname=databases.source_name)
    initialised(env)
    stopping = threading.Event()
    written: list[int] = []

    def write() -> None:
        with psycopg.connect(databases.source_dsn) as application:
            while not stopping.is_set():
                n = len(written)
                application.execute(f"insert into noise values ({n}); insert into t values ({n}, 'x')")
                application.commit()
                written.append(n)

    def reload(number: int) -> None:
        is_open = number % 2 == 0
        file.write_text(OPEN if is_open else CLOSED)
        daemon.signal(signal.SIGHUP)
        until(lambda: len(daemon.events("reloaded")) > number, "it says that it has reloaded")
        begun_since = len(written) + 2  # the next one may have begun
        until(lambda: len(written) > begun_since, "a transaction under the new rules")
        expected = {("t", not is_open, 1), *([("noise", False, 1)] if is_open else [])}
        until(lambda: of_record(databases, begun_since) == expected, "its rows, by the new rules")

    writing = threading.Thread(target=write)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        writing.start()
        try:
            for number in range(6):
                reload(number)
        finally:
            stopping.set()
            writing.join()
        until(lambda: len(counted(databases)) == len(written), "every transaction")
        assert daemon.stop() == 0
    kinds = Counter(frozenset(rows) for rows in counted(databases).values())
    assert kinds.keys() == {frozenset({("t", True, 1)}), frozenset({("t", False, 1), ("noise", False, 1)})}


def counted(databases: Databases) -> dict[int, list[tuple[str, bool, int]]]:
    found: dict[int, list[tuple[str, bool, int]]] = {}
    for xid, *rows in databases.audit.execute(ROWS, dbname=databases.audit_name):
        found.setdefault(xid, []).append(tuple(rows))
    return found


def of_record(databases: Databases, number: int) -> set[tuple[str, bool, int]]:
    """What is stored of the transaction that wrote this row into t."""
    xids = databases.audit.execute(
        f"select xid from audit.audit_logs where table_name = 't' and record_id = '{number}'",
        dbname=databases.audit_name,
    )
    return set(counted(databases)[xids[0][0]]) if xids else set()
