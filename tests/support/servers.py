"""What tests see of a PostgreSQL server, wherever it runs, and the choice where: ``CDC_AUDIT_TEST_PG``."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from cdc_audit.cli.demo.cluster import StopMode
from tests.support.copied_cluster import CopiedCluster

_PLACES = ("auto", "local", "docker")


class Server(Protocol):
    """A server of a test's own; ``CopiedCluster`` (local processes) and ``DockerCluster`` are the two kinds."""

    name: str

    @property
    def is_running(self) -> bool: ...
    def start(self, timeout: float = 30) -> None: ...
    def stop(self, mode: StopMode = "fast", timeout: float = 30) -> None: ...
    def restart(self, mode: StopMode = "immediate", timeout: float = 30) -> None: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...
    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str: ...
    def execute(
        self,
        statements: str,
        params: Sequence[object] | None = None,
        *,
        dbname: str = "postgres",
        user: str = "postgres",
    ) -> list[tuple[Any, ...]]: ...
    def create_database(self, name: str | None = None) -> str: ...
    def log_text(self) -> str: ...


def place() -> str:
    """``local`` or ``docker``. ``auto``, the default, is docker only where a daemon answers.

    Raises RuntimeError, so that a test run without servers fails and isn't skipped.
    """
    wanted = os.environ.get("CDC_AUDIT_TEST_PG", "auto")
    if wanted not in _PLACES:
        raise RuntimeError(f"CDC_AUDIT_TEST_PG={wanted}: must be one of {', '.join(_PLACES)}")
    if wanted == "auto":
        return "docker" if _docker_answers() else "local"
    if wanted == "docker" and not _docker_answers():
        raise RuntimeError("CDC_AUDIT_TEST_PG=docker, but no Docker daemon answers; start one or use local")
    return wanted


def new_server(name: str, **options: Any) -> Server:
    """A server, not started yet; ``options`` are ``Cluster``'s (docker: ``settings``, ``wal_level`` only)."""
    if place() == "local":
        return CopiedCluster(name, **options)
    from tests.support.docker_cluster import DockerCluster

    return DockerCluster(name, **options)


@cache
def _docker_answers() -> bool:
    # Asked by hand: the docker package leaks a socket where no daemon answers, and warnings are errors here.
    kind, _, address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    try:
        with _connected(kind, address) as daemon:
            daemon.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in daemon.recv(200)
    except (OSError, ValueError):
        return False


def _connected(kind: str, address: str) -> socket.socket:
    if kind == "tcp":
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=2)
    daemon = socket.socket(socket.AF_UNIX)
    try:
        daemon.settimeout(2)
        daemon.connect(address)
    except OSError:
        daemon.close()
        raise
    return daemon
