"""Legal holds: blocks of the ledger, so that who held what, when and why is as provable as the rows.

A ``hold`` block's detail says what is held and why, and its number is the hold's name; a ``release`` block's detail names the hold
that it ends. Nothing is ever taken back: a hold that was released can be added again, as another one::

    hold     {"by", "reason", "schema_name", "table_name", "record_id", "user", "since", "until"}    what is not asked for is null
    release  {"by", "reason", "hold": <block>}
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError, UsageError
from cdc_audit.model.ledger import Block
from cdc_audit.model.retention import Hold
from cdc_audit.postgres import explain, named_sql
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger

_SQL = named_sql("cdc_audit.sink", "sql/retention.sql")


class Held(NamedTuple):
    """A hold, who added it and when; and the same of its release: ``released`` is that block, 0 while it is in force."""

    hold: Hold
    by: str
    at: datetime
    released: int = 0
    released_by: str = ""
    released_at: datetime | None = None
    release_reason: str = ""


def holds(connection: Connection, schema: str) -> list[Held]:
    """All holds, in order, also those that were released. Raises our errors."""
    query = sql.SQL(_SQL["holds"]).format(schema=sql.Identifier(schema))
    found: dict[int, Held] = {}
    with explained(connection):
        ledger.require_version(connection, schema)
        for block, kind, written_at, detail in connection.execute(query):
            if kind == "hold":
                found[block] = Held(_hold(block, detail), detail["by"], written_at)
            elif (one := found.get(detail["hold"])) is not None and not one.released:
                found[one.hold.number] = one._replace(
                    released=block,
                    released_by=detail["by"],
                    released_at=written_at,
                    release_reason=detail["reason"],
                )
    return list(found.values())


def in_force(connection: Connection, schema: str) -> list[Hold]:
    """The holds that nobody has released."""
    return [one.hold for one in holds(connection, schema) if not one.released]


def add(connection: Connection, schema: str, hold: Hold, signer: Signer | None) -> Block:
    """Append the ``hold`` block; its number is the hold's."""
    with explained(connection):
        detail = {name: getattr(hold, name) for name in Hold._fields if name != "number"} | {
            "by": who(connection)
        }
        return ledger.append_beside_daemon(connection, schema, "hold", detail=detail, signer=signer)


def release(connection: Connection, schema: str, number: int, reason: str, signer: Signer | None) -> Block:
    """Append the ``release`` block of a hold. Raises UsageError if there is none of that number in force."""
    if number not in (one.number for one in in_force(connection, schema)):
        raise UsageError(
            f"there is no hold {number} in force", remedy="see which there are: cdc-audit hold list"
        )
    with explained(connection):
        detail = {"by": who(connection), "reason": reason, "hold": number}
        return ledger.append_beside_daemon(connection, schema, "release", detail=detail, signer=signer)


def who(connection: Connection) -> str:
    """The role that the connection was opened as."""
    row = connection.execute(_SQL["who"]).fetchone()
    assert row
    return str(row[0])


@contextmanager
def explained(connection: Connection) -> Iterator[None]:
    """Psycopg's errors become ours; whoever lacks a right is told which role has it."""
    try:
        yield
    except (psycopg.Error, NotPermittedError) as error:
        mine = explain(error, side="audit") if isinstance(error, psycopg.Error) else error
        if isinstance(mine, NotPermittedError):
            mine.remedy = (
                f'let [audit] admin_dsn name a superuser, or: grant audit_owner to "{connection.info.user}"'
            )
        raise mine from error


def _hold(number: int, detail: dict[str, Any]) -> Hold:
    since, until = (
        datetime.fromisoformat(detail[name]) if detail[name] else None for name in ("since", "until")
    )
    texts = {name: detail[name] for name in ("schema_name", "table_name", "record_id", "user", "reason")}
    return Hold(number, since=since, until=until, **texts)
