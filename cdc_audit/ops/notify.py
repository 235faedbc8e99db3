"""Telling systemd how the daemon is (sd_notify(3)): a datagram to ``$NOTIFY_SOCKET``, nothing without it."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def ready() -> None:
    """Start-up, or a reload, is finished."""
    _send("READY=1")


def reloading() -> None:
    """The configuration is being read again; ``ready`` must follow."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The daemon is shutting down."""
    _send("STOPPING=1")


def watchdog() -> None:
    """The daemon is alive; due at every ``watchdog_interval``."""
    _send("WATCHDOG=1")


def status(text: str) -> None:
    """One line for ``systemctl status``."""
    _send("STATUS=" + " ".join(text.split()))


def watchdog_interval() -> float | None:
    """Seconds between two calls of ``watchdog``, half of what systemd allows; None where it doesn't watch."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # A daemon doesn't die, nor wait, because nobody listens to its notifications.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode(), address)
