"""Old months leave the audit database while the daemon writes to it: it waits for a moment, and nothing is lost or doubled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from cdc_audit import postgres
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger
from tests.integration.trail.archiving import FEBRUARY, JANUARY, MARCH
from tests.integration.trail.tampering import LedgerWriter
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases


def old_months(databases: Databases, key: Path) -> int:
    """Blocks of months that are long over, before the daemon's first one; how many rows they have."""
    with postgres.connect(databases.audit_dsn, side="audit") as connection, connection.transaction():
        writer = LedgerWriter(connection, Signer.from_pem(key.read_bytes()))
        head = ledger.last_block(connection, "audit")
        assert head
        writer.go_on(head[0].end_lsn)
        for month in (JANUARY, FEBRUARY, MARCH):
            writer.data(2_000, month)
            writer.data(2_000, month)
    databases.source.execute("select pg_switch_wal()", dbname=databases.source_name)
    return 12_000


@contextmanager
def inserting(databases: Databases) -> Iterator[list[int]]:
    """Transactions of one row, one after another; the list grows with each that is committed."""
    done: list[int] = []
    stopping = threading.Event()

    def work() -> None:
        with psycopg.connect(databases.source_dsn, autocommit=True) as connection:
            while not stopping.is_set():
                connection.execute("insert into orders values (%s)", (len(done),))
                done.append(len(done))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join()


def test_months_are_archived_while_the_daemon_writes(databases: Databases, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    (tmp_path / "archive").mkdir()
    assert cdc_audit("key", "generate", str(key), env=databases.environment()).returncode == 0
    databases.source.execute("create table orders (id int primary key)", dbname=databases.source_name)
    env = databases.environment(
        LEDGER_SIGNING_KEY_FILE=str(key),
        RETENTION_ARCHIVE=f"file:{tmp_path / 'archive'}",
        BATCH_FLUSH_INTERVAL="0",
    )
    initialised(env)
    old = old_months(databases, key)

    def ran(*arguments: str) -> str:
        done = cdc_audit(*arguments, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stored() -> list[int]:
        query = "select (new_data ->> 'id')::int from audit.audit_logs where created_at > '2026-01-01' order by id"
        return [number for (number,) in databases.audit.execute(query, dbname=databases.audit_name)]

    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with inserting(databases) as committed:
            until(lambda: len(stored()) > 50, "the daemon writes")
            assert len(ran("archive", "run").splitlines()) == 3
            at = len(committed)
            until(lambda: len(stored()) > at, "it goes on")
        until(lambda: len(stored()) == len(committed), "it has stored all")
        assert daemon.stop() == 0
    assert stored() == committed
    said = ran("verify", "--public-key", f"{key}.pub", "--archive", f"file:{tmp_path / 'archive'}")
    assert f"archived: {old:,} rows" in said and "verified" in said
    assert "verified" in ran("archive", "verify", "--public-key", f"{key}.pub")
