"""``PgBouncer``: a pooler in transaction mode before a server: fewer server connections than clients, handed on at each COMMIT."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_audit.cli.demo.cluster import free_port
from tests.support.daemon import until

_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))


def find_pgbouncer() -> str | None:
    """The program, from PATH (.ci/run unpacks Debian's package there) or where Debian installs it."""
    return shutil.which("pgbouncer", path=_PLACES)


class PgBouncer:
    """In its ``with`` it answers at ``dsn``; connects to the server as the same user, with two connections."""

    def __init__(self, program: str, server_dsn: str) -> None:
        self._program = program
        self._server = conninfo_to_dict(server_dsn)
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = make_conninfo(
            host="127.0.0.1", port=self._port, user=self._server["user"], dbname=self._server["dbname"]
        )

    def __enter__(self) -> Self:
        (self._folder / "users").write_text(f'"{self._server["user"]}" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self._folder / "users",
            "pool_mode": "transaction",
            "default_pool_size": 2,
            "ignore_startup_parameters": "extra_float_digits",
        }
        if os.getuid() == 0:  # it refuses to serve as root
            settings["user"] = "nobody"
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        lines = [f"{key} = {value}" for key, value in settings.items()]
        server = f"* = host={self._server['host']} port={self._server['port']}"
        ini = self._folder / "pgbouncer.ini"
        ini.write_text("\n".join(["[databases]", server, "[pgbouncer]", *lines]) + "\n")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, str(ini)], stdout=log, stderr=log)
        until(self._answers, "PgBouncer answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self._folder)

    def log_text(self) -> str:
        return (self._folder / "log").read_text()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
