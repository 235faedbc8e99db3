"""A server with pgAudit whose log is JSON lines, and what its log says of reads, read by code of the tests' own."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cdc_audit.cli.demo.binaries import Binaries, find_binaries, is_open_to_others
from cdc_audit.cli.demo.cluster import Cluster
from tests.support.servers import place

_TOOLS = Path(__file__).parents[2] / ".cache" / "tools"
_FIRST_WITH_JSON = 15
csv.field_size_limit(sys.maxsize)


class Logged(NamedTuple):
    """A READ line of the log: where it stands, and what it says."""

    session: str
    line: int
    user: str
    application: str
    address: str
    xid: int
    audit: str
    command: str
    relation: str
    statement: str
    rows: int


@contextmanager
def auditing_server(make: Callable[..., Cluster], **settings: str | int) -> Iterator[Cluster]:
    """A server of the test's own with pgAudit of reads; ``make`` is ``private_cluster``. Skips where pgAudit isn't to be had."""
    if place() == "docker":
        pytest.skip("the log files of a server in a container aren't here")
    binaries = find_binaries()
    library = _library(binaries)
    if library is None or binaries.major < _FIRST_WITH_JSON:
        pytest.skip(
            f"no pgAudit for PostgreSQL {binaries.major}: .ci/run fetches the package postgresql-{binaries.major}-pgaudit"
        )
    with tempfile.TemporaryDirectory(prefix="cdc-audit-pgaudit-") as folder:
        if not is_open_to_others(library.parent):
            Path(folder).chmod(0o755)
            library = Path(shutil.copy(library, folder))
        yield make(
            "reads",
            settings={
                "shared_preload_libraries": str(library),
                "logging_collector": "on",
                "log_destination": "jsonlog",
                "log_directory": "log",
                "pgaudit.log": "read",
                "pgaudit.role": "object_auditor",
                "pgaudit.log_catalog": "off",
                "pgaudit.log_relation": "on",
                "pgaudit.log_rows": "on",
                **settings,
            },
        )


def logged_reads(folder: Path, database: str) -> list[Logged]:
    """Every READ line of a database in all files of the folder."""
    reads: list[Logged] = []
    for path in sorted(folder.glob("*.json")):
        for text in path.read_text(encoding="utf-8").split("\n"):
            line = json.loads(text) if text else {}
            message = line.get("message", "")
            if line.get("dbname") != database or not message.startswith("AUDIT: ") or "context" in line:
                continue
            values = next(csv.reader([message.removeprefix("AUDIT: ")]))
            if values[3] == "READ":
                host = line.get("remote_host", "")
                reads.append(
                    Logged(
                        line["session_id"],
                        line["line_num"],
                        line["user"],
                        line.get("application_name", ""),
                        "" if host == "[local]" else host,
                        line["txid"],
                        values[0],
                        values[4],
                        values[6],
                        values[7],
                        int(values[9]),
                    )
                )
    return reads


def _library(binaries: Binaries) -> Path | None:
    places = [
        *binaries.folder.parent.glob("lib*/pgaudit.so"),
        *binaries.folder.parent.glob("lib*/postgresql/pgaudit.so"),
        _TOOLS / f"pgaudit-{binaries.major}.so",
    ]
    return next((path for path in places if path.is_file()), None)
