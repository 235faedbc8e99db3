"""What systemd hears of the daemon on a real notification socket: start, reload, stop, and silence when the loop stalls."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases

WATCHDOG_SECONDS = 2.0


class Systemd:
    """The end of ``$NOTIFY_SOCKET`` that systemd holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def close(self) -> None:
        self._socket.close()

    def next(self, timeout: float = 30) -> str:
        """The next message but for lines of status, which are kept; TimeoutError if none comes."""
        self._socket.settimeout(timeout)
        while (message := self._socket.recv(4096).decode()).startswith("STATUS="):
            self.statuses.append(message.removeprefix("STATUS="))
        return message

    def next_but_watchdog(self) -> str:
        """The next message that isn't a sign of life."""
        while (message := self.next()) == "WATCHDOG=1":
            pass
        return message

    def is_silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for so long, once what was sent before is read."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            pass
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(tmp_path / "notify")
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def environment(databases: Databases, systemd: Systemd) -> dict[str, str]:
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LOG_LEVEL="debug")
    initialised(env)
    return {
        **env,
        "NOTIFY_SOCKET": str(systemd.path),
        "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
    }


def test_systemd_hears_of_the_start_of_signs_of_life_of_a_reload_and_of_the_stop(
    environment: dict[str, str], systemd: Systemd, tmp_path: Path
) -> None:
    with DaemonProcess(environment, tmp_path / "log") as daemon:
        assert systemd.next_but_watchdog() == "READY=1"
        daemon.until_ready()
        began = time.monotonic()
        heard = 0
        while time.monotonic() < began + 2 * WATCHDOG_SECONDS:
            assert systemd.next(WATCHDOG_SECONDS) == "WATCHDOG=1"
            heard += 1
        assert heard >= 4, (
            "systemd's advice is a sign of life at half of the time that it allows, or more often"
        )

        before = time.monotonic_ns() // 1000
        daemon.signal(signal.SIGHUP)
        reloading = systemd.next_but_watchdog()
        said, _, at = reloading.partition("\nMONOTONIC_USEC=")
        assert (said, before <= int(at) <= time.monotonic_ns() // 1000) == ("RELOADING=1", True), reloading
        assert systemd.next_but_watchdog() == "READY=1"
        assert daemon.get("/readyz")[0] == 200, "a reload isn't a restart"

        daemon.signal(signal.SIGTERM)
        assert systemd.next_but_watchdog() == "STOPPING=1"
        assert daemon.wait() == 0
        assert systemd.statuses[0] == "streaming", "what `systemctl status` shows"


def test_a_loop_that_stalls_gives_no_sign_of_life_until_it_goes_on(
    environment: dict[str, str], databases: Databases, systemd: Systemd, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with DaemonProcess(environment, log) as daemon:
            until(lambda: daemon.get("/readyz")[0] == 200 or not daemon.is_running, "ready")
            stall(databases, systemd)
            assert systemd.is_silent_for(WATCHDOG_SECONDS + 1), "systemd would restart it now"
            assert daemon.get("/healthz")[0] == 200, "it is the loop that stands, not the process"

            def goes_on() -> bool:
                drain(reader)
                return not systemd.is_silent_for(0.5)

            until(goes_on, "signs of life again")
    finally:
        os.close(reader)


def stall(databases: Databases, systemd: Systemd) -> None:
    """Nobody reads the log: at some line the loop waits in write()."""
    numbers = itertools.count()

    def stands() -> bool:
        for number in itertools.islice(numbers, 100):
            databases.source.execute(f"insert into t values ({number})", dbname=databases.source_name)
        return systemd.is_silent_for(WATCHDOG_SECONDS / 2)

    until(stands, "the loop stands")


def drain(reader: int) -> None:
    try:
        while os.read(reader, 65536):
            pass
    except BlockingIOError:
        pass
