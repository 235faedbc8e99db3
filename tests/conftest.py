"""Fixtures for tests on real servers; ``CDC_AUDIT_TEST_PG`` (auto, local, docker) says where they run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.copied_cluster import remove_templates
from tests.support.databases import Databases, new_databases
from tests.support.native import package_in
from tests.support.object_store import ObjectStore
from tests.support.servers import Server, new_server, place

_KEPT = {
    *("CDC_AUDIT_TEST_PG", "CDC_AUDIT_TEST_PG_MAJOR", "CDC_AUDIT_PG_BIN"),
    *("CDC_AUDIT_TEST_ROWS", "CDC_AUDIT_TEST_TRANSACTIONS", "CDC_AUDIT_TEST_FRESH", "CDC_AUDIT_TEST_READS"),
    "CDC_AUDIT_TEST_KILLS",
    "CDC_AUDIT_TEST_SPARK",
}

# Whatever the developer's shell says about databases and buckets must not reach a test or a process that a test starts.
for _name in list(os.environ):
    if _name.startswith(("CDC_AUDIT_", "PG", "AWS_")) and _name not in _KEPT:
        del os.environ[_name]
for _name in ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
    os.environ.pop(_name, None)


def pytest_report_header() -> str:
    try:
        return f"PostgreSQL servers: {place()}"
    except RuntimeError as error:
        return f"PostgreSQL servers: none ({error})"


# What takes long comes first, so that no process is left alone with it at the end; the many short ones fill up.
_FIRST = (
    "tests/acceptance/test_exactly_once",
    "tests/faults/",
    "tests/chaos/",
    "tests/acceptance/",
    "tests/deploy/",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by ``_FIRST``, else as it was."""
    items.sort(
        key=lambda item: next(
            (place for place, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST)
        )
    )


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage: no search for any goes through them, neither Python's own nor the product's."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """All servers are gone by now."""
    remove_templates()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables whose rows tests have left by ``record_property("table", (title, header, row))``."""
    tables: dict[tuple[str, tuple[str, ...]], list[tuple[str, ...]]] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "table":
                title, header, row = value
                tables.setdefault((title, tuple(header)), []).append(tuple(row))
    for (title, header), rows in tables.items():
        terminalreporter.section(title)
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in (header, *sorted(rows)):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            terminalreporter.write_line("  ".join(cells).rstrip())


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


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """The run's S3 server; take a bucket of the test's own."""
    store = ObjectStore()
    try:
        store.start()
        yield store
    finally:
        store.remove()


@pytest.fixture(scope="session")
def native_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, its hot loops compiled."""
    folder = tmp_path_factory.mktemp("native")
    package_in(folder)
    return folder


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
