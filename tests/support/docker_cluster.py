"""``DockerCluster``: what ``Cluster`` is, in a container made from the Dockerfile here."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage

from cdc_audit.cli.demo.cluster import StopMode, free_port

_SIGNALS = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}
_MAJOR = os.environ.get("CDC_AUDIT_TEST_PG_MAJOR", "17")


class DockerCluster:
    """A container whose process 1 is the server: a signal to the container is one to the postmaster."""

    def __init__(
        self,
        name: str = "cluster",
        *,
        wal_level: str = "logical",
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        self.name = name
        given = {
            "wal_level": wal_level,
            "max_replication_slots": 50,
            "max_wal_senders": 50,
            "max_prepared_transactions": 10,
            "fsync": "off",
            **(settings or {}),
        }
        image = DockerImage(
            path=Path(__file__).parent,
            tag=f"cdc-audit-test:{_MAJOR}",
            clean_up=False,
            buildargs={"MAJOR": _MAJOR},
        )
        # A published port that Docker chooses would be another one after a restart.
        self._port = free_port()
        self._container = (
            DockerContainer(str(image.build()))
            .with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
            .with_bind_ports(5432, self._port)
            .with_command(["postgres", *(f"--{key}={value}" for key, value in given.items())])
        )
        self._made = False
        self._numbers = itertools.count(1)

    @property
    def is_running(self) -> bool:
        if not self._made:
            return False
        container = self._container.get_wrapped_container()
        container.reload()
        return bool(container.status == "running")

    def start(self, timeout: float = 30) -> None:
        first = not self._made
        if first:
            self._container.start()
            self._made = True
        elif not self.is_running:
            self._container.get_wrapped_container().start()
        self._wait_until_ready(timeout)
        if first and self.execute("select 1 from pg_settings where name = 'output_plugin_libraries'"):
            self.execute("alter system set output_plugin_libraries = pgoutput, test_decoding, wal2json")
            self.execute("select pg_reload_conf()")

    def stop(self, mode: StopMode = "fast", timeout: float = 30) -> None:
        if self.is_running:
            self._signal(_SIGNALS[mode], timeout)

    def restart(self, mode: StopMode = "immediate", timeout: float = 30) -> None:
        self.stop(mode, timeout)
        self.start(timeout)

    def kill(self) -> None:
        if self.is_running:
            self._signal("SIGKILL", 10)

    def remove(self) -> None:
        if self._made:
            self._container.stop(force=True, delete_volume=True)
            self._made = False

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self._port} dbname={dbname} user={user}"

    def execute(
        self,
        statements: str,
        params: Sequence[object] | None = None,
        *,
        dbname: str = "postgres",
        user: str = "postgres",
    ) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn(dbname, user), autocommit=True) as connection:
            cursor = connection.execute(statements, params)
            rows: list[tuple[Any, ...]] = []
            while True:
                if cursor.description is not None:
                    rows = cursor.fetchall()
                if not cursor.nextset():
                    return rows

    def create_database(self, name: str | None = None) -> str:
        chosen = name or f"test_{next(self._numbers)}_{secrets.token_hex(3)}"
        self.execute(f'create database "{chosen}"')
        return chosen

    def log_text(self) -> str:
        if not self._made:
            return ""
        out, err = self._container.get_logs()
        return (out + err).decode(errors="replace")

    def _signal(self, name: str, timeout: float) -> None:
        container = self._container.get_wrapped_container()
        container.kill(signal=name)
        container.wait(timeout=timeout)

    def _wait_until_ready(self, timeout: float) -> None:
        # The image's entry point runs a server on its socket only at first: TCP means that ours is up.
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.execute("select 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return
