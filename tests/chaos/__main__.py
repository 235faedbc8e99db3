"""``python -m tests.chaos --seed N --minutes M``: random faults under load. Exit 1 if the promise did not hold.

Lines about how it goes are on standard error, the report is on standard output and, as JSON, in ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.chaos.plan import WEIGHTS
from tests.chaos.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--rate", type=float, default=360.0, help="transactions a second that the load aims at"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=WEIGHTS,
        metavar="FAULT",
        help="a fault to leave out; without kill the daemon lives from beginning to end, and its memory says whether it grows",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    run = Run(seed=given.seed, seconds=given.minutes * 60, rate=given.rate, say=_say, without=given.without)
    report = run.run()
    print(report.as_text())
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if report.failures else 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
