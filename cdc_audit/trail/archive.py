"""``cdc-audit archive run``: a month's rows into files, read back and compared with the ledger. Doesn't drop anything.

A month's partition holds the rows of whole blocks, but not of all blocks between its first and its last one: commit times of a
source do not quite rise with its positions. So an archive has ranges of ids. Rows that come into a month after its archive was made
are a later archive of the same month, under another first id.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, NamedTuple

from psycopg import Connection, sql

from cdc_audit import failpoint
from cdc_audit.errors import CheckFailedError
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.postgres import named_sql
from cdc_audit.seal import manifest, parquet
from cdc_audit.seal.manifest import File, Manifest
from cdc_audit.seal.merkle import MerkleTree
from cdc_audit.seal.signature import Signer, is_signed_by
from cdc_audit.trail.archive_store import Store, digest_of
from cdc_audit.trail.archive_verify import check_archive
from cdc_audit.trail.verify import copied, headers, reading
from cdc_audit.trail.verify_chain import Header

_SQL = named_sql("cdc_audit.trail", "sql/archive.sql")
_VERIFY = "find out what is wrong first: cdc-audit verify"


class Source(NamedTuple):
    """What is archived: a partition of a schema, whose rows are of ``month`` (``2026-11``)."""

    schema: str
    partition: str
    month: str


class Made(NamedTuple):
    """An archive that is kept and was read back: its manifest, under which name, and the SHA-256 of that."""

    manifest: Manifest
    name: str
    sha256: str


@dataclass(slots=True)
class _Noted:
    """What is learned of the rows while they are written."""

    ids: list[tuple[int, int]] = field(default_factory=list)
    rows: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None

    def see(self, table: Any) -> None:
        """The next rows, an Arrow table."""
        import pyarrow.compute as pc

        self.rows += table.num_rows
        for row_id in table.column("id").to_pylist():
            if self.ids and self.ids[-1][1] == row_id - 1:
                self.ids[-1] = (self.ids[-1][0], row_id)
            else:
                self.ids.append((row_id, row_id))
        for names in table.group_by(["schema_name", "table_name"]).aggregate([([], "count_all")]).to_pylist():
            name = f"{names['schema_name']}.{names['table_name']}"
            self.tables[name] = self.tables.get(name, 0) + names["count_all"]
        times = pc.min_max(table.column("created_at")).as_py()
        self.since = min(self.since or times["min"], times["min"])
        self.until = max(self.until or times["max"], times["max"])


def make(dsn: str, source: Source, store: Store, signer: Signer, previous: str) -> Made | None:
    """Archive a partition: write its files, read them back, compare them with the ledger, and write the manifest last.

    None if the partition is empty. ``previous`` is the SHA-256 of the manifest that the newest ``retention`` block names, or "".
    Repeating it is safe: it replaces what was written before. Raises CheckFailedError if the rows are not what the ledger says, or
    if what was read back is not what was written; and as ``verify.reading`` and the store do.
    """
    parquet.require_pyarrow()
    with reading(dsn, source.schema) as connection:
        noted = _Noted()
        with tempfile.TemporaryFile() as file:
            parquet.write_rows(file, _rows(connection, source), noted.see)
            if not noted.rows:
                return None
            rows_file = _keep(store, _name(source, "rows", noted), file)
        failpoint.reached("archive-rows-kept")
        tree, blocks = MerkleTree(), _Walked(signer)
        with tempfile.TemporaryFile() as file:
            parquet.write_blocks(file, blocks.through(_headers(connection, source.schema, noted.ids), tree))
            blocks_file = _keep(store, _name(source, "blocks", noted), file)
        said = _manifest(connection, source, noted, blocks, previous)
    said = said._replace(root=tree.root().hex(), rows_file=rows_file, blocks_file=blocks_file)
    text = manifest.write(said, signer)
    harms = check_archive(store, said, {})
    if harms:
        raise CheckFailedError(
            f"{source.month} is not archived: {harms[0]}"
            + (f" (and {len(harms) - 1} more)" if harms[1:] else ""),
            remedy=_VERIFY,
        )
    failpoint.reached("archive-checked")
    name = manifest.name_of(said)
    keep_text(store, name, text)
    failpoint.reached("archive-manifest-kept")
    return Made(said, name, manifest.hash_of(text))


@dataclass(slots=True)
class _Walked:
    """The archived blocks: the first and the last one, and how many. Those of the key at hand are signed with it."""

    signer: Signer
    first: Block | None = None
    last: Block | None = None
    count: int = 0

    def through(self, found: Iterator[Header], tree: MerkleTree) -> Iterator[parquet.Blocks]:
        for header in found:
            block = header.intact
            assert block
            mine = self.signer
            if block.key_id == mine.key_id and not is_signed_by(mine.public, header.hash, header.signature):
                raise CheckFailedError(f"block {block.block} is not signed with its key", remedy=_VERIFY)
            self.first, self.last = self.first or block, block
            self.count += 1
            tree.extend([block.rows_root])
            yield parquet.Blocks(block.block, header.line, header.signature)


def _name(source: Source, kind: str, noted: _Noted) -> str:
    return manifest.file_name(source.schema, kind, source.month, noted.ids[0][0])


def _rows(connection: Connection, source: Source) -> Iterator[bytes]:
    leaf = sql.Identifier(source.schema, source.partition)
    return copied(connection, sql.SQL(_SQL["rows"]).format(leaf=leaf))


def _headers(connection: Connection, schema: str, ids: list[tuple[int, int]]) -> Iterator[Header]:
    """The headers of the blocks that hold these ids. Raises CheckFailedError unless they hold them and nothing else."""
    first, last = (_block_of(connection, schema, one) for one in (ids[0][0], ids[-1][1]))
    due = list(reversed(ids))
    at = due[-1][0]
    for header in headers(connection, schema, first, last):
        block = header.intact
        if block is None:
            raise CheckFailedError(f"block {header.number} is not what was written", remedy=_VERIFY)
        end = block.first_id + block.row_count
        if not block.row_count or not due or end <= at:
            continue
        if block.first_id != at or end - 1 > due[-1][1]:
            raise CheckFailedError(
                f"rows of block {block.block} are missing or of another month", remedy=_VERIFY
            )
        yield header
        at = end
        if at > due[-1][1]:
            due.pop()
            at = due[-1][0] if due else at
    if due:
        raise CheckFailedError(f"no block holds row {at}", remedy=_VERIFY)


def _block_of(connection: Connection, schema: str, row_id: int) -> int:
    """The last block that begins with this id or before: blocks are dense and their ids rise, so it is looked for by halves."""
    at = sql.SQL(_SQL["first_id"]).format(schema=sql.Identifier(schema))
    row = connection.execute(sql.SQL(_SQL["last_block"]).format(schema=sql.Identifier(schema))).fetchone()
    low, high = 0, int(row[0]) if row and row[0] is not None else 0
    while low < high:
        middle = (low + high + 1) // 2
        found = connection.execute(at, (middle,)).fetchone()
        if found is None:
            raise CheckFailedError(f"block {middle} is not in the ledger", remedy=_VERIFY)
        low, high = (middle, high) if found[0] <= row_id else (low, middle - 1)
    return low


def _manifest(
    connection: Connection, source: Source, noted: _Noted, walked: _Walked, previous: str
) -> Manifest:
    """Without root and files."""
    version = connection.execute(
        sql.SQL(_SQL["version"]).format(schema=sql.Identifier(source.schema))
    ).fetchone()
    now = connection.execute(_SQL["now"]).fetchone()
    first, last = walked.first, walked.last
    assert first and last and noted.since and noted.until and version and now
    return Manifest(
        schema=source.schema, schema_version=version[0], system_identifier=first.system_identifier, slot=first.slot,
        month=source.month, ids=noted.ids, rows=noted.rows, first_block=first.block, last_block=last.block,
        blocks=walked.count, start_lsn=format_lsn(first.start_lsn), end_lsn=format_lsn(last.end_lsn),
        since=noted.since.isoformat(), until=noted.until.isoformat(), tables=noted.tables, root="", previous=previous,
        made_at=now[1], rows_file=_NO_FILE, blocks_file=_NO_FILE,
    )  # fmt: skip


_NO_FILE = File("", 0, "")


def _keep(store: Store, name: str, file: IO[bytes]) -> File:
    size = file.seek(0, 2)
    digest = digest_of(file)
    store.put(name, file)
    return File(name, size, digest)


def keep_text(store: Store, name: str, text: bytes) -> None:
    """Keep a signed text, and read it back. Raises CheckFailedError if that is something else, and as the store does."""
    with tempfile.TemporaryFile() as file:
        file.write(text)
        store.put(name, file)
    with store.open(name) as back:
        if back.read() != text:
            raise CheckFailedError(
                f"archive {store.name}: {name} reads back as something else than was written"
            )
