"""``DaemonProcess``: the program as users run it, with its metrics and its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cdc_audit.cli.demo.cluster import free_port
from tests.support import command_line


def cdc_audit(
    *arguments: str, env: Mapping[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cdc_audit", *arguments],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def initialised(env: Mapping[str, str]) -> None:
    """``cdc-audit init``, which must succeed. In this process, for hundreds of tests begin with it; but a lake's library reads the
    environment only once.
    """
    assert "CDC_AUDIT_FAILPOINT" not in env, "it would end the tests"
    if env.get("CDC_AUDIT_AUDIT_KIND") == "iceberg":
        process = cdc_audit("init", env=env)
        code, said = process.returncode, process.stderr
    else:
        code, _, said = command_line.run("init", env=env)
    assert code == 0, said


def until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Wait for a condition; TimeoutError that says which one."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


class DaemonProcess:
    """``cdc-audit run`` on a metrics port of its own; killed at the end of its ``with``. With ``own_session`` it leads one, as a
    service manager's processes do.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        *arguments: str,
        module: str = "cdc_audit",
        own_session: bool = False,
    ) -> None:
        self.port = free_port()
        self._env = {**env, "CDC_AUDIT_METRICS_LISTEN": f"127.0.0.1:{self.port}"}
        self._log = log
        self._arguments = arguments
        self._module = module
        self._own_session = own_session
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        # pytest shows it with the failure; its folder is soon gone. A pipe or a device has no end.
        if error is not None and self._log.is_file():
            print(self.log_text()[-6000:])

    def start(self) -> None:
        """Start it; it may take a moment until it streams."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, "run", *self._arguments],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=self._own_session,
            )

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        """The exit code, when it has ended by itself."""
        assert self.process is not None
        return self.process.wait(timeout)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def state(self) -> str:
        """The process's state as the system says it in a letter: T is stopped, S asleep."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of /metrics, /healthz or /readyz; (0, "") if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_ready(self, timeout: float = 30) -> None:
        """Wait until it streams."""
        until(lambda: self.get("/readyz")[0] == 200 or not self.is_running, "ready", timeout)
        assert self.is_running, self.log_text()

    def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 if it isn't there."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        pattern = rf"^cdc_audit_{name}{re.escape('{' + wanted + '}') if wanted else ''} (\S+)$"
        match = re.search(pattern, self.get("/metrics")[1], re.MULTILINE)
        return float(match[1]) if match else 0.0

    def reconnects(self) -> float:
        """How often the present process has lost a server; 0 if it does not answer."""
        return sum(self.metric("reconnects_total", side=side) for side in ("source", "audit"))

    def resident_bytes(self) -> int:
        """The process's peak resident memory (VmHWM)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_text(self) -> str:
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's JSON lines of one event."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == name]
