"""Notifications to systemd, read back from a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_audit.ops import notify


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_each_notification_is_one_datagram_in_systemds_words(systemd: socket.socket) -> None:
    notify.ready()
    notify.watchdog()
    notify.stopping()
    notify.status("streaming, 0 bytes behind")
    expected = [b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"STATUS=streaming, 0 bytes behind"]
    assert [systemd.recv(4096) for _ in expected] == expected


def test_a_reload_says_since_when_on_the_monotonic_clock(systemd: socket.socket) -> None:
    notify.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(4096))


def test_a_status_of_several_lines_cannot_say_anything_else(systemd: socket.socket) -> None:
    notify.status("waiting\nREADY=1")
    assert systemd.recv(4096) == b"STATUS=waiting READY=1"


def test_an_abstract_socket_is_reached_by_its_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"cdc-audit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify.ready()
        assert receiver.recv(4096) == b"READY=1"


def test_nothing_happens_without_systemd_or_with_a_dead_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("60000000", "", 30.0),
        ("60000000", str(os.getpid()), 30.0),
        ("60000000", "1", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
    ids=["for anybody", "for us", "for another process", "never", "no number", "not at all"],
)
def test_the_watchdog_is_fed_at_half_of_what_systemd_allows_this_process(
    usec: str, pid: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_interval() == expected
