"""Where measurements take place: two servers of their own, made on first use, and fresh databases for each round."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cdc_audit.cli.demo.binaries import Binaries, find_binaries, inspect
from cdc_audit.cli.demo.cluster import Cluster
from cdc_audit.seal.lines import IS_COMPILED
from tests.support.databases import Databases, new_databases

ROOT = Path(__file__).parents[2]
# A stopped daemon must not be given up while the source is filled, and at 0 the walsender would look for an answer after each
# message. A checkpoint in mid-measurement would be somebody else's work.
# WAL files are used again, as on a server that has run for a while: to make new ones is not what is measured.
_SETTINGS = {
    "max_wal_size": "8GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "shared_buffers": "256MB",
    "wal_sender_timeout": "1h",
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured: rounds, rows of the budget's workload, seconds of what runs for a time; and how."""

    rounds: int
    rows: int
    seconds: int
    plugin: str
    recording: Path | None
    pure: bool = False
    trail: str | None = None
    audit_bin: Path | None = None


class Stage:
    """Servers that sync to disk, as those of a promise must, and that all reach by TCP, as servers kept apart are: a Unix socket
    holds 80 kB, and JDBC knows none. ``folder`` is temporary. Closed by its ExitStack.
    """

    def __init__(self, options: Options, folder: Path, open_servers: ExitStack) -> None:
        self.options = options
        self.folder = folder
        self._open = open_servers
        self._began = time.monotonic()

    @cached_property
    def source(self) -> Cluster:
        return self._open.enter_context(Cluster("source", settings=_SETTINGS, fsync=True, tcp=True))

    @cached_property
    def audit(self) -> Cluster:
        return self._open.enter_context(
            Cluster(
                "audit",
                wal_level="replica",
                settings=_SETTINGS,
                fsync=True,
                tcp=True,
                binaries=self.audit_binaries,
            )
        )

    @cached_property
    def audit_binaries(self) -> Binaries:
        """The audit server's programs. Raises RuntimeError where the folder that was named has none."""
        if self.options.audit_bin is None:
            return find_binaries()
        found = inspect(self.options.audit_bin.resolve())
        if found is None:
            raise RuntimeError(f"no PostgreSQL server in {self.options.audit_bin}")
        return found

    @property
    def daemon(self) -> str:
        """How the daemon's hot loops are run, and the servers' versions where they differ."""
        loops = "compiled" if IS_COMPILED and not self.options.pure else "pure Python"
        majors = find_binaries().major, self.audit_binaries.major
        differ = f"; PostgreSQL {majors[0]}, audit server {majors[1]}" if majors[0] != majors[1] else ""
        return loops + differ

    @cached_property
    def package(self) -> dict[str, str]:
        """What a daemon's environment needs besides to run the package without its compiled loops, where that is asked for."""
        if not self.options.pure:
            return {}
        folder = self.folder / "pure"
        shutil.copytree(
            ROOT / "cdc_audit", folder / "cdc_audit", ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
        return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}

    def say(self, text: str) -> None:
        """A line of progress, on standard error."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def rounds(self, what: str, most: int | None = None) -> Iterator[int]:
        """The numbers of the rounds, each told."""
        count = min(self.options.rounds, most or self.options.rounds)
        for number in range(count):
            self.say(f"{what}: round {number + 1} of {count}")
            yield number

    @contextmanager
    def databases(self) -> Iterator[Databases]:
        """Fresh databases; afterwards nothing of them is left, also no dirty pages for the next round to write."""
        databases = new_databases(self.source, self.audit)
        try:
            yield databases
        finally:
            databases.drop()
            self.source.execute("checkpoint")
            self.audit.execute("checkpoint")

    def tool(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs to its end; RuntimeError with what it said if it fails."""
        program = self.source.binaries.program(name)
        if not program.exists():
            raise RuntimeError(f"{program} is missing: install the package of PostgreSQL's client programs")
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr.strip()[-1000:]}")
        return done

    def timed(self, name: str, *arguments: str | Path) -> float:
        """Seconds that such a program takes."""
        began = time.monotonic()
        self.tool(name, *arguments)
        return time.monotonic() - began
