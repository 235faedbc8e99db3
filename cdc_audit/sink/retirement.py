"""Taking a month out of the audit database: the ``retention`` block and the drop of its partition are one transaction.

So either the rows are there, or a signed block says where they are. In that transaction nothing can be added to the month and
nothing was, and no row of it is under a hold, by whatever stands in the ledger before the block. The block's detail::

    {"by", "month", "partition", "rows", "ids": [[first, last], ...], "manifest": {"name", "sha256"}, "archive", "bytes", "hot",
     "keep"}

What opens the personal values of an archived month stays in ``personal_values``: the archive holds commitments only, so that
``erase`` goes on reaching every value. Of a month that goes without any archive (manifest and archive are "") the same transaction
erases them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import orjson
from psycopg import Connection, sql

from cdc_audit import failpoint
from cdc_audit.errors import AnotherDaemonError, CheckFailedError, UnavailableError
from cdc_audit.model.ledger import Block
from cdc_audit.model.retention import Hold, Policy
from cdc_audit.postgres import named_sql
from cdc_audit.seal.personal import PARTS
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import holds, ledger
from cdc_audit.sink.erasure import values_left

_SQL = named_sql("cdc_audit.sink", "sql/retention.sql")
_PAUSE = 1.0  # seconds in which those who waited behind us get their turn


class Retirement(NamedTuple):
    """A month that is to go: ``ids`` are inclusive ranges with ``rows`` rows in all, as its archive has them.

    Without an archive, ``manifest`` and ``archive`` are "", and ids and rows are those that the partition has when it is closed.
    """

    partition: str
    month: str
    ids: list[tuple[int, int]]
    rows: int
    manifest: str
    manifest_sha256: str
    archive: str
    bytes: int
    policy: Policy


@contextmanager
def only_one(connection: Connection, schema: str) -> Iterator[None]:
    """One archive run of a ledger at a time, for as long as the connection is open. Raises AnotherDaemonError."""
    with holds.explained(connection):
        row = connection.execute(_SQL["try_archive_lock"], (schema,)).fetchone()
    if not row or not row[0]:
        raise AnotherDaemonError("another archive run is at work on this ledger", remedy="wait for its end")
    yield


def covering(connection: Connection, schema: str, partition: str, wanted: Sequence[Hold]) -> list[int]:
    """The numbers of those holds under which any row of a partition is."""
    query = sql.SQL(_SQL["covered"]).format(leaf=sql.Identifier(schema, partition))
    with holds.explained(connection):
        return [
            one.number for one in wanted if connection.execute(query, one._asdict()).fetchone() == (True,)
        ]


def rows_of(connection: Connection, schema: str, partition: str) -> int:
    """How many rows a partition has, counted."""
    query = sql.SQL(_SQL["count"]).format(leaf=sql.Identifier(schema, partition))
    with holds.explained(connection):
        row = connection.execute(query).fetchone()
    assert row
    return int(row[0])


def without_archive(partition: str, month: str, policy: Policy) -> Retirement:
    """A month that is to go for good."""
    return Retirement(partition, month, [], 0, "", "", "", 0, policy)


def retire(
    connection: Connection, schema: str, retirement: Retirement, signer: Signer, *, attempts: int = 20
) -> Block:
    """Drop the partition and append the block that says so, or do nothing. The daemon may be running: it waits for a moment.

    Raises CheckFailedError if the partition has other rows than the archive, or any that must stay; UnavailableError if the trail
    was too busy each time, and for connections that are lost: then the transaction is there or not, and repeating the run tells.
    """
    for attempt in range(attempts):
        try:
            with holds.explained(connection), connection.transaction():
                return _retire(connection, schema, retirement, signer)
        except (AnotherDaemonError, UnavailableError) as error:
            if connection.closed:
                raise
            if attempt == attempts - 1:
                error.remedy = (
                    "wait for the end of whatever reads the trail so long (a verification?), then repeat"
                )
                raise
            if isinstance(error, UnavailableError):
                time.sleep(_PAUSE)
    raise AssertionError("the last attempt returns or raises")


def _retire(connection: Connection, schema: str, retirement: Retirement, signer: Signer) -> Block:
    leaf = sql.Identifier(schema, retirement.partition)
    connection.execute(_SQL["settings"])
    connection.execute(sql.SQL(_SQL["close_month"]).format(leaf=leaf))
    seen = _last_block(connection, schema)
    if not retirement.manifest:
        retirement = _whole(connection, leaf, retirement)
    _check(connection, schema, retirement)
    failpoint.reached("month-closed")
    connection.execute(sql.SQL(_SQL["drop_month"]).format(leaf=leaf))
    failpoint.reached("month-dropped")
    # From here on nobody can write a block with rows.
    if not retirement.manifest:
        erase_values(connection, schema, retirement.month, retirement.ids, signer)
    detail = {
        "by": holds.who(connection),
        "month": retirement.month,
        "partition": retirement.partition,
        "rows": retirement.rows,
        "ids": retirement.ids,
        "manifest": {"name": retirement.manifest, "sha256": retirement.manifest_sha256},
        "archive": retirement.archive,
        "bytes": retirement.bytes,
        "hot": retirement.policy.hot,
        "keep": retirement.policy.keep,
    }
    block = ledger.append(connection, schema, "retention", detail=detail, signer=signer)
    # All blocks before this one can be seen now, and a hold that comes after it finds the rows gone.
    if any(one.number > seen for one in holds.in_force(connection, schema)):
        raise AnotherDaemonError("a hold was added just now")
    failpoint.reached("month-recorded")
    return block


def _check(connection: Connection, schema: str, retirement: Retirement) -> None:
    """Raises CheckFailedError unless the closed partition holds what was archived, and nothing that must stay."""
    month = retirement.month
    query = sql.SQL(_SQL["counted"]).format(leaf=sql.Identifier(schema, retirement.partition))
    row = connection.execute(query, (orjson.dumps(retirement.ids).decode(),)).fetchone()
    if row != (retirement.rows, retirement.rows):
        raise CheckFailedError(
            f"{month}: rows came in while it was archived, it stays where it is", remedy="repeat it"
        )
    held = covering(connection, schema, retirement.partition, holds.in_force(connection, schema))
    if held:
        raise CheckFailedError(
            f"{month} has rows under hold {held[0]}, it stays where it is", remedy="see: cdc-audit hold list"
        )


def _whole(connection: Connection, leaf: sql.Identifier, retirement: Retirement) -> Retirement:
    """With all that the closed partition has. Raises CheckFailedError if that is nothing."""
    ids = connection.execute(sql.SQL(_SQL["ranges"]).format(leaf=leaf)).fetchall()
    if not ids:
        raise CheckFailedError(f"{retirement.month} has no rows, it stays where it is")
    return retirement._replace(ids=ids, rows=sum(last - first + 1 for first, last in ids))


def erase_values(
    connection: Connection, schema: str, month: str, ids: Sequence[tuple[int, int]], signer: Signer
) -> int:
    """Erase the personal values of rows that go for good, in the caller's transaction; how many there were."""
    values = values_left(connection, schema, ids)
    if values:
        reason = f"{month} is purged"
        detail = {"by": holds.who(connection), "ids": ids, "parts": PARTS, "reason": reason, "values": values}
        ledger.append(connection, schema, "erasure", detail=detail, signer=signer)
    return values


def _last_block(connection: Connection, schema: str) -> int:
    row = connection.execute(sql.SQL(_SQL["last_block"]).format(schema=sql.Identifier(schema))).fetchone()
    assert row
    return int(row[0])
