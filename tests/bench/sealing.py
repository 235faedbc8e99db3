"""What the proof costs: the daemon as it is, beside one whose hashes and signatures are constants (``unsealed``).

Both drain slots with the same changes, in turn, each into a schema of its own; who is first changes from round to round.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from tests.bench.drain import Drained, drain, stopped_daemon
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET
from tests.support.daemon import cdc_audit, initialised

_MODULES = {"with": "cdc_audit", "without": "tests.bench.unsealed"}


def run(stage: Stage) -> Report:
    """CPU a row with and without leaf hashes, Merkle tree, block hashes and signatures."""
    rows = BUDGET.rows(stage.options.rows)
    rounds = [_round(stage, rows, number) for number in stage.rounds("sealing")]
    report = Report(f"sealing's share of the daemon: {rows:,} rows of the budget, signed")
    for name in _MODULES:
        report.add(f"{name} sealing", "us/row", [one[name].cpu_us_per_row for one in rounds])
        report.add(f"{name} sealing", "rows/s", [one[name].rows_per_s for one in rounds])
    without = [one["without"].cpu_us_per_row for one in rounds]
    shares = ratios(without, [one["with"].cpu_us_per_row for one in rounds])
    report.add("sealing's share of the CPU", "%", [(1 - share) * 100 for share in shares])
    return report


def _round(stage: Stage, rows: int, number: int) -> dict[str, Drained]:
    names = list(_MODULES) if number % 2 == 0 else list(_MODULES)[::-1]
    private = _key(stage)
    with stage.databases() as databases, ExitStack() as daemons:
        BUDGET.prepare(stage, databases.source_dsn)
        waiting = {}
        for name in names:
            env = databases.environment(
                SOURCE_EXCLUDE="", SOURCE_SLOT=f"{databases.slot}_{name}", SOURCE_PLUGIN=stage.options.plugin,
                AUDIT_SCHEMA=f"{name}_sealing", LEDGER_SIGNING_KEY_FILE=str(private),
            )  # fmt: skip
            initialised(env)
            log = stage.folder / f"{databases.source_name}-{name}.log"
            waiting[name] = daemons.enter_context(stopped_daemon(env, log, _MODULES[name]))
        BUDGET.load(stage, databases.source_dsn, rows)
        return {
            name: drain(waiting[name], databases.audit_dsn, rows, schema=f"{name}_sealing") for name in names
        }


def _key(stage: Stage) -> Path:
    file = stage.folder / "sealing.pem"
    if not file.exists():
        made = cdc_audit("key", "generate", str(file), env=os.environ)
        assert made.returncode == 0, made.stderr
    return file
