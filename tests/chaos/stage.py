"""Where a chaos run takes place: two servers behind proxies, a small disk under the ledger, one daemon, the oracle."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from cdc_audit.cli.demo.cluster import Cluster
from tests.support.daemon import DaemonProcess, cdc_audit, initialised
from tests.support.databases import new_databases
from tests.support.oracle import Oracle
from tests.support.proxy import Proxy
from tests.support.workload import SCHEMAS, Workload

_DISK = "256m"  # more than the ledger of a long run
_PARTS = ("daemon", "duplicate", "source", "audit", "source link", "audit link")
_WALSENDER_PATIENCE = 6  # seconds


class Stage:
    """All of it, started by its ``with`` and removed afterwards. ``folder`` takes the log, keys and anchors.

    ``source_link`` and ``audit_link`` stand before the servers; ``locks`` keep two faults off the same part at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "daemon.log"
        self.locks = {part: threading.Lock() for part in _PARTS}
        self.disk: Path | None = None
        self._ballast: Path | None = None
        self._resources = ExitStack()
        self._born = 0.0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _start(self) -> None:
        patience = {"wal_sender_timeout": f"{_WALSENDER_PATIENCE}s", "log_checkpoints": "off"}
        self.source = self._resources.enter_context(Cluster("source", tcp=True, settings=patience))
        self.audit = self._resources.enter_context(
            Cluster("audit", tcp=True, settings={"log_checkpoints": "off"})
        )
        self.databases = new_databases(self.source, self.audit)
        Workload.install(self.databases.source_dsn)
        key = self.folder / "signing.pem"
        self.direct = self.databases.environment(
            BATCH_FLUSH_INTERVAL="0.05",
            LEDGER_SIGNING_KEY_FILE=str(key),
            LEDGER_ANCHORS=f"file:{self.folder / 'anchors'}",
        )
        made = cdc_audit("key", "generate", str(key), env=self.databases.environment())
        assert made.returncode == 0, made.stderr
        initialised(self.direct)
        self.oracle = Oracle.install(self.databases.source_dsn, SCHEMAS)
        self.source_link = self._resources.enter_context(Proxy(self.source.host, self.source.port))
        self.audit_link = self._resources.enter_context(Proxy(self.audit.host, self.audit.port))
        self.env = {
            **self.direct,
            "CDC_AUDIT_SOURCE_DSN": _through(self.source_link, self.databases.source_dsn),
            "CDC_AUDIT_AUDIT_DSN": _through(self.audit_link, self.databases.audit_dsn),
        }
        self._make_disk()
        self.daemon = self._resources.enter_context(DaemonProcess(self.env, self.log))
        self._born = time.monotonic()
        self.daemon.until_ready()

    def _make_disk(self) -> None:
        """A file system of its own under the ledger, which only root can make."""
        disk = self.folder / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", disk], capture_output=True
        )
        if mounted.returncode:
            return
        self._resources.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
        # The server's account must reach it, and the table must have left it before it goes.
        for parent in disk.parents:
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055)
        space = disk / "space"
        space.mkdir()
        shutil.chown(space, self.audit.data.stat().st_uid, self.audit.data.stat().st_gid)
        self.audit.execute(f"create tablespace small location '{space}'")
        for statement in ("table audit.ledger", "index audit.ledger_pkey"):
            self.audit.execute(f"alter {statement} set tablespace small", dbname=self.databases.audit_name)
        self.disk = disk

    def fill_disk(self) -> None:
        assert self.disk
        self._ballast = self.disk / "ballast"
        size = 0
        with self._ballast.open("wb") as file:
            while room := os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize:
                with contextlib.suppress(OSError):  # the server took some of it in this moment
                    os.posix_fallocate(file.fileno(), size, room)
                    size += room

    def empty_disk(self) -> None:
        if self._ballast is not None:
            self._ballast.unlink(missing_ok=True)

    def offer_restart_point(self) -> None:
        """A checkpoint of the source, if it is up.

        However much is confirmed, a slot lets WAL go only up to the last but one record of the running transactions. A server
        writes one every 15 s, counted anew from each start, and at checkpoints. In 15 s of this load there are 30 MB of WAL (two
        thirds of it the oracle's), and a source that crashes every few seconds writes none: then all WAL is kept, whatever the
        daemon does. With one every few seconds, what is kept for longer is kept for the daemon.
        """
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(self.source.dsn(), autocommit=True, connect_timeout=2) as source,
        ):
            source.execute("checkpoint")

    def start_daemon(self) -> None:
        self.daemon.start()
        self._born = time.monotonic()

    def daemon_pid(self) -> tuple[int, float] | None:
        """The daemon's process id and its age in seconds; None if there is none."""
        process = self.daemon.process
        return (process.pid, time.monotonic() - self._born) if process and self.daemon.is_running else None

    def second_daemon(self, *arguments: str) -> DaemonProcess:
        """Another one on the same slot, with the same log; not started yet."""
        return DaemonProcess(self.env, self.log, *arguments)

    def heal(self) -> None:
        """End every fault that may still last. The daemon runs afterwards."""
        self.source_link.resume()
        self.audit_link.resume()
        self.empty_disk()
        for server in (self.source, self.audit):
            server.start()
        if self.daemon.is_running:
            self.daemon.signal(signal.SIGCONT)
        else:
            self.start_daemon()

    def exit_unasked(self) -> str | None:
        """How the daemon ended by itself, and then it is started again; None if it runs or a fault is at it."""
        if not self.locks["daemon"].acquire(blocking=False):
            return None
        try:
            if self.daemon.is_running:
                return None
            code = self.daemon.wait()
            lines = [line for line in self.log.read_text().splitlines() if '"event":"stopped"' in line]
            self.start_daemon()
            return f"exit {code}: {json.loads(lines[-1]).get('reason') if lines else 'no word in its log'}"
        finally:
            self.locks["daemon"].release()

    def verify(self) -> tuple[bool, str]:
        """Whether ``verify`` is green with public key and anchors, and what it says."""
        arguments = (
            "--public-key",
            str(self.folder / "signing.pem.pub"),
            "--anchor",
            str(self.folder / "anchors"),
        )
        done = cdc_audit("verify", *arguments, env=self.direct, timeout=1800)
        return done.returncode == 0, (done.stdout + done.stderr).strip()


class Load:
    """The load's process; ``outcomes`` is what it last said."""

    def __init__(self, dsn: str, *, seed: str, rate: float) -> None:
        command = [sys.executable, "-m", "tests.chaos.load", dsn, "--seed", seed, "--rate", str(rate)]
        self.outcomes: dict[str, int] = {}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    @property
    def committed(self) -> int:
        """Transactions whose COMMIT returned."""
        return self.outcomes.get("committed", 0)

    @property
    def is_working(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout: float = 90) -> None:
        """Let it finish. Raises RuntimeError if it failed."""
        assert self._process.stdin
        self._process.stdin.close()
        code = self._process.wait(timeout)
        self._listening.join()
        if code:
            raise RuntimeError(f"the load's process ended with {code}")

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        self._listening.join()

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self.outcomes = json.loads(line)


def _through(proxy: Proxy, dsn: str) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=proxy.port, sslmode="disable")
