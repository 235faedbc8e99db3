"""From slot to committed blocks, in turn with what bounds it on either side.

Each round fills a source once and measures, one after the other: ``pg_recvlogical`` draining an equal slot (what the server's
decoder gives), Debezium's embedded engine with an empty sink where its jars are there, the daemon, and ``psql \\copy`` of the
very rows into an equal table (what the store takes). Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from cdc_audit.source import publication
from cdc_audit.source.plugin_options import OPTIONAL, pgoutput_options, wal2json_options
from tests.bench import debezium
from tests.bench.drain import drain, stopped_daemon
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET, SQL, Workload
from tests.support.daemon import cdc_audit, initialised
from tests.support.databases import Databases

_REFERENCE = "reference"  # the slot and the audit schema of the others
_ORDER = ("pg_recvlogical", "psql \\copy", "Debezium, empty sink")


def run(stage: Stage, workload: Workload = BUDGET) -> Report:
    """Rows a second beside the references, CPU a row, memory."""
    rows = workload.rows(stage.options.rows)
    rounds = [_round(stage, workload, rows) for _ in stage.rounds(workload.name, workload.rounds)]
    report = Report(
        f"{workload.name}: {rows:,} rows, {workload.about}; {stage.options.plugin}; {stage.daemon}"
    )
    ours = [one["cdc-audit"] for one in rounds]
    report.add("cdc-audit", "rows/s", ours)
    for name in _ORDER:
        theirs = [one[name] for one in rounds if name in one]
        report.add(name, "rows/s", theirs)
        if theirs:
            report.add(f"cdc-audit / {name}", "", ratios(ours, theirs))
    report.add("daemon CPU", "us/row", [one["cpu"] for one in rounds])
    report.add("daemon peak memory", "MiB", [one["memory"] for one in rounds])
    return report


def with_debezium(stage: Stage) -> Report:
    """The budget's workload, beside Debezium: fetches its jars if they aren't there."""
    debezium.fetch(stage)
    return run(stage)


def _round(stage: Stage, workload: Workload, rows: int) -> dict[str, float]:
    options, figures = stage.options, {}
    with stage.databases() as databases:
        env = (
            databases.environment(
                SOURCE_PLUGIN=options.plugin, BATCH_MAX_ROWS=str(workload.per_block), SOURCE_EXCLUDE=""
            )
            | stage.package
        )
        workload.prepare(stage, databases.source_dsn)
        initialised(env)
        create_slot(databases, _REFERENCE, options.plugin)
        has_debezium = workload is BUDGET and debezium.is_there()
        if has_debezium:
            debezium.prepare(databases)
        log = stage.folder / f"{databases.source_name}.log"
        with stopped_daemon(env, log) as daemon:
            workload.load(stage, databases.source_dsn, rows)
            figures["pg_recvlogical"] = rows / _read_slot(stage, databases)
            if has_debezium:
                figures["Debezium, empty sink"] = debezium.rows_per_s(stage, databases, rows)
            drained = drain(daemon, databases.audit_dsn, rows)
        figures["cdc-audit"], figures["cpu"], figures["memory"] = drained
        figures["psql \\copy"] = rows / _copy(stage, databases)
    return figures


def create_slot(databases: Databases, name: str, plugin: str) -> None:
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("select pg_create_logical_replication_slot(%s, %s)", (name, plugin))


def _read_slot(stage: Stage, databases: Databases) -> float:
    """Seconds that pg_recvlogical takes for the same changes, with the daemon's options."""
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute(SQL["settled"])
        (end,) = source.execute(SQL["position"]).fetchone() or ("",)
    if stage.options.plugin == "pgoutput":
        options = pgoutput_options(publications=publication.names(databases.slot))
    else:
        options = wal2json_options(prefix="cdc_audit")
        for name in OPTIONAL:  # not every version of the plugin knows them, and it answers by an error
            del options[name]
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    where = ["-d", databases.source_dsn, "-S", _REFERENCE, "-f", "/dev/null", "-E", str(end)]
    return stage.timed("pg_recvlogical", *where, "--start", "--no-loop", *given)


def _copy(stage: Stage, databases: Databases) -> float:
    """Seconds that psql takes to copy the very rows into an equal table."""
    done = cdc_audit("schema", "migrate", env=databases.environment(AUDIT_SCHEMA=_REFERENCE))
    assert done.returncode == 0, done.stderr
    file = stage.folder / "rows"
    with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
        audit.execute(
            "select reference.ensure_partition(min(created_at at time zone 'UTC')::date) from audit.audit_logs"
        )
        with (
            file.open("wb") as out,
            audit.cursor().copy(sql.SQL("copy (select * from audit.audit_logs) to stdout")) as rows,
        ):
            out.writelines(rows)
    seconds = stage.timed(
        "psql", "-qXd", databases.audit_dsn, "-c", f"\\copy reference.audit_logs from '{file}'"
    )
    file.unlink()
    return seconds
