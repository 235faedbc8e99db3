"""How long the trail's answers take on a large trail (``trail_rows``), warm, and how many bytes of index a row has.

Each figure is the question alone, by the functions
behind the command, on an open connection: the start of the program (some 0.4 s) is not in it. Each question is asked of as many
records and users as there are rounds times ten, each once before the clock runs and once timed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg import Connection

from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.postgres import connect, named_sql
from cdc_audit.schema.migrate import migrate
from cdc_audit.trail.activity import by_time, shares
from cdc_audit.trail.as_of import as_of
from cdc_audit.trail.history import history
from cdc_audit.trail.query import Filters, one_row, read_log
from cdc_audit.trail.suspicious import findings
from tests.bench.figures import Report, percentile
from tests.bench.stage import Stage
from tests.bench.trail_rows import TABLES, USERS, fill

SCHEMA = "audit"
_SQL = named_sql("tests.bench", "answers.sql")
_EACH = 10
_DAY = timedelta(days=1)


def run(stage: Stage) -> Report:
    """Make the trail, ask, and drop it."""
    dsn = stage.audit.dsn(stage.audit.create_database("answers"))
    with connect(dsn, side="audit") as connection:
        migrate(connection, SCHEMA, None)
    stage.say(f"answers: {stage.options.rows:,} rows are written")
    fill(dsn, SCHEMA, stage.options.rows)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("vacuum analyze audit.audit_logs")
        try:
            return measure(connection, stage.options.rounds * _EACH)
        finally:
            connection.close()
            stage.audit.execute("drop database answers with (force)")


def measure(connection: Connection, times: int) -> Report:
    """Ask each question ``times`` times; milliseconds."""
    found = connection.execute(_SQL["size"]).fetchone()
    assert found is not None
    rows, newest, table_bytes, index_bytes, records = found
    report = Report(f"answers on {rows:,} rows over 24 months, warm")
    ask = _Questions(connection, newest, rows, records)
    for label, question in ask.all().items():
        seconds = [_seconds(question) for _ in range(times)]
        report.add(label, "ms", [one * 1e3 for one in seconds])
        report.notes.append(f"{label}: 95 % within {percentile(seconds, 95) * 1e3:.1f} ms")
    report.add("table", "bytes/row", [table_bytes / rows])
    report.add("indexes", "bytes/row", [index_bytes / rows])
    return report


def _seconds(question: Callable[[], object]) -> float:
    question()
    began = time.perf_counter()
    question()
    return time.perf_counter() - began


class _Questions:
    """Each call of a question picks its record or user by a seeded choice, the same for the warming call and the timed one."""

    def __init__(self, connection: Connection, newest: datetime, rows: int, records: int) -> None:
        self._connection = connection
        self._end = newest.astimezone(UTC) + timedelta(seconds=1)
        self._rows = rows
        self._records = records
        self._rand = random.Random(8)
        self._calls = 0
        self._id = 1

    def all(self) -> dict[str, Callable[[], object]]:
        day, month = self._end - _DAY, self._end - 30 * _DAY
        log, db = self._log, self._connection
        return {
            "log": log,
            "log --table": lambda: log(table_name=TABLES[5]),
            "log --table --record": lambda: log(table_name=TABLES[0], record=self._record()),
            "log --user": lambda: log(user=self._user()),
            "log --email --since 24h": lambda: log(email=f"{self._user()}@example.org", since=day),
            "log --action DELETE": lambda: log(action="DELETE"),
            "log --field": lambda: log(field="status"),
            "log --after --since 24h": lambda: log(after=(("status", "paid"),), since=day),
            "log --ip --since 24h": lambda: log(ip="10.1.0.0/16", since=day),
            "log --trust none": lambda: log(trust="none"),
            "log --text --since 24h": lambda: log(text="nowhere", since=day),
            "log --xid": lambda: log(xid=1000 + self._chosen() // 11),
            "history": lambda: history(db, SCHEMA, ("public", TABLES[1]), self._record()),
            "show (the row)": lambda: one_row(db, SCHEMA, self._chosen()),
            "show (its transaction)": self._transaction,
            "as-of RECORD": lambda: as_of(
                db, SCHEMA, ("public", TABLES[1]), self._end - 200 * _DAY, self._record()
            ),
            "undo --xid (the rows)": lambda: log(
                xid=1000 + self._chosen() // 11, limit=None, oldest_first=True
            ),
            "who --since 30d": lambda: self._who(month),
            "deletions --since 24h": lambda: log(removals=True, since=day, limit=1000),
            "suspicious --since 24h": lambda: findings(
                db, SCHEMA, Filters(since=day), [SuspiciousRule(kind="bulk")]
            ),
            "classic: changes of a record": lambda: self._classic("record", (TABLES[0], self._record())),
            "classic: actions of a user": lambda: self._classic("user", (self._user(),)),
            "classic: deletions of 24 hours": lambda: self._classic("deletions", (day,)),
        }

    def _chosen(self) -> int:
        """A row, the same in two calls that follow each other."""
        self._calls += 1
        if self._calls % 2:
            self._id = self._rand.randint(1, self._rows)
        return self._id

    def _record(self) -> str:
        return str(self._chosen() % self._records)

    def _user(self) -> str:
        return f"u{self._chosen() % USERS}"

    def _log(self, **filters: object) -> object:
        return list(read_log(self._connection, SCHEMA, Filters(**filters)))  # type: ignore[arg-type]

    def _transaction(self) -> object:
        row = one_row(self._connection, SCHEMA, self._chosen())
        return self._log(xid=row.xid, commit_lsn=row.commit_lsn, limit=51, oldest_first=True)

    def _who(self, since: datetime) -> object:
        filters = Filters(user=self._user(), since=since)
        return shares(self._connection, SCHEMA, filters), by_time(self._connection, SCHEMA, filters, "day")

    def _classic(self, name: str, values: tuple[object, ...]) -> object:
        query: LiteralString = _SQL[name]
        return self._connection.execute(query, values).fetchall()
