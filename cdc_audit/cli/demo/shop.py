"""The demo's application: a small shop that says who acts, and counts what it has committed.

It uses cdc-audit in one way only: ``select cdc_audit.set_context(...)`` at the start of a transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from cdc_audit.postgres import named_sql

_SQL = named_sql("cdc_audit.cli.demo", "sql/shop.sql")


class Person(NamedTuple):
    """Somebody who acts, as the application knows them."""

    user_id: str
    email: str
    ip_address: str


ANNA = Person("anna", "anna@shop.example", "10.0.0.11")
BEN = Person("ben", "ben@shop.example", "10.0.0.12")
CARLA = Person("carla", "carla@shop.example", "10.0.0.13")
DORA = Person("dora", "dora@mail.example", "203.0.113.7")
EMIL = Person("emil", "emil@mail.example", "198.51.100.23")
WEB = Person("web", "", "203.0.113.99")

# Table, action, user, how far that user can be believed.
Key = tuple[str, str, str, str]


class Work:
    """One open transaction of somebody (or of nobody who says so)."""

    def __init__(self, connection: Connection, user: str, trust: str) -> None:
        self._connection = connection
        self._user = user
        self._trust = trust
        self.counted: Counter[Key] = Counter()

    def act_as(self, person: Person, request_id: str) -> None:
        """Say who acts from here on."""
        fields = {**person._asdict(), "user_agent": "shop/1.0", "request_id": request_id}
        said = {key: value for key, value in fields.items() if value}
        self._connection.execute(_SQL["set_context"], (json.dumps(said),))
        self._user, self._trust = person.user_id, "signed"

    def do(self, action: str, table: str, statement: str, *params: object) -> int:
        """Run one of sql/shop.sql's statements; returns the new row's id where it makes one."""
        adapted = [Jsonb(param) if isinstance(param, dict) else param for param in params]
        cursor = self._connection.execute(_SQL[statement], adapted)
        self.counted[table, action, self._user, self._trust] += cursor.rowcount
        row = cursor.fetchone() if cursor.description else None
        return int(row[0]) if row else 0


class Shop:
    """The shop; ``committed`` counts all changes that it and its database administrator have committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.committed: Counter[Key] = Counter()

    @property
    def changes(self) -> int:
        """How many rows were changed by committed transactions."""
        return self.committed.total()

    @contextmanager
    def transaction(
        self, person: Person | None = None, request_id: str = "", *, keep: bool = True
    ) -> Iterator[Work]:
        """A transaction in a person's name; ``keep=False`` rolls it back at the end."""
        with self._connection.transaction(force_rollback=not keep):
            work = Work(self._connection, "", "none")
            if person is not None:
                work.act_as(person, request_id)
            yield work
        if keep:
            self.committed.update(work.counted)

    def change_past_the_application(
        self, connection: Connection, statement: str, table: str, *params: object
    ) -> None:
        """What a database administrator does by hand, with nobody's name on it."""
        work = Work(connection, "", "none")
        work.do("UPDATE", table, statement, *params)
        self.committed.update(work.counted)

    def rows(self) -> tuple[Any, ...]:
        """How many users, orders and payments there are now."""
        row = self._connection.execute(_SQL["count_rows"]).fetchone()
        assert row is not None
        return row
