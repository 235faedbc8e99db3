"""How the trail advances while everything around it breaks: looked at in the audit database itself, past all proxies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

_LOOK = (
    "select block, extract(epoch from last_commit_at)::float8 from audit.ledger order by block desc limit 1"
)
_RETAINED = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint from pg_replication_slots where slot_name = %s"
_INTERVAL = 0.1
_YOUNG = 3.0  # seconds in which a process's memory says nothing yet


@dataclass(slots=True)
class Recovery:
    """From a fault's end until the trail held a transaction that was committed after it, without the time of other faults."""

    fault: str
    ended: float  # seconds since the epoch
    seconds: float | None = None


@dataclass(slots=True)
class Trouble:
    """While a fault lasts: nobody can recover from another one meanwhile."""

    begun: float  # seconds since the epoch
    ended: float | None = None


@dataclass(slots=True)
class Watch:
    """A thread that looks at the ledger ten times a second, and at the daemon's memory once a second."""

    audit_dsn: str
    daemon_pid: Callable[[], tuple[int, float] | None]  # its process id and age in seconds, if it runs
    block: int = 0
    committed_at: float = 0.0  # commit time of the newest transaction in the trail
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MB
    recoveries: list[Recovery] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    noticed: list[float] = field(default_factory=list)  # seconds until a half-open connection was given up
    _advances: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    _stopping: threading.Event = field(default_factory=threading.Event)
    _started: float = field(default_factory=time.time)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def trouble(self, fault: str) -> Iterator[None]:
        """A fault lasts as long as the block does; from its end on, measure until the trail goes on."""
        trouble = Trouble(time.time())
        self.troubles.append(trouble)
        try:
            yield
        finally:
            trouble.ended = time.time()
        self.recoveries.append(Recovery(fault, trouble.ended))

    def stood_still(self, since: float, until: float) -> bool:
        """Whether no block appeared between these moments (seconds since the epoch)."""
        return not any(since <= at <= until for at in list(self._advances))

    def memory_floors(self, part: float, until: float) -> list[float]:
        """The least memory (MB) in each whole part of so many seconds: what the daemon does not do without at that time."""
        floors: dict[int, float] = {}
        for at, size in self.memory:
            number = int(at // part)
            if (number + 1) * part <= until:
                floors[number] = min(size, floors.get(number, size))
        return [floor for _, floor in sorted(floors.items())]

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self.audit_dsn, autocommit=True, connect_timeout=2) as audit:
                    while not self._stopping.wait(_INTERVAL):
                        self._look(audit)
            except psycopg.Error:
                self._sample()
                self._stopping.wait(_INTERVAL)

    def _look(self, audit: psycopg.Connection) -> None:
        row = audit.execute(_LOOK).fetchone()
        now = time.time()
        if row is not None and row[0] != self.block:
            self.block, self.committed_at = row[0], row[1] or 0.0
            self._advances.append(now)
            for one in self.recoveries:
                if one.seconds is None and self.committed_at > one.ended:
                    one.seconds = now - one.ended - self._troubled(one.ended, now)
        self._sample()

    def _troubled(self, since: float, until: float) -> float:
        """Seconds of this time in which any fault lasted."""
        seconds, at = 0.0, since
        for one in sorted(self.troubles, key=lambda one: one.begun):
            begun, ended = max(one.begun, at), min(one.ended or until, until)
            if ended > begun:
                seconds, at = seconds + ended - begun, ended
        return seconds

    def _sample(self) -> None:
        at = time.time() - self._started
        found = self.daemon_pid()
        if found is None or found[1] < _YOUNG:
            return
        try:
            status = Path(f"/proc/{found[0]}/status").read_text(encoding="ascii")
            kilobytes = status.partition("VmRSS:")[2].split(maxsplit=1)[0]
        except (OSError, IndexError):
            return
        self.memory.append((at, int(kilobytes) / 1024))


def retained_bytes(source_dsn: str, slot: str) -> int | None:
    """WAL that the source keeps for the slot; None while it can't be asked."""
    try:
        with psycopg.connect(source_dsn, connect_timeout=2) as source:
            row = source.execute(_RETAINED, (slot,)).fetchone()
            return int(row[0]) if row else None
    except psycopg.Error:
        return None
