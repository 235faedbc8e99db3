"""How long the trail's answers take on a large trail (``trail_rows``), warm, and how many bytes of index a row has.

Each figure is the question alone, by the functions behind the command, on an open connection: the start of the program (some 0.4 s)
is not in it. Each question is asked of as many records, users and transactions as there are rounds times ten, chosen by a seed,
each once before the clock runs and once timed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, LiteralString

from psycopg import Connection

from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.postgres import connect, named_sql
from cdc_audit.schema.migrate import migrate
from cdc_audit.schema.partitions import build_indexes, digest_rows
from cdc_audit.trail.activity import by_time, shares
from cdc_audit.trail.as_of import as_of, reach
from cdc_audit.trail.history import history
from cdc_audit.trail.query import Filters, one_row, read_log
from cdc_audit.trail.suspicious import findings
from cdc_audit.trail.undo import script
from cdc_audit.trail.verify import reading
from cdc_audit.trail.verify_proof import prove
from tests.bench import trail_rows
from tests.bench.figures import Report, percentile
from tests.bench.stage import Stage
from tests.bench.trail_rows import RARE_APPLICATION, RARE_IP, RARE_TABLE, RARE_TEXT, TABLES, USERS, fill

SCHEMA = "audit"
_SQL = named_sql("tests.bench", "answers.sql")
_EACH = 10
_DAY = timedelta(days=1)
_SEARCHED = 50_000  # what ``log --text`` looks through


def run(stage: Stage) -> Report:
    """Make the trail, ask, and drop it. One that is given by its DSN is left there, and made only where there is none yet."""
    times = stage.options.rounds * _EACH
    if stage.options.trail is not None:
        _make(stage, stage.options.trail)
        return measure(stage.options.trail, times)
    dsn = stage.audit.dsn(stage.audit.create_database("answers"))
    try:
        _make(stage, dsn)
        return measure(dsn, times)
    finally:
        stage.audit.execute("drop database answers with (force)")


def _make(stage: Stage, dsn: str) -> None:
    with connect(dsn, side="audit") as connection:
        if connection.execute(_SQL["is_there"]).fetchone() == (True,):
            return
        migrate(connection, SCHEMA, None)
        stage.say(f"answers: {stage.options.rows:,} rows are written")
        fill(dsn, SCHEMA, stage.options.rows)
        stage.say("answers: look-up indexes of the months that are over, digests of the one that is not")
        built, steps = list(build_indexes(connection, SCHEMA)), list(digest_rows(connection, SCHEMA))
        stage.say(f"answers: {len(built)} indexes, {len(steps)} steps of digests; vacuum")
        connection.execute("vacuum analyze audit.audit_logs, audit.digests")
        stage.say("answers: questions")


def measure(dsn: str, times: int) -> Report:
    """Ask each question ``times`` times; milliseconds, the slowest question first."""
    with connect(dsn, side="audit") as connection, reading(dsn, SCHEMA) as proving:
        extent = Extent(*_one(connection, "extent"))
        months = round((extent.newest - extent.oldest) / timedelta(days=30.4))
        report = Report(f"answers on {extent.rows:,} rows over {months} months, warm")
        found: list[tuple[float, str, list[float]]] = []
        for label, question in Questions(connection, proving, extent).all().items():
            values = [_milliseconds(question) for _ in range(times)]
            found.append((statistics.median(values), label, values))
        for _, label, values in sorted(found, reverse=True):
            report.add(label, "ms", values)
            report.notes.append(f"{label}: 95 % within {percentile(values, 95):.1f} ms")
        for label, size, _ in connection.execute(_SQL["sizes"]):
            report.add(label, "bytes/row", [float(size) / extent.rows])
    return report


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is: rows, the times of the oldest and the newest, records of a table."""

    rows: int
    oldest: datetime
    newest: datetime
    records: int


def _milliseconds(question: Callable[[], object]) -> float:
    question()
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1e3


def _one(connection: Connection, name: str) -> tuple[Any, ...]:
    row = connection.execute(_SQL[name]).fetchone()
    assert row is not None
    return row


class Questions:
    """Each call of a question picks its record or user by a seeded choice, the same for the warming call and the timed one."""

    def __init__(self, connection: Connection, proving: Connection, extent: Extent) -> None:
        self._connection = connection
        self._proving = proving  # as ``verify.reading`` opens it
        self._extent = extent
        self._end = extent.newest.astimezone(UTC) + timedelta(seconds=1)
        self._rand = random.Random(8)
        self._calls = 0
        self._id = 1

    def all(self) -> dict[str, Callable[[], object]]:
        """By what is asked, in words of the commands' own."""
        return {**self._log_questions(), **self._record_questions(), **self._sums(), **self._classics()}

    def _log_questions(self) -> dict[str, Callable[[], object]]:
        log, end, rows = self._log, self._end, self._extent.rows
        return {
            "log": log,
            "log, a later page": lambda: log(before_at=self._row_time(), before_id=self._id),
            "log --since 7d --until 6d": lambda: log(since=end - 7 * _DAY, until=end - 6 * _DAY),
            "log --table": lambda: log(table_name=TABLES[5]),
            "log --table, one of 50,000 rows": lambda: log(table_name=RARE_TABLE),
            "log --table --record": lambda: log(table_name=TABLES[0], record=self._record()),
            "log --record": lambda: log(record=self._record()),
            "log --user": lambda: log(user=self._user()),
            "log --user, nobody": lambda: log(user="nobody"),
            "log --email": lambda: log(email=f"{self._user()}@example.org"),
            "log --action DELETE": lambda: log(action="DELETE"),
            "log --action READ, one of 50,000 rows": lambda: log(action="read"),
            "log --action EXPORT, none": lambda: log(action="EXPORT"),
            "log --field": lambda: log(field="status"),
            "log --field, one of 25,000 rows": lambda: log(field="note"),
            "log --before": lambda: log(before=(("status", "paid"),)),
            "log --after": lambda: log(after=(("status", "paid"),)),
            "log --after, one of 200,000 rows": lambda: log(after=(("total", f"{self._chosen() % 997}.07"),)),
            "log --after, none": lambda: log(after=(("total", "nowhere"),)),
            "log --ip, a network": lambda: log(ip="10.1.0.0/16"),
            "log --ip, an address": lambda: log(ip=f"10.{self._user_number() % 7}.{self._id % USERS % 251}.1/32"),
            "log --ip, one of 20,000 transactions": lambda: log(ip=f"{RARE_IP}/32"),
            "log --ip, a network of few": lambda: log(ip="192.0.2.0/24"),
            "log --application, one of 20,000 transactions": lambda: log(application=RARE_APPLICATION),
            "log --trust none": lambda: log(trust="none"),
            "log --trust forged, one of 20,000 transactions": lambda: log(trust="forged"),
            "log --trust invalid, none": lambda: log(trust="invalid"),
            "log --text": lambda: log(text="linux", above_id=rows - _SEARCHED),
            "log --text, rare (through 50,000 rows)": lambda: log(text=RARE_TEXT, above_id=rows - _SEARCHED),
            "log --text, none, --since 24h": lambda: log(text="nowhere", since=end - _DAY),
            "log --xid": lambda: log(xid=self._xid()),
            "log --user --action --since 30d": lambda: log(user=self._user(), action="DELETE", since=end - 30 * _DAY),
        }  # fmt: skip

    def _record_questions(self) -> dict[str, Callable[[], object]]:
        db, table = self._connection, ("public", TABLES[1])
        read = partial(read_log, db, SCHEMA)
        return {
            "history": lambda: history(read, table, self._record()),
            "show (the row)": lambda: one_row(db, SCHEMA, self._chosen()),
            "show (its transaction)": self._transaction,
            "show (its proof)": lambda: self._proof(self._chosen()),
            "as-of RECORD": lambda: as_of(
                read, reach(db, SCHEMA), table, self._end - 200 * _DAY, self._record()
            ),
            "undo --xid": lambda: self._undo(xid=self._xid()),
            "undo --id": lambda: self._undo(id=self._chosen()),
            "undo --user --since 24h": lambda: self._undo(user=self._user(), since=self._end - _DAY),
        }

    def _sums(self) -> dict[str, Callable[[], object]]:
        day = self._end - _DAY
        return {
            "who --since 30d": lambda: self._who(self._end - 30 * _DAY),
            "deletions --since 24h": lambda: self._log(removals=True, since=day, limit=1001),
            "suspicious --since 24h": lambda: findings(
                self._connection, SCHEMA, Filters(since=day), [SuspiciousRule(kind="bulk")]
            ),
        }

    def _classics(self) -> dict[str, Callable[[], object]]:
        classic, hour = self._classic, self._end - timedelta(hours=1)
        return {
            "classic: all changes of a record": lambda: classic("record", (TABLES[0], self._record())),
            "classic: all actions of a user": lambda: classic("user", (self._user(),)),
            "classic: the newest 50 of a user": lambda: classic("user_page", (self._user(),)),
            "classic: deletions of the last 24 hours": lambda: classic("deletions", (self._end - _DAY,)),
            "classic: over 100 changes of a kind in an hour": lambda: classic("many", (hour,)),
        }

    def _chosen(self) -> int:
        """A row, the same in two calls that follow each other."""
        self._calls += 1
        if self._calls % 2:
            self._id = self._rand.randint(1, self._extent.rows)
        return self._id

    def _record(self) -> str:
        return str(self._chosen() % self._extent.records)

    def _user_number(self) -> int:
        return self._chosen() % USERS

    def _user(self) -> str:
        return f"u{self._user_number()}"

    def _xid(self) -> int:
        """That of a transaction near the chosen row: they have 10.5 rows on average."""
        return trail_rows.FIRST_XID + self._chosen() * 2 // 21

    def _row_time(self) -> datetime:
        return datetime.fromisoformat(one_row(self._connection, SCHEMA, self._chosen()).created_at)

    def _log(self, **filters: object) -> object:
        return list(read_log(self._connection, SCHEMA, Filters(**filters)))  # type: ignore[arg-type]

    def _transaction(self) -> object:
        row = one_row(self._connection, SCHEMA, self._chosen())
        at = datetime.fromisoformat(row.created_at)
        same = {"since": at, "until": at + timedelta(microseconds=1)}
        return self._log(xid=row.xid, commit_lsn=row.commit_lsn, limit=51, oldest_first=True, **same)

    def _proof(self, row_id: int) -> object:
        return prove(self._proving, SCHEMA, row_id, of_whole_block=False)

    def _undo(self, **filters: object) -> object:
        found = Filters(limit=None, oldest_first=True, **filters)  # type: ignore[arg-type]
        rows = [row for row in read_log(self._connection, SCHEMA, found) if row.action != "TRUNCATE"]
        return list(script(rows, context={"user_id": "u1"}))

    def _who(self, since: datetime) -> object:
        filters = Filters(user=self._user(), since=since)
        return shares(self._connection, SCHEMA, filters), by_time(self._connection, SCHEMA, filters, "day")

    def _classic(self, name: str, values: tuple[object, ...]) -> object:
        query: LiteralString = _SQL[name]
        return self._connection.execute(query, values, prepare=False).fetchall()
