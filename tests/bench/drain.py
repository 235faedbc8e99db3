"""The daemon's way from a full slot to committed blocks.

It streams from the empty slot first and is stopped (SIGSTOP) while the source is filled; SIGCONT is the start. So its start-up is
neither in the time nor in the CPU, and all that it finds waiting but some 200 kB in a socket's buffer is still in the slot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from tests.bench.workloads import SQL
from tests.support.daemon import DaemonProcess

_LONGEST = 900.0
_LOOK_EVERY = 0.04


class Drained(NamedTuple):
    """Rows a second, the daemon's CPU microseconds a row (user and system), its peak resident memory."""

    rows_per_s: float
    cpu_us_per_row: float
    peak_mib: float


@contextmanager
def stopped_daemon(env: Mapping[str, str], log: Path, module: str = "cdc_audit") -> Iterator[DaemonProcess]:
    """A daemon that streams and is stopped."""
    with DaemonProcess(env, log, module=module) as daemon:
        daemon.until_ready()
        daemon.signal(signal.SIGSTOP)
        yield daemon


def drain(daemon: DaemonProcess, audit_dsn: str, rows: int, schema: str = "audit") -> Drained:
    """Let a stopped daemon run until it has stored that many rows more; then it is stopped again."""
    with psycopg.connect(audit_dsn, autocommit=True, options=f"-c search_path={schema}") as audit:
        before = _stored(audit)
        cpu = daemon.cpu_seconds()
        began = time.monotonic()
        daemon.signal(signal.SIGCONT)
        while _stored(audit) < before + rows and daemon.is_running and time.monotonic() - began < _LONGEST:
            time.sleep(_LOOK_EVERY)
        seconds = time.monotonic() - began
        assert _stored(audit) >= before + rows, daemon.log_text()
    daemon.signal(signal.SIGSTOP)
    cpu = daemon.cpu_seconds() - cpu
    return Drained(rows / seconds, cpu / rows * 1e6, daemon.resident_bytes() / 1048576)


def _stored(audit: psycopg.Connection) -> int:
    """Asked for past psycopg's cursors: who looks so often must not take from the processor what is measured."""
    value = audit.pgconn.exec_(SQL["stored"].encode()).get_value(0, 0)
    assert value is not None
    return int(value)
