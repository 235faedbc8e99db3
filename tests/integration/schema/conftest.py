"""A fresh database of the audit server, and connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.schema.migrate import migrate
from tests.support.servers import Server

Connect = Callable[..., Connection]


@pytest.fixture
def database(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    yield name
    with postgres.connect(audit_cluster.dsn(), side="audit") as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def connect(audit_cluster: Server, database: str) -> Iterator[Connect]:
    """``connect(user)`` to the database of the test."""
    with ExitStack() as stack:

        def make(user: str = "postgres") -> Connection:
            return stack.enter_context(postgres.connect(audit_cluster.dsn(database, user), side="audit"))

        yield make


@pytest.fixture
def empty(connect: Connect) -> Connection:
    """The superuser's connection to a database without audit schema."""
    return connect()


@pytest.fixture
def audit(empty: Connection) -> Connection:
    """The superuser's connection to a database with the schema ``audit``."""
    migrate(empty, "audit", None)
    return empty
