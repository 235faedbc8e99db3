"""What others do with the trail's Iceberg tables: they read them as they are, and give them columns, while the daemon writes.

Two daemons follow one source, each by a slot of its own: one writes into PostgreSQL, the other into the lake. What PostgreSQL
answers of its rows, every engine must answer of the lake's. DuckDB reads by pyiceberg's scan always; by its own extension, and
Spark with Iceberg's own runtime, where CDC_AUDIT_TEST_SPARK=1 says so (tests/README.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from tests.support import engines
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases
from tests.support.engines import Answer
from tests.support.lake import Lake
from tests.support.servers import Server

QUESTIONS = Path(__file__).parents[2] / "deploy/lake"
RECORD, BULK = ((QUESTIONS / f"{name}.sql").read_text() for name in ("history", "bulk"))
TENANTS = "select tenant, count(*) as rows_of from audit_logs group by tenant order by rows_of"
ADD = "alter table audit_logs add column tenant string"
FILL = "update audit_logs set tenant = 't1' where table_name = 'orders'"

needs_spark = pytest.mark.skipif(
    os.environ.get("CDC_AUDIT_TEST_SPARK") != "1",
    reason="CDC_AUDIT_TEST_SPARK=1, Java and libpostgresql-jdbc-java run it; fetches 700 MB",
)


def in_postgres(databases: Databases, questions: Sequence[str]) -> list[Answer]:
    """Of the rows in the audit database; images as their text, as the lake has them."""
    images = "old_data::text, new_data::text, commit_lsn::text"
    others = "id, created_at, schema_name, table_name, record_id, action, user_id, user_email, context_trust, xid, seq"
    with psycopg.connect(
        databases.audit_dsn, row_factory=psycopg.rows.dict_row, options="-c timezone=UTC"
    ) as connection:
        connection.execute(
            f"create temp view audit_logs as select {others}, {images} from audit.audit_logs".encode()
        )
        return [engines.plain(connection.execute(one.encode()).fetchall()) for one in questions]


def by_scan(lake: Lake, questions: Sequence[str]) -> list[Answer]:
    """DuckDB, of what pyiceberg's scan gives."""
    with lake.table("audit_logs") as table, table.scan().to_duckdb("audit_logs") as engine:
        engine.execute("set timezone = 'UTC'")
        return [engines.plain(engine.sql(one).to_arrow_table().to_pylist()) for one in questions]


def add_column(lake: Lake) -> None:
    with lake.table("audit_logs") as table, table.update_schema() as change:
        change.add_column("tenant", StringType())


def fill_column(lake: Lake) -> None:
    """All of the table written anew, as engines do it that change values."""
    with lake.table("audit_logs") as table:
        rows = table.scan().to_arrow()
        tenants = ["t1" if name == "orders" else None for name in rows.column("table_name").to_pylist()]
        place = rows.schema.get_field_index("tenant")
        table.overwrite(
            rows.set_column(place, rows.schema.field(place), pa.array(tenants, pa.large_string()))
        )


class Scene:
    """Both daemons at work, and what is done to the source."""

    def __init__(self, databases: Databases, lake: Lake, folder: Path) -> None:
        self.databases = databases
        self.lake = lake
        self.lake_env = lake.environment(databases, BATCH_FLUSH_INTERVAL="0.2")
        self.database_env = databases.environment(
            SOURCE_SLOT=f"{databases.slot}_two", BATCH_FLUSH_INTERVAL="0.2"
        )
        self._folder = folder
        tables = (
            "create table orders (id int primary key, v int); create table items (id int primary key, v int);"
        )
        databases.source.execute(
            f"{tables} alter table orders replica identity full; alter table items replica identity full",
            dbname=databases.source_name,
        )

    @contextmanager
    def daemons(self) -> Iterator[DaemonProcess]:
        """The one that writes into the lake; both must live to the end."""
        for env in (self.lake_env, self.database_env):
            initialised(env)
        with (
            DaemonProcess(self.lake_env, self._folder / "lake.log") as into_lake,
            DaemonProcess(self.database_env, self._folder / "database.log") as into_database,
        ):
            into_lake.until_ready(60)
            into_database.until_ready(60)
            yield into_lake
            assert (into_lake.stop(), into_database.stop()) == (0, 0)
        assert len(into_lake.events("streaming")) == 1

    def work(self, user: str, *statements: str) -> None:
        """A transaction of somebody, and both daemons have it."""
        said = json.dumps({"user_id": user})
        with psycopg.connect(self.databases.source_dsn) as source:
            source.execute("select cdc_audit.set_context(%s)", (said,))
            for one in statements:
                source.execute(one.encode())
            xid = source.execute("select pg_current_xact_id()::text::bigint").fetchone()
        assert xid
        until(lambda: self.lake.holds(xid[0]), "the rows in the lake")
        asked = "select exists (select from audit.audit_logs where xid = %s)"
        until(
            lambda: self.databases.audit.execute(asked, xid, dbname=self.databases.audit_name) == [(True,)],
            "the rows in the database",
        )


def changed_and_given_a_column(scene: Scene, add: Callable[[], object], fill: Callable[[], object]) -> None:
    """Changes before the column, between that and its values, and after them."""
    with scene.daemons():
        scene.work("ann", "insert into orders select g, 0 from generate_series(1, 150) g")
        scene.work(
            "ben", "update orders set v = 1 where id = 42", "insert into items select generate_series(1, 60)"
        )
        add()
        scene.work(
            "carol",
            "update orders set v = v + 1 where id < 130",
            "insert into items select generate_series(61, 120)",
        )
        fill()
        scene.work("ann", "update orders set v = 7 where id = 42", "delete from items where id < 110")


Engine = Callable[[Sequence[str]], list[Answer]]


def compared(scene: Scene, by: Mapping[str, Engine]) -> None:
    """Every engine's answers are PostgreSQL's, and there are some; the lake is what the daemon wrote."""
    record, bulk = in_postgres(scene.databases, (RECORD, BULK))
    assert (len(record), len(bulk)) == (4, 3)
    done = cdc_audit("suspicious", "--since", "1h", "--json", env=scene.database_env)
    found = [(one["user"], one["rows"], one["last_id"]) for one in map(json.loads, done.stdout.splitlines())]
    assert sorted(found) == sorted((one["who"], one["most"], one["last_id"]) for one in bulk)
    tenants = [{"tenant": None, "rows_of": 120 + 1 + 109}, {"tenant": "t1", "rows_of": 150 + 1 + 129}]
    for name, engine in by.items():
        assert engine((RECORD, BULK, TENANTS)) == [record, bulk, tenants], name
    verified = cdc_audit("verify", env=scene.lake_env)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_duckdb_answers_of_a_lake_that_was_given_a_column_as_postgresql_does(
    databases: Databases, tmp_path: Path
) -> None:
    lake = Lake(tmp_path)
    scene = Scene(databases, lake, tmp_path)
    changed_and_given_a_column(scene, lambda: add_column(lake), lambda: fill_column(lake))
    compared(scene, {"DuckDB by pyiceberg's scan": partial(by_scan, lake)})


@needs_spark
def test_spark_gives_a_lake_a_column_and_spark_and_duckdb_answer_as_postgresql_does(
    databases: Databases, private_cluster: Callable[..., Server], tmp_path: Path
) -> None:
    engines.fetch()
    lake = Lake(tmp_path, catalog=private_cluster("catalog", tcp=True).dsn())
    scene = Scene(databases, lake, tmp_path)
    spark = partial(engines.ask, "spark", lake.by_jdbc)
    changed_and_given_a_column(scene, lambda: spark((ADD,)), lambda: spark((FILL,)))
    compared(
        scene,
        {
            "Spark": spark,
            "DuckDB's extension": partial(engines.ask, "duckdb", {"metadata": lake.metadata("audit_logs")}),
            "DuckDB by pyiceberg's scan": partial(by_scan, lake),
        },
    )
