"""Whether the daemon's speed depends on how much there is to do: a backlog, and one several times as large, in turn.

``growth`` is the budget's workload and ten times as much. ``backlog`` is what an hour leaves at 500 transactions a second of one
row (1,800,000, made as fast as the source can), beside a 36th of it; both in proportion to ``--rows``.
"""

from __future__ import annotations

from tests.bench.drain import Drained, drain, stopped_daemon
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET, ONE_ROW, Workload
from tests.support.daemon import initialised


def growth(stage: Stage) -> Report:
    """The budget's rows, and ten times as many."""
    return _run(stage, BUDGET, 10)


def backlog(stage: Stage) -> Report:
    """Two minutes' transactions of one row, and an hour's."""
    return _run(stage, ONE_ROW, 36)


def _run(stage: Stage, workload: Workload, factor: int) -> Report:
    once = workload.rows(stage.options.rows)
    many = once * factor
    rounds = [
        (_drained(stage, workload, once), _drained(stage, workload, many))
        for _ in stage.rounds(workload.name)
    ]
    report = Report(f"{workload.name}: {workload.about}; {stage.options.plugin}; {stage.daemon}")
    for rows, drained in zip((once, many), zip(*rounds, strict=True), strict=True):
        report.add(f"{rows:,} rows", "rows/s", [one.rows_per_s for one in drained])
        report.add(f"{rows:,} rows: daemon CPU", "us/row", [one.cpu_us_per_row for one in drained])
        report.add(f"{rows:,} rows: daemon peak memory", "MiB", [one.peak_mib for one in drained])
    small, large = ([one[i].rows_per_s for one in rounds] for i in (0, 1))
    report.add(f"rows/s of {many:,} / of {once:,}", "", ratios(large, small))
    return report


def _drained(stage: Stage, workload: Workload, rows: int) -> Drained:
    stage.say(f"{rows:,} rows")
    with stage.databases() as databases:
        env = databases.environment(
            SOURCE_PLUGIN=stage.options.plugin, BATCH_MAX_ROWS=str(workload.per_block), SOURCE_EXCLUDE=""
        )
        workload.prepare(stage, databases.source_dsn)
        initialised(env | stage.package)
        with stopped_daemon(env | stage.package, stage.folder / f"{databases.source_name}.log") as daemon:
            workload.load(stage, databases.source_dsn, rows)
            return drain(daemon, databases.audit_dsn, rows)
