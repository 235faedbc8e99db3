"""Engines that read the trail's files as they are: Spark with Iceberg's own runtime, DuckDB with its own extension.

    fetch()
    (answer,) = ask("duckdb", {"metadata": lake.metadata("audit_logs")}, ["select count(*) as rows_of from audit_logs"])

Each is a process of its own (this file as a program), with the packages of ``.cache/engines`` and not those of the tests: Spark is
that of the last version for which a package brings Iceberg's runtime, DuckDB that for which one brings the extension. Spark takes
the catalog by JDBC, so its tables must be in PostgreSQL, served by TCP, and it needs Java and Debian's libpostgresql-jdbc-java.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / ".cache/engines"
# snowpark-connect-deps-iceberg: the runtime in 1.0.3 lacks the JSON classes that reading metadata needs.
_PACKAGES = (
    "pyspark==3.5.9", "py4j==0.10.9.7", "snowpark-connect-deps-iceberg==1.0.2", "duckdb==1.5.5", "duckdb-extension-avro==1.5.5",
    "duckdb-extension-iceberg==1.5.5",
)  # fmt: skip
_JDBC = Path("/usr/share/java/postgresql.jar")
_LONGEST = 600

Answer = list[dict[str, Any]]  # moments as their text in UTC


def fetch() -> None:
    """Install them, the first time: some 700 MB."""
    stamp = _FOLDER / "installed"
    if not stamp.exists() or stamp.read_text() != str(_PACKAGES):
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", _FOLDER, *_PACKAGES],
            check=True,
        )
        stamp.write_text(str(_PACKAGES))


def ask(engine: str, given: dict[str, str], statements: Sequence[str]) -> list[Answer]:
    """Run statements, in which the table is ``audit_logs``; the rows of each. ``given`` is what ``in_...`` need, below."""
    done = subprocess.run(
        [sys.executable, Path(__file__), engine],
        input=json.dumps({"given": given, "statements": list(statements)}),
        env={**os.environ, "PYTHONPATH": str(_FOLDER), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=_LONGEST,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[Answer] = json.loads(done.stdout.splitlines()[-1])
    return answers


def plain(rows: Sequence[dict[str, Any]]) -> Answer:
    """Rows in which a moment is its text, whatever zone it was told in; one without any is of this machine's zone."""
    return [
        {
            name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def in_duckdb(given: dict[str, str], statements: Sequence[str]) -> list[Answer]:
    """By its extension, which reads ``metadata``, a table's newest metadata file."""
    import duckdb

    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        for name in ("avro", "iceberg"):
            (file,) = _FOLDER.glob(
                f"duckdb_extension_{name}/extensions/v{duckdb.__version__}/*.duckdb_extension"
            )
            engine.execute(f"load '{file}'")
        engine.execute(f"create view audit_logs as from iceberg_scan('{given['metadata']}')")
        return [plain(engine.sql(one).to_arrow_table().to_pylist()) for one in statements]


def in_spark(given: dict[str, str], statements: Sequence[str]) -> list[Answer]:
    """Of a dataset of Parquet files, where ``rows`` says; or of the ``namespace`` of a catalog of that ``name`` at ``jdbc``."""
    from pyspark.sql import SparkSession  # type: ignore[import-not-found,unused-ignore]

    settings = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC", "spark.sql.shuffle.partitions": "2",
        **({} if "rows" in given else _catalog(given)),
    }  # fmt: skip
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    if "rows" in given:
        session.read.option("mergeSchema", "true").parquet(given["rows"]).createOrReplaceTempView(
            "audit_logs"
        )
    else:
        session.sql(f"use {given['name']}.{given['namespace']}")
    return [plain([row.asDict() for row in session.sql(one).collect()]) for one in statements]


def _catalog(given: dict[str, str]) -> dict[str, str]:
    (runtime,) = _FOLDER.glob("*/jars/iceberg-spark-runtime-3.5_2.12-*.jar")
    name = f"spark.sql.catalog.{given['name']}"
    return {
        "spark.jars": f"{runtime},{_JDBC}",
        "spark.driver.extraClassPath": f"{runtime}:{_JDBC}",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        name: "org.apache.iceberg.spark.SparkCatalog",
        f"{name}.type": "jdbc",
        f"{name}.uri": given["jdbc"],
        f"{name}.jdbc.user": "postgres",
        f"{name}.warehouse": given["warehouse"],
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(
        json.dumps({"duckdb": in_duckdb, "spark": in_spark}[sys.argv[1]](asked["given"], asked["statements"]))
    )
