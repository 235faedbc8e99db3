"""How long questions take where the rows are in archives: in a folder and in a bucket, beside the same rows in the database.

A trail of 24 months is asked while it is in the database; then it is archived whole into a folder and asked with ``--tier all``;
then the same files in the S3 server. Each question is asked of as many records, users or days as there are rounds, chosen by a
seed: first with nothing of the files in memory (the page cache is told to let go of them; the database's server is started anew,
too), then warm. What is timed is the command itself, from its arguments to its last line, with a connection of its own; the start
of the program is told apart. An answer from archives must be that of the database, to the byte.

The S3 server is on this machine: a distant one adds its latency to each of the requests that are counted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from click.testing import CliRunner

from cdc_audit import postgres
from cdc_audit.cli import cdc_audit as program
from cdc_audit.errors import CheckFailedError
from cdc_audit.schema.migrate import migrate
from cdc_audit.schema.partitions import build_indexes
from cdc_audit.trail.archive_store import Bucket
from tests.bench.archiving import END, bytes_stored, command
from tests.bench.figures import Report
from tests.bench.stage import Stage
from tests.bench.trail_rows import TABLES, USERS, fill
from tests.integration.trail.archiving import key_files
from tests.integration.trail.tampering import KEY_A
from tests.support.object_store import ObjectStore

_MONTHS = 24
_DAY = timedelta(days=1)

Questions = Mapping[str, Sequence[Sequence[str]]]  # what is asked -> the arguments of each round


class Answers:
    """What was answered, to be compared; and how long that took: (label, first or warm) -> milliseconds of each round."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._said: dict[tuple[str, int], str] = {}
        self.times: dict[tuple[str, str, str], list[float]] = {}
        self.requests: dict[str, list[float]] = {}

    def ask(self, tier: str, env: Mapping[str, str], forget: Callable[[], None], *more: str) -> None:
        """All questions, each round from disk and then warm. AssertionError if an answer is not the one of another tier."""
        for label, rounds in self._questions.items():
            for number, arguments in enumerate(rounds):
                forget()
                with _counted() as requests:
                    first, said = _timed(env, *arguments, *more)
                assert said == self._said.setdefault((label, number), said), f"{tier}: {arguments}"
                _timed(env, *arguments, *more)
                warm, _ = _timed(env, *arguments, *more)
                self.times.setdefault((label, tier, "first"), []).append(first)
                self.times.setdefault((label, tier, "warm"), []).append(warm)
                if requests:
                    self.requests.setdefault(label, []).append(len(requests))

    def tell(self, report: Report) -> None:
        """Into a report, question by question."""
        for label in self._questions:
            for (asked, tier, state), values in self.times.items():
                if asked == label:
                    report.add(f"{label}: {tier}, {state}", "ms", values)
            report.add(f"{label}: bucket", "requests", self.requests.get(label, []))


def run(stage: Stage) -> Report:
    """Make the trail, ask, archive it, ask again twice, and drop it."""
    rows = stage.options.rows
    dsn = stage.audit.dsn(stage.audit.create_database("cold"))
    store = ObjectStore()
    try:
        store.start()
        with TemporaryDirectory() as folder:
            return _measured(stage, dsn, rows, store, Path(folder))
    finally:
        store.remove()
        stage.audit.execute("drop database cold with (force)")


def _measured(stage: Stage, dsn: str, rows: int, store: ObjectStore, folder: Path) -> Report:
    report = Report(f"look-ups in {rows:,} rows over {_MONTHS} months")
    key_files(folder)
    stage.say(f"cold: {rows:,} rows are written")
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        fill(dsn, "audit", rows, END, KEY_A)
        bare = bytes_stored(connection)
        stage.say(f"cold: {len(list(build_indexes(connection, 'audit')))} look-up indexes")
        report.add("database, look-up indexes", "bytes/row", [bytes_stored(connection) / rows])
        report.add("database without them", "bytes/row", [bare / rows])
        connection.execute("vacuum analyze audit.audit_logs")
    archive = folder / "archive"
    archive.mkdir()
    env = {
        **os.environ, **store.environment, "CDC_AUDIT_AUDIT_DSN": dsn, "CDC_AUDIT_RETENTION_ARCHIVE": f"file:{archive}",
        "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": str(folder / "key.pem"),
    }  # fmt: skip
    answers = Answers(questions(rows, stage.options.rounds))
    stage.say("cold: questions to the database")
    answers.ask("database", env, lambda: _forget_server(stage))
    stage.say("cold: archived into a folder")
    done = command(env, "archive", "run", "--months", str(_MONTHS))
    assert done.code == 0, done.said
    report.add("archive run, to a folder", "rows/s", [rows / done.seconds])
    with postgres.connect(dsn, side="audit") as connection:
        assert connection.execute("select 1 from audit.audit_logs limit 1").fetchone() is None
    stage.say("cold: questions to the folder")
    answers.ask("folder", env, lambda: _forget(archive), "--tier", "all")
    size = sum(file.stat().st_size for file in archive.rglob("*") if file.is_file())
    report.add("archives", "bytes/row", [size / rows])
    _verify(report, "folder", env, folder, rows)
    place = _in_bucket(archive, store)
    env |= {"CDC_AUDIT_RETENTION_ARCHIVE": place}
    stage.say("cold: questions to the bucket")
    answers.ask("bucket", env, lambda: _forget(store.folder), "--tier", "all")
    _verify(report, "bucket", env, folder, rows)
    for tier in ("database", "all"):
        done = command(env, "log", "--limit", "1", "--tier", tier)
        assert done.code == 0, done.said
        report.add(f"log --limit 1 --tier {tier}, the whole program", "ms", [done.seconds * 1e3])
        report.add(f"log --limit 1 --tier {tier}, its memory", "MB", [done.memory])
    answers.tell(report)
    return report


def questions(rows: int, rounds: int) -> Questions:
    """What ``--tier all`` serves, in words of the commands' own. The same for the same numbers."""
    rand = random.Random(9)
    records = max(1, rows // 120)

    def record() -> str:
        return str(int(records * rand.random()))

    def day() -> tuple[str, ...]:
        since = END - rand.randint(31, 700) * _DAY
        return "--since", since.isoformat(), "--until", (since + _DAY).isoformat()

    asked: dict[str, Callable[[], tuple[str, ...]]] = {
        "log --table --record": lambda: ("log", "--table", TABLES[0], "--record", record()),
        "log --user": lambda: ("log", "--user", f"u{int(USERS * rand.random() ** 2)}"),
        "log --user, nobody": lambda: ("log", "--user", "nobody"),
        "log --since --until, a day": lambda: ("log", *day()),
        "log --action DELETE": lambda: ("log", "--action", "DELETE"),
        "log --action READ, one of 50,000 rows": lambda: ("log", "--action", "READ"),
        "log --field": lambda: ("log", "--field", "status"),
        "log --field, one of 25,000 rows": lambda: ("log", "--field", "note"),
        "history": lambda: ("history", f"public.{TABLES[1]}", record()),
        "as-of RECORD": lambda: ("as-of", f"public.{TABLES[1]}", record(), "--at", day()[1]),
        "deletions, a day": lambda: ("deletions", *day()),
    }
    return {label: [(*arguments(), "--json") for _ in range(rounds)] for label, arguments in asked.items()}


def _timed(env: Mapping[str, str], *arguments: str) -> tuple[float, str]:
    """Milliseconds that a command takes in this process, and all that it says."""
    given: dict[str, str | None] = {**env}
    began = time.perf_counter()
    done = CliRunner().invoke(program, arguments, env=given)
    taken = (time.perf_counter() - began) * 1e3
    if done.exception is not None and not isinstance(
        done.exception, CheckFailedError
    ):  # as-of of what was not there
        raise done.exception
    return taken, f"{done.output}{done.exception or ''}"


@contextmanager
def _counted() -> Iterator[list[str]]:
    """The names in the bucket of which something is fetched meanwhile, one for each request."""
    asked: list[str] = []

    def counting(method: Callable[..., object], requests: int) -> Callable[..., object]:
        def call(store: Bucket, name: str, *rest: int) -> object:
            asked.extend([name] * requests)
            return method(store, name, *rest)

        return call

    with (
        mock.patch.object(Bucket, "piece", counting(Bucket.piece, 1)),
        mock.patch.object(Bucket, "open", counting(Bucket.open, 2)),  # a HEAD and a GET
    ):
        yield asked


def _forget_server(stage: Stage) -> None:
    stage.audit.stop("fast")
    _forget(stage.audit.data)
    stage.audit.start()


def _forget(folder: Path) -> None:
    """Nothing of its files stays in memory, as far as the kernel lets go of it."""
    os.sync()
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _in_bucket(archive: Path, store: ObjectStore) -> str:
    """The same files as objects; where."""
    bucket, client = store.bucket(locks=False), store.client()
    for file in archive.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), bucket, f"trail/{file.relative_to(archive)}")
    return f"s3://{bucket}/trail"


def _verify(report: Report, tier: str, env: Mapping[str, str], folder: Path, rows: int) -> None:
    done = command(env, "archive", "verify", "--public-key", str(folder / "key.pem.pub"))
    assert done.code == 0, done.said
    report.add(f"archive verify, {tier}", "rows/s", [rows / done.seconds])
