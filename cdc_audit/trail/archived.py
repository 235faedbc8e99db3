"""What the ledger says of rows that are not here any more: which archive they are in, since when, and whether they were purged."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import CheckFailedError
from cdc_audit.postgres import explain, named_sql
from cdc_audit.seal import manifest
from cdc_audit.seal.manifest import Manifest
from cdc_audit.trail.archive_store import Store

_SQL = named_sql("cdc_audit.trail", "sql/archive.sql")


class Archived(NamedTuple):
    """One archived month, as its ``retention`` block says; ``ids`` are inclusive ranges.

    ``purged``: the block that says that its rows are nowhere any more, 0 while they are in the archive. That is the ``purge`` block
    or, where there never was an archive (``manifest`` and ``archive`` are ""), the ``retention`` block itself.
    """

    block: int
    at: datetime
    month: date
    rows: int
    ids: list[list[int]]
    manifest: str
    sha256: str
    archive: str
    by: str
    purged: int = 0
    purged_at: datetime | None = None

    @property
    def name(self) -> str:
        """The month, as people say it."""
        return f"{self.month:%Y-%m}"

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The month, the end exclusive."""
        begin = datetime(self.month.year, self.month.month, 1, tzinfo=UTC)
        return begin, (begin + timedelta(days=31)).replace(day=1)

    def overlaps(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether its month has a part in the time from ``since`` to before ``until``; None: without end."""
        begin, end = self.span
        return (since is None or since < end) and (until is None or until > begin)


def archived(connection: Connection, schema: str) -> list[Archived]:
    """All months whose rows were taken out, in the order in which that was done. Raises our errors."""
    query = sql.SQL(_SQL["retirements"]).format(schema=sql.Identifier(schema))
    try:
        return _parsed(connection.execute(query))
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def stay(connection: Connection, schema: str) -> None:
    """See to it that no month leaves while the transaction lasts: what ``archived`` says from now on holds for all that is read."""
    connection.execute(sql.SQL(_SQL["stay"]).format(schema=sql.Identifier(schema)))


def _parsed(rows: psycopg.Cursor) -> list[Archived]:
    found: dict[str, Archived] = {}
    for block, kind, at, said in rows:
        name = said["manifest"]["name"]
        if kind == "purge":
            found[name] = found[name]._replace(purged=block, purged_at=at)
            continue
        purged, purged_at = (0, None) if name else (block, at)
        found[name or f"block {block}"] = Archived(
            block, at, date.fromisoformat(f"{said['month']}-01"), said["rows"], said["ids"],
            name, said["manifest"]["sha256"], said["archive"], said["by"], purged, purged_at,
        )  # fmt: skip
    return list(found.values())


def manifest_of(store: Store, one: Archived) -> Manifest:
    """The manifest that the ledger names. Raises CheckFailedError if it is not that one, and as the store does."""
    where = f"archive {store.name}: {one.manifest}"
    try:
        with store.open(one.manifest) as file:
            text = file.read()
    except FileNotFoundError:
        raise CheckFailedError(f"{where}: it is not here") from None
    if manifest.hash_of(text) != one.sha256:
        raise CheckFailedError(f"{where}: it is not the manifest that block {one.block} names")
    return manifest.read(text, {})


def now(connection: Connection) -> datetime:
    """The audit database's clock."""
    row = connection.execute(_SQL["now"]).fetchone()
    assert row and isinstance(row[0], datetime)
    return row[0]
