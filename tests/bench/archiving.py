"""Two years of a trail into a bucket: speeds, memory and bytes; then the same through SIGKILLs, broken connections and writers.

The first half of the months is archived in peace and timed. The other half by runs that are killed at random moments, through a
proxy that cuts connections to the S3 server, while blocks are written. Then every row is looked for, by its hash: in the audit
database and, with pyarrow alone, in the files.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psycopg
from pyarrow import parquet

from cdc_audit import postgres
from cdc_audit.errors import AnotherDaemonError
from cdc_audit.postgres import named_sql
from cdc_audit.schema.migrate import migrate
from cdc_audit.sink import ledger
from tests.bench.figures import Report
from tests.bench.stage import Stage
from tests.bench.trail_rows import fill
from tests.integration.trail.archiving import KEY_A, LedgerWriter, key_files
from tests.support.object_store import ObjectStore
from tests.support.proxy import Proxy

END = datetime(2025, 7, 1, tzinfo=UTC)
KILLS = 20
_SQL = named_sql("tests.bench", "archiving.sql")


class Done(NamedTuple):
    """A command that ended: seconds, the most memory that it had in MB, and its exit code."""

    seconds: float
    memory: float
    code: int


def run(stage: Stage) -> Report:
    """Make the trail, archive it, count, and drop it."""
    rows = stage.options.rows
    dsn = stage.audit.dsn(stage.audit.create_database("archiving"))
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
    stage.say(f"archive: {rows:,} rows are written")
    fill(dsn, "audit", rows, END)
    store = ObjectStore()
    try:
        store.start()
        with TemporaryDirectory() as folder:
            key_files(Path(folder))
            return _measure(stage, dsn, rows, store, Path(folder))
    finally:
        store.remove()
        stage.audit.execute("drop database archiving with (force)")


def _measure(stage: Stage, dsn: str, rows: int, store: ObjectStore, folder: Path) -> Report:
    report = Report(f"archives of {rows:,} rows over 24 months")
    with psycopg.connect(dsn, autocommit=True) as connection:
        before, hot = _hashes(connection), connection.execute(_SQL["size"]).fetchone()
        ledger.append(connection, "audit", "heartbeat", detail={}, signer=KEY_A)
    assert hot
    bucket = store.bucket(locks=False)
    env = {
        **os.environ, **store.environment, "CDC_AUDIT_AUDIT_DSN": dsn, "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": str(folder / "key.pem"),
        "CDC_AUDIT_RETENTION_ARCHIVE": f"s3://{bucket}/trail",
    }  # fmt: skip
    peace = _timed(env, "archive", "run", "--months", "12")
    left = _rows_left(dsn)
    report.add("archive run", "rows/s", [(rows - left) / peace.seconds])
    report.add("archive run, memory", "MB", [peace.memory])
    stage.say("archive: the other half, with kills, cut connections and a writer")
    report.notes.append(_through_bad_days(env, dsn, store))
    public = str(folder / "key.pem.pub")
    checked = _timed(env, "archive", "verify", "--public-key", public)
    report.add("archive verify", "rows/s", [rows / checked.seconds])
    report.add("archive verify, memory", "MB", [checked.memory])
    whole = _timed(env, "verify", "--public-key", public, "--archive", f"s3://{bucket}/trail")
    assert (checked.code, whole.code) == (0, 0), (checked, whole)
    with psycopg.connect(dsn, autocommit=True) as connection:
        archived, size = _archived(store, bucket)
        here = [(row_id, hash_) for row_id, hash_ in _rows(connection) if row_id <= rows]
    assert _digest(sorted([*archived, *here])) == before, "rows are lost or doubled"
    report.add("hot", "bytes/row", [hot[0] / rows])
    report.add("cold", "bytes/row", [size / len(archived)])
    report.notes.append(
        f"{len(archived):,} rows in archives, {len(here):,} in the audit database: each once, with its hash"
    )
    return report


def _through_bad_days(env: Mapping[str, str], dsn: str, store: ObjectStore) -> str:
    rand, kills, failures = Random(20), 0, 0
    with Proxy("127.0.0.1", store.port) as proxy, _cutting(proxy), _writing(dsn) as written:
        bad = {**env, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}"}
        while _months_left(dsn):
            running = subprocess.Popen(
                _command("archive", "run"), env=bad, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                running.wait(rand.uniform(0.8, 6) if kills < KILLS else None)
                failures += running.returncode != 0
                assert running.returncode in (0, 69), running.communicate()[1]
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.wait()
                kills += 1
            assert running.stderr
            running.stderr.close()
    return f"{kills} SIGKILLs, {failures} runs that gave up, {len(written):,} blocks written meanwhile"


@contextmanager
def _cutting(proxy: Proxy) -> Iterator[None]:
    """All connections are cut at random moments."""
    stopping, rand = threading.Event(), Random(21)

    def work() -> None:
        while not stopping.wait(rand.uniform(0.05, 1)):
            proxy.cut()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _writing(dsn: str) -> Iterator[list[int]]:
    """Blocks of ten rows of the present month, one after another."""
    stopping, written = threading.Event(), list[int]()

    def work() -> None:
        with postgres.connect(dsn, side="audit") as connection:
            writer = LedgerWriter(connection, KEY_A)
            while not stopping.wait(0.02):
                try:
                    with connection.transaction():
                        head = ledger.last_block(connection, "audit")
                        assert head
                        writer.go_on(head[0].end_lsn)
                        writer.data(10, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}+00")
                        written.append(head[0].block)
                except (AnotherDaemonError, psycopg.errors.UniqueViolation):
                    continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield written
    finally:
        stopping.set()
        thread.join()


def _timed(env: Mapping[str, str], *arguments: str) -> Done:
    began = time.perf_counter()
    running = subprocess.Popen(_command(*arguments), env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    return Done(time.perf_counter() - began, usage.ru_maxrss / 1024, running.returncode)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cdc_audit", *arguments]


def _months_left(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_SQL["months"]).fetchone()
    assert row
    return int(row[0])


def _rows_left(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_SQL["count"]).fetchone()
    assert row
    return int(row[0])


def _rows(connection: psycopg.Connection) -> Iterator[tuple[int, bytes]]:
    with connection.transaction(), connection.cursor("rows") as cursor:
        cursor.itersize = 20_000
        for row_id, hash_ in cursor.execute(_SQL["rows"]):
            yield row_id, bytes(hash_)


def _hashes(connection: psycopg.Connection) -> str:
    return _digest(_rows(connection))


def _digest(rows: Iterator[tuple[int, bytes]] | list[tuple[int, bytes]]) -> str:
    digest = hashlib.sha256()
    for row_id, hash_ in rows:
        digest.update(b"%d" % row_id + hash_)
    return digest.hexdigest()


def _archived(store: ObjectStore, bucket: str) -> tuple[list[tuple[int, bytes]], int]:
    """Ids and hashes of all archived rows, and the bytes of all files."""
    found: list[tuple[int, bytes]] = []
    size = 0
    client = store.client()
    with TemporaryDirectory() as folder:
        for key in store.keys(bucket):
            file = Path(folder, "file")
            client.download_file(bucket, key, str(file))
            size += file.stat().st_size
            if "/rows/" in key:
                table = parquet.read_table(file, columns=["id", "row_hash"])
                found += zip(
                    table.column("id").to_pylist(), table.column("row_hash").to_pylist(), strict=True
                )
    return found, size
