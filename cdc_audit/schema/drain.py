"""Rows of the default partition into the months that they are of.

They get there when a month's partition can't be made just then, or is out of all reason. Rows of the trail can't be deleted, so the
default partition is put aside and its rows are inserted anew, byte for byte, in one transaction: whoever looks sees them once.
Doesn't touch the ledger: rows are the same rows, whichever partition holds them.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import CheckFailedError, UnavailableError
from cdc_audit.postgres import explain, named_sql

_SQL = named_sql("cdc_audit.schema", "sql/drain.sql")


class Drained(NamedTuple):
    """Rows of a month (``2025-01``) that have left the default partition."""

    month: str
    rows: int


def drain_default(connection: Connection, schema: str) -> list[Drained]:
    """Move what can have a partition of its own. The daemon may be running: it waits meanwhile.

    Needs a member of audit_owner. Raises UnavailableError, and nothing has happened, if somebody reads or writes the trail for
    longer than 3 s; NotPermittedError.
    """

    def run(name: str, *values: str) -> psycopg.Cursor:
        return connection.execute(sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema)), values or None)

    try:
        with connection.transaction():
            run("settings")
            run("patience")
            months = run("months").fetchall()
            if not months:
                return []
            for step in ("put_aside", "rename", "make", "attach", "protect"):
                run(step)
            made = [
                (month, rows)
                for month, rows in months
                if run("ensure_partition", month).fetchone() == (True,)
            ]
            run("move")
            if run("same").fetchone() != (True,):
                raise CheckFailedError("rows of the default partition would have changed: nothing was done")
            run("drop")
    except psycopg.errors.LockNotAvailable as error:
        raise UnavailableError(
            "audit database: the trail is being read or written; the default partition can wait",
            remedy="repeat it",
        ) from error
    except psycopg.Error as error:
        raise explain(error, side="audit") from error
    return [Drained(month[:7], rows) for month, rows in made]
