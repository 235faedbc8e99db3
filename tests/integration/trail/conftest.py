"""``scene``: a trail with old months and a folder for its archives, a copy for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.trail.archiving import Scene, key_files, write_old_trail
from tests.support.servers import Server

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def old_trail(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    write_old_trail(audit_cluster.dsn(name))
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def scene(audit_cluster: Server, old_trail: str, tmp_path: Path) -> Iterator[Scene]:
    name = f"archived_{next(_NUMBERS)}"
    audit_cluster.execute(f'create database {name} template "{old_trail}"')
    key_files(tmp_path)
    (tmp_path / "archive").mkdir()
    yield Scene(audit_cluster, name, tmp_path, f"file:{tmp_path / 'archive'}")
    audit_cluster.execute(f"drop database {name} with (force)")
