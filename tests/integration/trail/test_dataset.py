"""The rows of archives are a dataset that other engines read as it is: the same text of a question has PostgreSQL's answer.

DuckDB always; Spark where CDC_AUDIT_TEST_SPARK=1 says so (tests/README.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.integration.trail.archiving import Scene
from tests.support import engines
from tests.support.engines import Answer

LAKE = Path(__file__).parents[3] / "deploy/lake"
RECORD = (LAKE / "history.sql").read_text().replace("'42'", "'2'")
BULK = (LAKE / "bulk.sql").read_text().replace("> 100", "> 2")
EVOLVED = "select tenant, count(*) as rows_of from audit_logs group by tenant order by rows_of desc"


def in_duckdb(rows: Path, *questions: str) -> list[Answer]:
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        place = f"read_parquet('{rows}/**/*.parquet', hive_partitioning = true, union_by_name = true)"
        engine.execute(f"create view audit_logs as from {place}")
        return [engines.plain(engine.sql(one).to_arrow_table().to_pylist()) for one in questions]


def in_spark(rows: Path, *questions: str) -> list[Answer]:
    engines.fetch()
    return engines.ask("spark", {"rows": str(rows)}, questions)


ENGINES = [
    in_duckdb,
    pytest.param(
        in_spark,
        marks=pytest.mark.skipif(
            os.environ.get("CDC_AUDIT_TEST_SPARK") != "1",
            reason="CDC_AUDIT_TEST_SPARK=1 and Java run it; DuckDB shows the same",
        ),
    ),
]


def in_postgres(scene: Scene, question: str) -> Answer:
    """The same text, of the rows in the audit database; images as their text, as archives have them."""
    with psycopg.connect(
        scene.dsn, row_factory=psycopg.rows.dict_row, options="-c timezone=UTC"
    ) as connection:
        connection.execute(
            "create temp view audit_logs as select id, created_at, schema_name, table_name, record_id, action, old_data::text,"
            " new_data::text, user_id, user_email, context_trust, xid, commit_lsn::text, seq from audit.audit_logs where id <= 18"
        )
        return engines.plain(connection.execute(question).fetchall())


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_answers_as_postgresql_did_and_still_does_when_columns_are_added(
    scene: Scene, engine: Callable[..., list[Answer]]
) -> None:
    wanted = {question: in_postgres(scene, question) for question in (RECORD, BULK)}
    assert len(wanted[RECORD]) == 1 and len(wanted[BULK]) > 3
    told = scene.told(
        "suspicious", "--threshold", "2", "--since", "2025-01-01", "--until", "2025-06-01", "--json"
    )
    assert {(one["user"], one["rows"], one["last_id"]) for one in map(json.loads, told.splitlines())} == {
        (one["who"], one["most"], one["last_id"]) for one in wanted[BULK]
    }
    scene.told("archive", "run")
    rows = scene.folder / "archive/audit/rows"
    assert engine(rows, *wanted) == list(wanted.values())

    later = parquet.read_table(next((rows / "month=2025-03").iterdir()), partitioning=None)
    later = later.set_column(
        later.schema.get_field_index("table_name"), "table_name", pa.array(["another"] * len(later))
    )
    (rows / "month=2025-04").mkdir()
    parquet.write_table(
        later.append_column("tenant", pa.array(["t1"] * len(later))), rows / "month=2025-04/19.parquet"
    )
    tenants = [{"tenant": None, "rows_of": 18}, {"tenant": "t1", "rows_of": 3}]
    assert engine(rows, RECORD, EVOLVED) == [wanted[RECORD], tenants]
