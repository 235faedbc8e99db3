"""Several sources: two databases, two daemons, one audit database with two schemas, one Prometheus."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.prometheus import Prometheus

SOURCES = ("shop", "clinic")


def environments(databases: Databases) -> dict[str, dict[str, str]]:
    """The two daemons' environments: the second source is another database of the same server."""
    other = new_databases(databases.source, databases.audit)
    dsns = {"shop": (databases.source_dsn, databases.slot), "clinic": (other.source_dsn, other.slot)}
    return {
        name: databases.environment(
            SOURCE_NAME=name,
            SOURCE_DSN=dsn,
            SOURCE_SLOT=slot,
            AUDIT_SCHEMA=f"audit_{name}",
            BATCH_FLUSH_INTERVAL="0",
        )
        for name, (dsn, slot) in dsns.items()
    }


def changed(env: dict[str, str], rows: int) -> None:
    """As many committed inserts, each in the name of the source."""
    with psycopg.connect(env["CDC_AUDIT_SOURCE_DSN"]) as source:
        source.execute("create table if not exists t (id int primary key, what text)")
        source.commit()
        for number in range(rows):
            source.execute(
                "select cdc_audit.set_context(jsonb_build_object('user_id', %s::text))",
                (env["CDC_AUDIT_SOURCE_NAME"],),
            )
            source.execute("insert into t values (%s, %s)", (number, env["CDC_AUDIT_SOURCE_NAME"]))
            source.commit()


def inserts(daemons: dict[str, DaemonProcess]) -> dict[str, float]:
    """How many inserts each daemon has made durable."""
    return {name: daemon.metric("rows_total", action="INSERT") for name, daemon in daemons.items()}


def test_two_sources_share_an_audit_database_and_a_prometheus_and_nothing_else(
    databases: Databases, tmp_path: Path
) -> None:
    envs = environments(databases)
    for env in envs.values():
        initialised(env)
    with (
        DaemonProcess(envs["shop"], tmp_path / "shop.log") as shop,
        DaemonProcess(envs["clinic"], tmp_path / "clinic.log") as clinic,
    ):
        daemons = {"shop": shop, "clinic": clinic}
        for daemon in daemons.values():
            daemon.until_ready()
        rows = {"shop": 7, "clinic": 4}
        for name, env in envs.items():
            changed(env, rows[name])
        until(lambda: inserts(daemons) == rows, "the rows of both are durable")

        with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
            for name in SOURCES:
                found = audit.execute(
                    f"select id, user_id, new_data ->> 'what' from audit_{name}.audit_logs order by id"
                ).fetchall()
                assert found == [(number, name, name) for number in range(1, rows[name] + 1)]

        targets = {"cdc-audit": [f"127.0.0.1:{daemon.port}" for daemon in daemons.values()]}
        with Prometheus(tmp_path / "prometheus", targets) as prometheus:
            query = 'cdc_audit_rows_total{action="INSERT"} * on (instance) group_left (source) cdc_audit_build_info'

            def seen() -> dict[str, float]:
                return {labels["source"]: value for labels, value in prometheus.query(query)}

            until(lambda: seen() == rows, "one Prometheus tells both apart by their names")

        assert shop.stop() == 0
        with psycopg.connect(envs["clinic"]["CDC_AUDIT_SOURCE_DSN"], autocommit=True) as source:
            source.execute("insert into t values (100, 'clinic')")
        until(lambda: inserts(daemons)["clinic"] == 5, "the other one goes on by itself")
        assert clinic.stop() == 0

    for env in envs.values():
        verified = cdc_audit("verify", "--json", env=env)
        assert '"findings":[]' in verified.stdout, verified.stdout + verified.stderr


def test_a_daemon_that_is_given_the_others_schema_stops_and_says_why(
    databases: Databases, tmp_path: Path
) -> None:
    envs = environments(databases)
    for env in envs.values():
        initialised(env)
    crossed = {**envs["shop"], "CDC_AUDIT_AUDIT_SCHEMA": "audit_clinic"}
    with DaemonProcess(crossed, tmp_path / "log") as daemon:
        assert daemon.wait() == 78
    with psycopg.connect(databases.audit_dsn) as audit:
        kinds = audit.execute("select kind from audit_clinic.ledger").fetchall()
    assert kinds == [("genesis",)], "nothing of the wrong source got in"
