"""Two years of a trail into a bucket: speeds, memory, bytes a row in each tier; then the same on bad days.

The first half of the months is archived in peace and timed. The other half by runs that are killed with SIGKILL, at random moments
and at random failpoints in turn, through a proxy that breaks connections to the S3 server and makes failures of its answers (some
of them to requests that it has done), while blocks are written. After each run the ledger's count of rows is compared with what
is here and what retention blocks say is elsewhere. In the end every row is looked for by its hash: with pyarrow alone, in the
bucket's files.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psycopg
from pyarrow import parquet

from cdc_audit import failpoint, postgres
from cdc_audit.errors import AnotherDaemonError
from cdc_audit.postgres import named_sql
from cdc_audit.schema.migrate import migrate
from cdc_audit.schema.partitions import build_indexes
from cdc_audit.sink import ledger
from tests.bench.figures import Report
from tests.bench.stage import Stage
from tests.bench.trail_rows import fill
from tests.integration.trail.archiving import POINTS, key_files
from tests.integration.trail.tampering import KEY_A, LedgerWriter
from tests.support.object_store import ObjectStore
from tests.support.proxy import Proxy

END = datetime(2025, 7, 1, tzinfo=UTC)
KILLS = 20
MOST_MB = 300
_OK, _FAILED = b"HTTP/1.1 200 OK", b"HTTP/1.1 503 NO"
_HIGH_WATER = re.compile(r"VmHWM:\s+(\d+) kB")
_SQL = named_sql("tests.bench", "archiving.sql")


class Done(NamedTuple):
    """A command that ended: seconds, the most memory that it had in MB, its exit code, what it said on standard error."""

    seconds: float
    memory: float
    code: int
    said: str


@dataclass
class BadDays:
    """What happened while months were archived: deaths and where, runs that gave up, failures of the S3 server, and other work."""

    deaths: Counter[str] = field(default_factory=Counter)
    gave_up: int = 0
    broken: int = 0
    failed: int = 0
    blocks: int = 0
    memory: float = 0.0

    def __str__(self) -> str:
        where = ", ".join(f"{count} {point}" for point, count in sorted(self.deaths.items()))
        return (
            f"{self.deaths.total()} SIGKILLs ({where}); {self.broken:,} connections to S3 broken, {self.failed:,} of its answers "
            f"made failures, {self.gave_up} runs gave up; {self.blocks:,} blocks written meanwhile"
        )


def run(stage: Stage) -> Report:
    """Make the trail, archive it, count, and drop it."""
    rows = stage.options.rows
    dsn = stage.audit.dsn(stage.audit.create_database("archiving"))
    store = ObjectStore()
    try:
        store.start()
        with postgres.connect(dsn, side="audit") as connection:
            migrate(connection, "audit", None)
            stage.say(f"archiving: {rows:,} rows are written")
            fill(dsn, "audit", rows, END, KEY_A)
            report = Report(f"archives of {rows:,} rows over 24 months")
            report.add("hot month", "bytes/row", [bytes_stored(connection) / rows])
            built = list(build_indexes(connection, "audit"))
            stage.say(f"archiving: {len(built)} look-up indexes")
            report.add(
                "month that is over, with look-up indexes", "bytes/row", [bytes_stored(connection) / rows]
            )
        with TemporaryDirectory() as folder:
            key_files(Path(folder))
            _measure(stage, report, dsn, store, Path(folder))
        return report
    finally:
        store.remove()
        stage.audit.execute("drop database archiving with (force)")


def _measure(stage: Stage, report: Report, dsn: str, store: ObjectStore, folder: Path) -> None:
    rows, bucket = stage.options.rows, store.bucket(locks=False)
    place = f"s3://{bucket}/trail"
    public = str(folder / "key.pem.pub")
    env = {
        **os.environ, **store.environment, "CDC_AUDIT_AUDIT_DSN": dsn,
        "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": str(folder / "key.pem"), "CDC_AUDIT_RETENTION_ARCHIVE": place,
    }  # fmt: skip
    before = _digest(_rows(dsn, rows))
    stage.say("archiving: twelve months in peace")
    peace = command(env, "archive", "run", "--months", "12")
    assert peace.code == 0, peace.said
    report.add("archive run", "rows/s", [_balance(dsn)[1] / peace.seconds])
    stage.say("archiving: the other twelve, on bad days")
    days = through_bad_days(env, dsn, store, KILLS, peace.seconds / 12)
    report.notes.append(str(days))
    stage.say("archiving: verify")
    checked = command(env, "archive", "verify", "--public-key", public)
    whole = command(env, "verify", "--public-key", public, "--archive", place)
    assert (checked.code, whole.code) == (0, 0), (checked, whole)
    report.add("archive verify", "rows/s", [rows / checked.seconds])
    for name, memory in (
        ("archive run", max(peace.memory, days.memory)),
        ("archive verify", checked.memory),
        ("verify", whole.memory),
    ):
        assert memory < MOST_MB, f"{name} took {memory:.0f} MB"
        report.add(f"{name}, the most memory", "MB", [memory])
    stage.say("archiving: every row is looked for")
    archived, after, size = _archived(store, bucket)
    assert (archived, after) == (rows, before), "rows are lost or doubled"
    report.add("cold", "bytes/row", [size / archived])
    here = next(iter(_balance(dsn)))
    report.notes.append(
        f"each of {archived:,} rows once, with its hash, in the bucket; {here:,} younger ones here"
    )


def through_bad_days(
    env: Mapping[str, str], dsn: str, store: ObjectStore, kills: int, month: float
) -> BadDays:
    """Archive all months that are due, in spite of everything; ``month``: about how many seconds one takes."""
    rand, days = Random(20), BadDays()
    with Proxy("127.0.0.1", store.port) as proxy, _failing(proxy), _writing(dsn) as written:
        bad = {**env, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}"}
        while left := _months_left(dsn):
            one, most, months = bad, None, 12
            if days.deaths.total() < kills:
                months = 1
                if days.deaths.total() % 2 or left == 1:
                    one = {**bad, failpoint.VARIABLE: rand.choice(POINTS[:-1] if left == 1 else POINTS)}
                else:
                    most = rand.uniform(0.5, 1 + month)
            done = command(one, "archive", "run", "--months", str(months), most=most)
            days.memory = max(days.memory, done.memory)
            if done.code == -signal.SIGKILL:
                days.deaths[one.get(failpoint.VARIABLE, "at any moment")] += 1
            else:
                # 75: the server has not noticed yet that the run before is gone
                assert done.code in (0, 69, 75), done.said
                days.gave_up += done.code != 0
            here, elsewhere, known = _balance(dsn)
            assert here + elsewhere == known, f"{here} rows here, {elsewhere} archived, of {known}"
    days.broken, days.failed, days.blocks = proxy.broken, proxy.replaced, len(written)
    assert days.deaths.total() >= kills, f"all is archived after {days}"
    return days


@contextmanager
def _repeating(work: Iterable[float]) -> Iterator[None]:
    """Go through ``work`` in a thread, and wait as long as each of its values says."""
    stopping = threading.Event()

    def go() -> None:
        for seconds in work:
            if stopping.wait(seconds):
                return

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _failing(proxy: Proxy) -> Iterator[None]:
    """At random moments all connections are cut, or for a while whatever succeeds is called a failure."""

    def work() -> Iterator[float]:
        rand = Random(21)
        while True:
            yield rand.uniform(0.02, 0.6)
            if rand.random() < 0.6:
                proxy.cut()
            else:
                proxy.replace = {_OK: _FAILED}
                yield rand.uniform(0.01, 0.2)
                proxy.replace = {}

    with _repeating(work()):
        yield


@contextmanager
def _writing(dsn: str) -> Iterator[list[int]]:
    """Blocks of ten rows of the present month, one after another; their numbers."""
    written: list[int] = []

    def work() -> Iterator[float]:
        with postgres.connect(dsn, side="audit") as connection:
            writer = LedgerWriter(connection, KEY_A)
            while True:
                yield 0.02
                try:
                    with connection.transaction():
                        head = ledger.last_block(connection, "audit")
                        assert head
                        writer.go_on(head[0].end_lsn)
                        writer.data(10, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}+00")
                    written.append(head[0].block + 1)
                except (AnotherDaemonError, psycopg.errors.UniqueViolation):
                    continue

    with _repeating(work()):
        yield written


def command(env: Mapping[str, str], *arguments: str, most: float | None = None) -> Done:
    """Run a command to its end; kill it when ``most`` seconds are over.

    Its memory is the kernel's own high-water mark, asked for all the time: wait4's ru_maxrss has this process's in it, from before
    exec.
    """
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        said = Path(folder, "said")
        with said.open("wb") as stderr:
            running = subprocess.Popen(
                [sys.executable, "-m", "cdc_audit", *arguments],
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        memory = 0.0
        while running.poll() is None:
            memory = max(memory, _high_water(running.pid))
            if most is not None and time.perf_counter() - began > most:
                running.kill()
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.01)
        return Done(time.perf_counter() - began, memory, running.returncode, said.read_text()[-2000:])


def _high_water(pid: int) -> float:
    """The most memory that a process has had so far, in MB; 0 when it is over."""
    found = _HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _months_left(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return next(int(count) for (count,) in connection.execute(_SQL["months"]))


def _balance(dsn: str) -> tuple[int, int, int]:
    with psycopg.connect(dsn) as connection:
        return next((int(a), int(b), int(c)) for a, b, c in connection.execute(_SQL["balance"]))


def bytes_stored(connection: psycopg.Connection) -> int:
    """Of all partitions, with their indexes."""
    return next(int(heap + indexes) for heap, indexes in connection.execute(_SQL["sizes"]))


def _rows(dsn: str, last: int) -> Iterator[tuple[int, bytes]]:
    with psycopg.connect(dsn) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 20_000
        yield from cursor.execute(_SQL["rows"], (last,))


def _digest(rows: Iterable[tuple[int, bytes]]) -> str:
    digest = hashlib.sha256()
    for row_id, hash_ in rows:
        digest.update(b"%d" % row_id + hash_)
    return digest.hexdigest()


def _archived(store: ObjectStore, bucket: str) -> tuple[int, str, int]:
    """Rows in archives, the digest of their ids and hashes in the order of the files' names, and the bytes of all files."""
    counts: list[int] = []
    client = store.client()

    def found() -> Iterator[tuple[int, bytes]]:
        for key in (one for one in keys if "/rows/" in one):
            with TemporaryDirectory() as folder:
                file = Path(folder, "file")
                client.download_file(bucket, key, str(file))
                for batch in parquet.ParquetFile(file).iter_batches(columns=["id", "row_hash"]):
                    counts.append(batch.num_rows)
                    yield from zip(*(batch.column(n).to_pylist() for n in ("id", "row_hash")), strict=True)

    keys = sorted(store.keys(bucket))
    size = sum(client.head_object(Bucket=bucket, Key=key)["ContentLength"] for key in keys)
    digest = _digest(found())
    return sum(counts), digest, size
