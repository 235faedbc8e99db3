"""``patient`` for a test that breaks something in a database, ``healthy`` for one that only looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.integration.ops.patient import Patient, admit
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server


@pytest.fixture
def patient(databases: Databases) -> Iterator[Patient]:
    admitted = admit(databases)
    yield admitted
    admitted.discharge()


@pytest.fixture(scope="session")
def _shared(source_cluster: Server, audit_cluster: Server) -> Iterator[Patient]:
    admitted = admit(new_databases(source_cluster, audit_cluster))
    yield admitted
    admitted.discharge()
    admitted.databases.drop()


@pytest.fixture
def healthy(_shared: Patient) -> Patient:
    """The run's shared patient with a configuration of the test's own; leave its databases as they are."""
    return replace(_shared, changes={})
