"""The form of doctor's checks, and running them: independent functions, each with what it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, LiteralString, NamedTuple, TypeAlias

import psycopg
from psycopg import Connection
from psycopg.rows import namedtuple_row

from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError
from cdc_audit.postgres import connect, explain, named_sql
from cdc_audit.source.facts import SourceFacts

Status: TypeAlias = Literal["ok", "info", "warn", "fail", "skip"]
Side: TypeAlias = Literal["source", "audit"]


class Outcome(NamedTuple):
    """What a check found: ``message`` says what it means, ``remedy`` what mends it, to be taken literally.

    A line of ``remedy`` that ends with a semicolon is SQL, for an administrator of the check's side; one that begins with
    "cdc-audit" is a command; any other is a step in words, "or ..." another way.
    """

    status: Status
    message: str
    remedy: str = ""
    side: Side | None = None  # where it isn't the check's


class Result(NamedTuple):
    """A check's outcome under its name, which is stable."""

    name: str
    side: Side
    status: Status
    message: str
    remedy: str


class Session:
    """What checks work with: the configuration, a clock (unix seconds), and what earlier checks have found.

    The connections and ``facts`` are there for checks that need ``source_reachable`` or ``audit_reachable``,
    ``unknown_options`` (of the output plugin) for those that need ``output_plugin``.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.clock = clock
        self.connections: dict[Side, Connection] = {}
        self.facts: SourceFacts | None = None
        self.unknown_options: tuple[str, ...] = ()

    @property
    def source(self) -> Connection:
        """The connection to the source."""
        return self.connections["source"]

    @property
    def audit(self) -> Connection:
        """The connection to the audit database."""
        return self.connections["audit"]

    def rows(self, side: Side, name: str, **parameters: object) -> list[Any]:
        """The rows, as named tuples, of a statement of ``sql/doctor.sql``."""
        return self.rows_on(self.connections[side], name, **parameters)

    def rows_on(self, connection: Connection, name: str, **parameters: object) -> list[Any]:
        """The same on a connection of the check's own."""
        statement: LiteralString = named_sql("cdc_audit.ops", "sql/doctor.sql")[name]
        with connection.cursor(row_factory=namedtuple_row) as cursor:
            return list(cursor.execute(statement, parameters).fetchall())

    def row(self, side: Side, name: str, **parameters: object) -> Any:
        """The first of ``rows``, or None."""
        found = self.rows(side, name, **parameters)
        return found[0] if found else None

    def connect(self, side: Side, dsn: str) -> Connection:
        """Connect with the daemon's DSN. Raises our error, always with a remedy."""
        try:
            connection = self.connections[side] = connect(dsn, side=side)
        except CdcAuditError as error:
            error.remedy = (
                error.remedy or f"start that server, or correct host, port and names in [{side}] dsn"
            )
            raise
        return connection

    def close(self) -> None:
        """Close what was opened."""
        for connection in self.connections.values():
            connection.close()


class Check(NamedTuple):
    """One precondition. ``needs``: the checks without whose success this one can't say anything."""

    name: str
    side: Side
    run: Callable[[Session], Outcome]
    needs: tuple[str, ...] = ()


def run_checks(checks: Sequence[Check], session: Session) -> Iterator[Result]:
    """Each check's result as soon as it is known, in the given order. No check's error ends the others."""
    stuck: dict[str, Status] = {}
    for check in checks:
        missing = [name for name in check.needs if name in stuck]
        if missing:
            reason = "was skipped" if stuck[missing[0]] == "skip" else "failed"
            outcome = Outcome("skip", f"not checked, because {missing[0]} {reason}")
        else:
            outcome = _outcome(check, session)
        if outcome.status in {"fail", "skip"}:
            stuck[check.name] = outcome.status
        yield Result(check.name, outcome.side or check.side, *outcome[:3])


def _outcome(check: Check, session: Session) -> Outcome:
    try:
        return check.run(session)
    except CdcAuditError as error:
        return Outcome("fail", error.message, error.remedy or "")
    except psycopg.Error as error:
        ours = explain(error, side=check.side)
        return Outcome("fail", ours.message, ours.remedy or "")
