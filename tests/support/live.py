"""A daemon at work for many tests, and the row images that triggers saw in the same source, as text.

scene = live.scene()                    # a schema of the test's own
scene.run("create table t (id int primary key, v text)")
scene.watch("t")
scene.run("insert into t values (1, 'a'); update t set v = 'b'")       # one transaction
assert scene.images() == scene.noted()
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from cdc_audit.source import publication
from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

_ORACLE = Path(__file__).with_name("oracle.sql")
# What a change looks like must not depend on what role or database have set.
HOSTILE_SETTINGS = {
    "timezone": "Asia/Kolkata",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "search_path": "nowhere",
}


class Change(NamedTuple):
    """A row change: images are texts as jsonb prints them."""

    action: str
    table: str
    old: str | None
    new: str | None


@contextmanager
def running(databases: Databases, log: Path, *, plugin: str = "wal2json", **more: str) -> Iterator[Live]:
    """Everything initialised, the daemon streaming, the oracle's triggers ready for use; ends with the daemon's exit."""
    env = databases.environment(
        BATCH_FLUSH_INTERVAL="0", SOURCE_PLUGIN=plugin, **{"SOURCE_EXCLUDE": "oracle.*", **more}
    )
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("create table public.mark (id int generated always as identity primary key)")
        source.execute(_ORACLE.read_text(encoding="utf-8"))
    initialised(env)
    with (
        DaemonProcess(env, log) as daemon,
        psycopg.connect(databases.source_dsn, autocommit=True, options="-c client_encoding=utf8") as source,
        psycopg.connect(databases.audit_dsn, autocommit=True) as audit,
    ):
        daemon.until_ready()
        yield Live(databases, daemon, source, audit, plugin)
        assert daemon.stop() == 0, daemon.log_text()


@dataclass
class Live:
    """Superuser's connections to both databases, in autocommit mode, and the daemon between them."""

    databases: Databases
    daemon: DaemonProcess
    source: psycopg.Connection
    audit: psycopg.Connection
    plugin: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def scene(self, name: str = "") -> Scene:
        """An empty schema of its own, which the source connection's search_path now is."""
        schema = name or f"scene_{next(self._numbers)}"
        self.source.execute(SQL("create schema {}").format(Identifier(schema)))
        self.source.execute(SQL("set search_path = {}, public").format(Identifier(schema)))
        return Scene(self, schema)

    def publish(self) -> None:
        """Tables made since then are in the stream, too: what ``cdc-audit init`` does for pgoutput."""
        if self.plugin == "pgoutput":
            publication.keep_in_step(self.source, self.databases.slot, ["*.*"], ["oracle.*"])

    def settle(self) -> None:
        """Wait until the trail holds everything that has been committed so far."""
        (xid,) = self._row(
            "with m as (insert into public.mark default values returning 1)"
            " select pg_current_xact_id()::text::bigint from m"
        )
        query = "select from audit.audit_logs where xid = %s and table_name = 'mark'"

        def has_come() -> bool:
            assert self.daemon.is_running, self.daemon.log_text()
            return self.audit.execute(query, (xid,)).fetchone() is not None

        until(has_come, "the trail holds the mark")

    def next_second(self) -> None:
        """Let the clock of commits come to another second."""
        now = "select floor(extract(epoch from clock_timestamp()))"
        begun = self._row(now)
        until(lambda: self._row(now) != begun, "the next second")

    def _row(self, query: str) -> tuple[Any, ...]:
        row = self.source.execute(query).fetchone()
        assert row is not None
        return row


@dataclass
class Scene:
    """One test's schema in a live source, and what the trail holds of it."""

    live: Live
    schema: str

    def run(self, statements: str | Composed) -> None:
        """Execute statements in one transaction (those that can't be in one: alone)."""
        self.live.source.execute(statements.encode() if isinstance(statements, str) else statements)

    def watch(self, *tables: str) -> None:
        """Let triggers note what happens to these tables' rows: names as SQL has them."""
        for table in tables:
            self.run(
                f'create trigger "A_oracle_row" after insert or update or delete on {table}'
                " for each row execute function oracle.note()"
            )

    def trail(self, columns: str, *, of: str | None = None) -> list[tuple[Any, ...]]:
        """Columns of audit_logs for this schema (or for the one named), in order, when all has come."""
        self.live.settle()
        query = SQL("select {} from audit.audit_logs where schema_name = %s order by id").format(SQL(columns))
        return self.live.audit.execute(query, (of or self.schema,)).fetchall()

    def images(self) -> list[Change]:
        """What the trail holds of this schema's row changes; tables are leaves."""
        columns = "action, coalesce(partition_name, table_name), old_data::text, new_data::text"
        return [Change(*row) for row in self.trail(columns) if row[0] != "TRUNCATE"]

    def noted(self) -> list[Change]:
        """What triggers saw of this schema's watched tables, in order."""
        return noted(self.live.source, [self.schema])

    def check(self) -> list[Change]:
        """Assert that the trail equals what triggers saw; the changes."""
        images, wanted = self.images(), self.noted()
        assert images == wanted
        assert wanted, "nothing was watched"
        return wanted


def noted(source: psycopg.Connection, schemas: Sequence[str]) -> list[Change]:
    """What triggers saw of the tables in these schemas, in order of their statements."""
    rows = source.execute(
        "select op, c.relname, old::text, new::text from oracle.shadow s join pg_class c on c.oid = s.relation"
        " where c.relnamespace = any (select oid from pg_namespace where nspname = any (%s)) order by n",
        (list(schemas),),
    )
    return [Change(*row) for row in rows]
