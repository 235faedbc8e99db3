"""``cdc-audit erase``: which personal values go, and the ``erasure`` blocks that take them away.

Values go by the audit schema's function ``erase``, which appends the block and erases exactly what it names, in one
transaction. Doesn't touch rows: they hold commitments (``cdc_audit.seal.personal``), here and in archives. Rows that are in
archives are found by whoever reads those, and handed over by their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import AnotherDaemonError, NotPermittedError, UsageError
from cdc_audit.postgres import explain, named_sql
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger

_RANGES = 5_000  # in one block: about 100 kB of detail
_SQL = named_sql("cdc_audit.sink", "sql/erasure.sql")


class Piece(NamedTuple):
    """What one block erases: all ``values`` of these parts in ``rows`` rows, ``ids`` as inclusive ranges."""

    parts: tuple[str, ...]
    ids: list[tuple[int, int]]
    rows: int
    values: int


class ArchivedRow(NamedTuple):
    """A row of an archive that is meant, and the schema of its table."""

    id: int
    schema_name: str


def by_user(
    connection: Connection, schema: str, user: str, archived: Sequence[ArchivedRow] = ()
) -> list[Piece]:
    """The personal context values of all rows in which this user acts: what the rows are about isn't the user's."""
    parts = ("context",)
    found = _found(connection, schema, "by_user", user=user)
    return _pieces([*_of_archived(connection, schema, archived, parts), *found], parts, "")


def by_record(
    connection: Connection,
    schema: str,
    schema_name: str | None,
    table: str,
    record: str,
    archived: Sequence[ArchivedRow] = (),
) -> list[Piece]:
    """The personal values of the images of all rows of a record. Raises UsageError if tables of several schemas match."""
    parts = ("new_data", "old_data")
    found = _found(connection, schema, "by_record", schema_name=schema_name, table=table, record=record)
    return _pieces([*_of_archived(connection, schema, archived, parts), *found], parts, table)


def values_left(connection: Connection, schema: str, ids: Sequence[Sequence[int]]) -> int:
    """How many personal values of rows, by inclusive ranges of ids, nobody has erased."""
    query = sql.SQL(_SQL["values_left"]).format(schema=sql.Identifier(schema))
    with _explained(connection):
        row = connection.execute(query, (orjson.dumps(ids).decode(),)).fetchone()
    assert row
    return int(row[0])


def _of_archived(
    connection: Connection, schema: str, rows: Sequence[ArchivedRow], parts: tuple[str, ...]
) -> list[tuple[int, int, str]]:
    if not rows:
        return []
    ids, schemas = zip(*rows, strict=True)
    return _found(connection, schema, "by_ids", ids=list(ids), schemas=list(schemas), parts=list(parts))


def erase(
    connection: Connection, schema: str, pieces: Iterable[Piece], *, reason: str, signer: Signer | None
) -> list[int]:
    """Erase all of them or, on any error, nothing; the numbers of the blocks that say so.

    Raises SettingError if the ledger is signed with another key, AnotherDaemonError if the daemon was faster each time,
    NotPermittedError, UnavailableError if somebody else erases the same values just now.
    """
    pieces = list(pieces)
    with _explained(connection):
        row = connection.execute(_SQL["who"]).fetchone()
        assert row
        for attempt in range(ledger.ATTEMPTS):
            try:
                with connection.transaction():
                    return [_append(connection, schema, one, reason, row[0], signer) for one in pieces]
            except AnotherDaemonError:
                if attempt == ledger.ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _append(
    connection: Connection, schema: str, piece: Piece, reason: str, by: str, signer: Signer | None
) -> int:
    detail = {
        "by": by,
        "ids": piece.ids,
        "parts": piece.parts,
        "reason": reason,
        "values": piece.values,
    }
    return ledger.append(connection, schema, "erasure", detail=detail, signer=signer).block


def _found(connection: Connection, schema: str, name: str, **values: Any) -> list[tuple[int, int, str]]:
    query = sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema))
    with _explained(connection), connection.transaction():
        ledger.require_version(connection, schema)
        connection.execute(_SQL["prefer_indexes"])
        return connection.execute(query, values).fetchall()


def _pieces(found: list[tuple[int, int, str]], parts: tuple[str, ...], table: str) -> list[Piece]:
    schemas = sorted({schema_name for _, _, schema_name in found})
    if table and len(schemas) > 1:
        raise UsageError(
            f"there is a table {table} in {len(schemas)} schemas", remedy=f"say --table {schemas[0]}.{table}"
        )
    pieces: list[Piece] = []
    for row_id, count, _ in sorted(found):
        if pieces and pieces[-1].ids[-1][1] == row_id - 1:
            pieces[-1].ids[-1] = (pieces[-1].ids[-1][0], row_id)
        elif pieces and len(pieces[-1].ids) < _RANGES:
            pieces[-1].ids.append((row_id, row_id))
        else:
            pieces.append(Piece(parts, [(row_id, row_id)], 0, 0))
        last = pieces[-1]
        pieces[-1] = last._replace(rows=last.rows + 1, values=last.values + count)
    return pieces


@contextmanager
def _explained(connection: Connection) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        mine = explain(error, side="audit")
        if isinstance(mine, NotPermittedError):
            mine.remedy = (
                f'let [audit] admin_dsn name a superuser, or: grant audit_owner to "{connection.info.user}"'
            )
        raise mine from error
    except NotPermittedError as error:
        error.remedy = (
            f'let [audit] admin_dsn name a superuser, or: grant audit_owner to "{connection.info.user}"'
        )
        raise
