"""Fixtures for tests on real servers; ``CDC_AUDIT_TEST_PG`` (auto, local, docker) says where they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.databases import Databases, new_databases
from tests.support.servers import Server, new_server, place

_KEPT = {"CDC_AUDIT_TEST_PG", "CDC_AUDIT_TEST_ROWS", "CDC_AUDIT_TEST_PG_MAJOR", "CDC_AUDIT_PG_BIN"}

# Whatever the developer's shell says about databases must not reach a test or a process that a test starts.
for _name in list(os.environ):
    if _name.startswith(("CDC_AUDIT_", "PG")) and _name not in _KEPT:
        del os.environ[_name]
for _name in ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
    os.environ.pop(_name, None)


def pytest_report_header() -> str:
    try:
        return f"PostgreSQL servers: {place()}"
    except RuntimeError as error:
        return f"PostgreSQL servers: none ({error})"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that of two processes neither waits for the other at the end."""
    items.sort(key=lambda item: "test_exactly_once" not in item.nodeid)


def _running(name: str) -> Iterator[Server]:
    server = new_server(name)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def source_cluster() -> Iterator[Server]:
    """The run's source server. Don't stop or reconfigure it: ``private_cluster`` is for that."""
    yield from _running("source")


@pytest.fixture(scope="session")
def audit_cluster() -> Iterator[Server]:
    """The run's audit server. Don't stop or reconfigure it: ``private_cluster`` is for that."""
    yield from _running("audit")


@pytest.fixture
def private_cluster() -> Iterator[Callable[..., Server]]:
    """A factory of started servers of the test's own, which it may crash: ``private_cluster("source")``."""
    made: list[Server] = []

    def make(name: str = "private", **options: Any) -> Server:
        server = new_server(name, **options)
        made.append(server)
        server.start()
        return server

    try:
        yield make
    finally:
        for server in made:
            server.remove()


@pytest.fixture
def databases(source_cluster: Server, audit_cluster: Server) -> Iterator[Databases]:
    """A fresh source database and a fresh audit database, dropped afterwards with their slots."""
    pair = new_databases(source_cluster, audit_cluster)
    try:
        yield pair
    finally:
        pair.drop()
