"""Giving up the rows of an archive for good: the ``purge`` block comes first, then its file is deleted.

So whoever finds a file gone finds a signed block that says so; and a deletion that was cut short, or that the object store refused,
is repeated. The block's detail::

    {"by", "month", "rows", "ids": [[first, last], ...], "manifest": {"name", "sha256"}, "archive", "file", "keep", "values"}

``values`` personal values of these rows were erased in the same transaction, by an ``erasure`` block before it. Headers stay: in
the ledger, and in the archive.
"""

from __future__ import annotations

from typing import NamedTuple

from psycopg import Connection

from cdc_audit.errors import AnotherDaemonError, CheckFailedError
from cdc_audit.model.ledger import Block
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import holds, ledger
from cdc_audit.sink.retirement import erase_values


class Purge(NamedTuple):
    """An archive whose rows go: ``ids`` as its ``retention`` block says; ``keep`` in months.

    ``holds_seen``: the newest ledger block that was there when its rows were compared with the holds.
    """

    month: str
    ids: list[tuple[int, int]]
    rows: int
    manifest: str
    manifest_sha256: str
    archive: str
    file: str
    keep: int
    holds_seen: int


def newest_block(connection: Connection, schema: str) -> int:
    """The number of the ledger's last block. Raises our errors."""
    last = ledger.last_block(connection, schema)
    return last[0].block if last else -1


def purge(connection: Connection, schema: str, one: Purge, signer: Signer) -> Block:
    """Append the ``purge`` block, or do nothing. The daemon may be running.

    Raises CheckFailedError if a hold was added since ``holds_seen``; AnotherDaemonError if the daemon was faster each time.
    """
    for attempt in range(ledger.ATTEMPTS):
        try:
            with holds.explained(connection), connection.transaction():
                return _purge(connection, schema, one, signer)
        except AnotherDaemonError:
            if attempt == ledger.ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _purge(connection: Connection, schema: str, one: Purge, signer: Signer) -> Block:
    values = erase_values(connection, schema, one.month, one.ids, signer)
    detail = {
        "by": holds.who(connection),
        "month": one.month,
        "rows": one.rows,
        "ids": one.ids,
        "manifest": {"name": one.manifest, "sha256": one.manifest_sha256},
        "archive": one.archive,
        "file": one.file,
        "keep": one.keep,
        "values": values,
    }
    block = ledger.append(connection, schema, "purge", detail=detail, signer=signer)
    # All blocks before this one can be seen now, and a hold that comes after it finds the rows gone.
    if any(hold.number > one.holds_seen for hold in holds.in_force(connection, schema)):
        raise CheckFailedError(f"{one.month}: a hold was added just now, it stays", remedy="repeat it")
    return block
