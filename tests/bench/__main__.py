"""``python -m tests.bench [names...]``: measure, on servers made for it, and print what was found.

Figures mean something on a machine that does nothing else; ratios within one run mean more. Progress goes to standard error, the
text to standard output, the same as JSON into ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg

from tests.bench import (
    answers,
    archiving,
    cold,
    context_cost,
    growth,
    lake,
    latency,
    recorded,
    sealing,
    source_cost,
    throughput,
    verifying,
)
from tests.bench.figures import Report
from tests.bench.stage import Options, Stage
from tests.bench.workloads import WORKLOADS


class Measurement(NamedTuple):
    """What it measures, how, and whether it belongs to the set that runs when none is named."""

    about: str
    run: Callable[[Stage], Report]
    by_default: bool = True


MEASUREMENTS = {
    **{one.name: Measurement(one.about, partial(throughput.run, workload=one)) for one in WORKLOADS},
    "debezium": Measurement("budget, beside Debezium; fetches its jars", throughput.with_debezium, False),
    "growth": Measurement("the budget's workload and ten times as much of it", growth.growth, False),
    "backlog": Measurement(
        "what an hour leaves at 500 transactions/s, of one row each", growth.backlog, False
    ),
    "latency": Measurement("commit to durable at 100, 500, 2,000 transactions/s", latency.run),
    "source": Measurement(
        "pgbench with nothing, triggers, a slot read, the daemon",
        partial(source_cost.run, load=source_cost.SATURATING),
    ),
    "source_plain": Measurement(
        "the same with pgbench as it comes", partial(source_cost.run, load=source_cost.AS_IT_COMES), False
    ),
    "context": Measurement("each integration of the client library, and without it", context_cost.run, False),
    "lake": Measurement("the budget's workload into Iceberg tables, beside PostgreSQL", lake.run, False),
    "verify": Measurement("verify beside COPY TO STDOUT, its memory at two sizes", verifying.run),
    "answers": Measurement(
        "each question on a large trail; --rows 20000000 is the budget's", answers.run, False
    ),
    "archiving": Measurement(
        "24 months into a bucket, in peace and on bad days; --rows 5000000 is the budget's",
        archiving.run,
        False,
    ),
    "cold": Measurement(
        "each question that archives answer: from a folder, a bucket, the database", cold.run, False
    ),
    "sealing": Measurement("the daemon with and without hashing and signing", sealing.run),
    "recorded": Measurement("decode, join and seal on a recorded stream", recorded.run),
    "profile": Measurement("where the time goes on a recorded stream", recorded.profile, False),
}


def main() -> None:
    """Run the named measurements, or the whole set; exit 1 if one of them failed."""
    arguments = _parsed()
    if arguments.list:
        for name, one in MEASUREMENTS.items():
            print(f"{name:18} {one.about}{'' if one.by_default else ' (only when named)'}")
        return
    names = arguments.names or [name for name, one in MEASUREMENTS.items() if one.by_default]
    options = Options(
        arguments.rounds,
        arguments.rows,
        arguments.seconds,
        arguments.plugin,
        arguments.recording,
        arguments.pure,
        arguments.trail,
        arguments.audit_bin,
    )
    reports: dict[str, Report] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cdc-audit-bench-", ignore_cleanup_errors=True) as folder,
        ExitStack() as servers,
    ):
        stage = Stage(options, Path(folder), servers)
        for name in names:
            stage.say(f"{name}: {MEASUREMENTS[name].about}")
            try:
                reports[name] = MEASUREMENTS[name].run(stage)
            except (RuntimeError, AssertionError, OSError, psycopg.Error) as error:
                stage.say(f"{name} failed: {error}")
            else:
                print(f"\n{reports[name].as_text()}\n", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(_json(stage, reports), indent=1) + "\n", encoding="utf-8")
    sys.exit(len(reports) < len(names))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="what to measure (default: all that --list does not mark)"
    )
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument(
        "--rows", type=int, default=200_000, help="of the budget's workload (default 200,000); others follow"
    )
    parser.add_argument("--seconds", type=int, default=8, help="of each run of pgbench (default 8)")
    parser.add_argument(
        "--pgoutput", dest="plugin", action="store_const", const="pgoutput", default="wal2json"
    )
    parser.add_argument(
        "--pure",
        action="store_true",
        help="the daemon without its compiled loops, also where `make native` made them",
    )
    parser.add_argument("--recording", type=Path, metavar="FILE", help="keep the recorded stream, or take it")
    parser.add_argument(
        "--trail",
        metavar="DSN",
        help="answers: ask the trail in this database, made if there is none, and leave it",
    )
    parser.add_argument(
        "--audit-bin",
        type=Path,
        metavar="FOLDER",
        help="where postgres and initdb of the audit server are (default: those of the source)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - MEASUREMENTS.keys():
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; --list names them")
    return arguments


def _json(stage: Stage, reports: dict[str, Report]) -> dict[str, object]:
    machine = {
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": stage.source.binaries.major,
        "audit_postgresql": stage.audit_binaries.major,
        "daemon": stage.daemon,
    }
    options = {
        name: str(value) for name, value in ((n, getattr(stage.options, n)) for n in Options.__slots__)
    }
    found = {name: report.as_dict() for name, report in reports.items()}
    return {"machine": machine, "options": options, "measurements": found}


if __name__ == "__main__":
    main()
