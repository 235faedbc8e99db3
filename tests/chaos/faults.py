"""The faults, done. Each is a function that does one and returns, at its end, how to see that it had an effect."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from cdc_audit.cli.demo.cluster import Cluster
from tests.chaos.plan import Fault
from tests.chaos.stage import Stage
from tests.chaos.watch import Watch
from tests.support.proxy import Proxy

Seen = Callable[[], bool]

_PATIENCE = 20.0  # seconds in which an effect must show
_REACTION = 0.7  # seconds in which a daemon may finish what it was at
_LOST = re.compile('"connection_lost"|"stream_dropped"|"state":"waiting"')
_CRASHED = re.compile("not properly shut down|was interrupted")
_SESSIONS = (
    "select client_port from pg_stat_activity where application_name like 'cdc-audit%' and client_port > 0"
)


class Log:
    """What a file has been given since now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size if path.exists() else 0

    def has(self, pattern: str | re.Pattern[str]) -> bool:
        with self._path.open("rb") as file:
            file.seek(self._start)
            return re.search(pattern, file.read().decode("utf-8", "replace")) is not None


def do(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    """Do it, alone on the part that it hits. Returns when it is over."""
    with stage.locks[_part(fault)], watch.trouble(str(fault)):
        return _FAULTS[fault.kind](fault, stage, watch)


def is_seen(seen: Seen) -> bool:
    """Wait for the effect, as long as it may take."""
    deadline = time.monotonic() + _PATIENCE
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _part(fault: Fault) -> str:
    """What must not be hit twice at a time."""
    if fault.kind == "network":
        return f"{fault.variant.split()[-1]} link"
    return {
        "audit crash": "audit",
        "full disk": "audit",
        "source crash": "source",
        "duplicate": "duplicate",
    }.get(fault.kind, "daemon")


def _kill(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    log = Log(stage.log)
    stage.daemon.kill()
    was_killed = stage.daemon.wait() == -signal.SIGKILL
    stage.start_daemon()
    return lambda: was_killed and log.has('"started"')


def _crash(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    """The server recovers, and the daemon has noticed."""
    server: Cluster = stage.source if fault.kind == "source crash" else stage.audit
    log, servers = Log(stage.log), Log(server.folder / "log")
    if fault.variant == "sigkill":
        server.kill()
    else:
        server.stop("immediate")
    time.sleep(fault.seconds)  # it is down for so long
    server.start()
    return lambda: servers.has(_CRASHED) and log.has(_LOST)


def _network(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    what, side = fault.variant.split()
    link = stage.source_link if side == "source" else stage.audit_link
    log, before = Log(stage.log), stage.daemon.reconnects()

    def has_begun_anew() -> bool:  # the log says the same thing once a minute
        return log.has(_LOST) or stage.daemon.reconnects() > before

    if what == "cut":
        link.cut()
    elif what == "stall":
        return _stall(fault, link, watch)
    elif _half_open(stage.source if side == "source" else stage.audit, link):
        # The daemon must find out by itself, if it isn't killed before that; then the server's side of it ends, as keepalives
        # would see to.
        begun = time.monotonic()
        try:
            assert is_seen(lambda: has_begun_anew() or log.has('"started"')), "nobody noticed"
            if has_begun_anew():
                watch.noticed.append(time.monotonic() - begun)
        finally:
            link.cut()
    return has_begun_anew


def _stall(fault: Fault, link: Proxy, watch: Watch) -> Seen:
    begun = time.time()
    link.stall()
    time.sleep(fault.seconds)  # nothing gets through for so long
    ended = time.time()
    link.resume()
    return lambda: watch.stood_still(begun + _REACTION, ended)


def _half_open(server: Cluster, link: Proxy) -> int:
    """What is sent on the daemon's present connections arrives nowhere, and none of them is closed. How many these are: after
    another fault there may be none yet.
    """
    try:
        with psycopg.connect(server.dsn(), connect_timeout=3) as connection:
            ports = [port for (port,) in connection.execute(_SESSIONS)]
    except psycopg.OperationalError:
        return 0  # the server is down: nothing is open
    for port in ports:
        link.stall_one(port)
    return len(ports)


def _stop(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    """Asleep: the process is in state T, and nothing is written."""
    begun = time.time()
    stage.daemon.signal(signal.SIGSTOP)
    time.sleep(fault.seconds)  # it sleeps for so long
    state = stage.daemon.state
    ended = time.time()
    stage.daemon.signal(signal.SIGCONT)
    return lambda: state == "T" and watch.stood_still(begun + _REACTION, ended)


def _full_disk(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    log = Log(stage.log)
    stage.fill_disk()
    try:
        was_full = is_seen(lambda: log.has("53100"))
        time.sleep(fault.seconds)  # it stays full for so long
    finally:
        stage.empty_disk()
    return lambda: was_full


def _duplicate(fault: Fault, stage: Stage, watch: Watch) -> Seen:
    """A second daemon waits, or exits 75; if the first one happened to be away, it takes over until it is killed."""
    log = Log(stage.log)
    if fault.variant == "no standby":
        with stage.second_daemon("--no-standby") as second:
            try:
                code = second.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                code = 0
        return lambda: code == 75
    with stage.second_daemon():
        time.sleep(fault.seconds)  # it is there for so long
    return lambda: log.has("another daemon")


_FAULTS: dict[str, Callable[[Fault, Stage, Watch], Seen]] = {
    "kill": _kill,
    "audit crash": _crash,
    "source crash": _crash,
    "network": _network,
    "stop": _stop,
    "full disk": _full_disk,
    "duplicate": _duplicate,
}
