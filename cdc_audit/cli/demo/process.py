"""``cdc-audit`` as processes, as its users run it: one-time commands, and the daemon."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import cdc_audit
from cdc_audit.cli.demo.cluster import free_port
from cdc_audit.errors import CheckFailedError, UnavailableError

_PROGRAM = [sys.executable, "-m", "cdc_audit"]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without any setting of its own, and these ``CDC_AUDIT_*`` (given without prefix).

    The processes run this very package, installed or not, and print for the demo's width.
    """
    unwanted = ("CDC_AUDIT_", "PG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    clean["PYTHONPATH"] = str(Path(cdc_audit.__file__).parents[1])
    clean["COLUMNS"] = "98"
    return {**clean, **{f"CDC_AUDIT_{key}": value for key, value in settings.items()}}


def run(arguments: list[str], settings: Mapping[str, str], folder: Path, expected: int = 0) -> str:
    """Run ``cdc-audit ARGUMENTS`` and return what it printed. Raises CheckFailedError unless its exit code is the expected."""
    done = subprocess.run(
        [*_PROGRAM, *arguments],
        env=environment(settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != expected:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise CheckFailedError(
            f"`cdc-audit {' '.join(arguments)}` ended with exit code {done.returncode}: {said}"
        )
    return done.stdout


class DaemonProcess:
    """``cdc-audit run`` as a process of its own, with its metrics on a free port of 127.0.0.1."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.settings = {**settings, "METRICS_LISTEN": self.address}
        self.log = folder / "daemon.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_PROGRAM, "run"],
                env=environment(self.settings),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self, timeout: float = 20) -> None:
        """Until ``/readyz`` says so. Raises UnavailableError with the end of the log."""
        deadline = time.monotonic() + timeout
        while self._readiness() != 200:
            self.check()
            if time.monotonic() > deadline:
                raise UnavailableError(f"the daemon isn't ready after {timeout:.0f} s: {self.log_end()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise UnavailableError if it isn't running any more."""
        if self._process.poll() is not None:
            code = self._process.returncode
            raise UnavailableError(f"the daemon ended with exit code {code}: {self.log_end()}")

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM, as a service manager would; returns the exit code. Kills it if that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def log_end(self) -> str:
        """The last lines that it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]

    def _readiness(self) -> int | None:
        host, _, port = self.address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
