"""What these tests share: connections, roles of the test's own, and a look into the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.source import slot
from tests.integration.source.stream_look import Look
from tests.support.databases import drop_slots
from tests.support.servers import Server

RoleMaker = Callable[..., str]
Connect = Callable[..., Connection]


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh database on the run's source server, and the name of a slot that is free."""

    source: Server
    name: str
    slot: str

    def dsn(self, user: str = "postgres") -> str:
        return self.source.dsn(self.name, user)


@pytest.fixture
def database(source_cluster: Server) -> Iterator[Database]:
    """Half of what ``databases`` is: these tests need no audit database, and making one takes time."""
    name = source_cluster.create_database()
    yield Database(source_cluster, name, f"slot_{name}")
    drop_slots(source_cluster, name)
    source_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def connect(database: Database) -> Iterator[Connect]:
    """Connections to the source database as cdc-audit makes them: ``connect(user)``."""
    with ExitStack() as stack:

        def make(user: str = "postgres", dbname: str = "") -> Connection:
            dsn = database.source.dsn(dbname or database.name, user)
            return stack.enter_context(postgres.connect(dsn, side="source"))

        yield make


@pytest.fixture
def source(connect: Connect) -> Connection:
    """The superuser's connection to the source database."""
    return connect()


@pytest.fixture
def make_role(database: Database) -> Iterator[RoleMaker]:
    """Login roles that are gone afterwards: ``make_role("app", "replication")`` returns the role's name."""
    made: list[str] = []

    def make(name: str, attributes: str = "") -> str:
        role = f"{database.name}_{name}"
        database.source.execute(f'create role "{role}" login {attributes}')
        made.append(role)
        return role

    yield make
    for role in made:
        with psycopg.connect(database.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.fixture
def look(source: Connection, database: Database) -> Look:
    """What the stream holds from now on; read with ``look.messages()`` and ``look.lines()``."""
    slot.create(source, database.slot, "test_decoding")
    return Look(source, database.slot)
