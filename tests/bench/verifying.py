"""``cdc-audit verify`` beside ``COPY audit_logs TO STDOUT`` into /dev/null, at two sizes: memory must not grow with the trail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.drain import drain, stopped_daemon
from tests.bench.figures import Report, ratios
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET
from tests.support.daemon import cdc_audit, initialised

_NOTHING_WRONG = {0, 3}  # 3: evidence is missing (no anchor is given)
_COPY = "copy (select * from audit.audit_logs) to stdout"


def run(stage: Stage) -> Report:
    """Rows a second of both, their ratio, and verify's peak memory."""
    whole = BUDGET.rows(stage.options.rows)
    first = max(whole // 4, BUDGET.per_block)
    report = Report(f"verify, of signed blocks of {BUDGET.per_block:,} rows")
    with stage.databases() as databases:
        private = stage.folder / "verify.pem"
        env = databases.environment(SOURCE_EXCLUDE="", LEDGER_SIGNING_KEY_FILE=str(private))
        made = cdc_audit("key", "generate", str(private), env=env)
        assert made.returncode == 0, made.stderr
        BUDGET.prepare(stage, databases.source_dsn)
        initialised(env)
        with stopped_daemon(env, stage.folder / "verify.log") as daemon:
            size = 0
            for more in (first, whole - first):
                if more <= 0:
                    continue
                BUDGET.load(stage, databases.source_dsn, more)
                drain(daemon, databases.audit_dsn, more)
                size += more
                _measure(stage, report, databases.audit_dsn, env, private, size)
    return report


def _measure(
    stage: Stage, report: Report, audit_dsn: str, env: Mapping[str, str], private: Path, rows: int
) -> None:
    copies: list[float] = []
    verifies: list[float] = []
    starts: list[float] = []
    peaks: list[float] = []
    for _ in stage.rounds(f"verify {rows:,} rows"):
        copies.append(rows / stage.timed("psql", "-qXd", audit_dsn, "-c", _COPY, "-o", "/dev/null"))
        reading, around, peak = _verify(env, audit_dsn, Path(f"{private}.pub"), rows)
        verifies.append(rows / reading)
        starts.append(around * 1e3)
        peaks.append(peak)
    report.add(f"{rows:,} rows: COPY TO STDOUT", "rows/s", copies)
    report.add(f"{rows:,} rows: verify", "rows/s", verifies)
    report.add(f"{rows:,} rows: verify / COPY", "", ratios(verifies, copies))
    report.add(f"{rows:,} rows: start of the command, not in it", "ms", starts)
    report.add(f"{rows:,} rows: verify's peak memory", "MiB", peaks)


def _verify(env: Mapping[str, str], dsn: str, public: Path, rows: int) -> tuple[float, float, float]:
    """Seconds by its own clock, seconds that the command takes besides, its peak resident memory in MiB."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "cdc_audit",
        "verify",
        "--json",
        "--dsn",
        dsn,
        "--public-key",
        public,
    ]
    began = time.monotonic()
    with subprocess.Popen(command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in _NOTHING_WRONG or said["rows"] != rows:
        raise RuntimeError(f"verify: exit {process.returncode}, {said['rows']} of {rows} rows")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    return said["seconds"], seconds - said["seconds"], usage.ru_maxrss * unit / 1048576
