"""A trail of any size over 24 months, made by the product's own builder and writer: what ``answers`` asks its questions of.

Not measured here. Every run makes the same rows: 5,000 users (some a hundred times as busy as others), 12 tables, records that live
on for many changes (half of them were there before the trail), transactions of 1 to 20 rows, of which one in fifty has no context.
And what is rare, since that is what people look for: a table that hardly changes, a column that hardly changes, READ and TRUNCATE,
an administrator with psql from an address of his own, forged contexts. Images are small, so that disks hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import TypeAlias

from cdc_audit.config import Batch
from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Shape, Stretch, Truncate
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import NO_HASH, block_hash
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger
from cdc_audit.sink.writer import Writer

MONTHS = timedelta(days=730)
USERS = 5_000
TABLES = tuple(f"table_{number:02}" for number in range(12))
RARE_TABLE = "settings"
RARE_IP, RARE_APPLICATION, RARE_TEXT = "192.0.2.7", "psql", "Incident"
_RARE_CONTEXTS = 20_000  # of so many transactions, one is an administrator's, one has a forged context
_RARE_ROWS = 50_000  # of so many rows, one is in the rare table, one is a READ
_TRUNCATE_EACH = 1_000_000
_BLOCK_ROWS = Batch().max_rows
_COLUMNS = ("id", "note", "total", "status")
_STATUS = (b'"new"', b'"paid"', b'"sent"', b'"back"')
_CHANGES_EACH = 10  # of a record, at the median
_LSN_EACH = 4096
FIRST_XID = 1001


def shape(action: str, table: str) -> Shape:
    """The form of a table's rows."""
    new = () if action == "DELETE" else _COLUMNS
    old = () if action == "INSERT" else _COLUMNS
    return Shape(action, "public", table, "", new, old, bool(old), ("id",), ())  # type: ignore[arg-type]


_SHAPES = {
    (action, table): shape(action, table)
    for action in ("INSERT", "UPDATE", "DELETE")
    for table in (*TABLES, RARE_TABLE)
}


def stretches(rows: int, end: datetime) -> Iterator[Stretch]:
    """Transactions with ``rows`` row changes in all, evenly over the 24 months before ``end``."""
    rand = random.Random(20)
    records = max(1, rows // _CHANGES_EACH // len(TABLES))
    versions = {table: bytearray(number % 2 for number in range(records)) for table in TABLES}
    made, number, begin = 0, 0, end - MONTHS
    while made < rows:
        number += 1
        count = min(rand.randint(1, 20), rows - made)
        at = ledger.timestamp(begin + MONTHS * (made / rows))
        changes = [_change(rand, versions, records) for _ in range(count)]
        if made // _TRUNCATE_EACH != (made + count) // _TRUNCATE_EACH:
            changes[-1] = _emptied(versions, TABLES[-1])
        yield Stretch(
            Begin(FIRST_XID - 1 + number, number * _LSN_EACH, at), _context(rand, number), changes, True, True
        )
        made += count


def _change(rand: random.Random, versions: dict[str, bytearray], records: int) -> Change:
    table = TABLES[int(len(TABLES) * rand.random() ** 2)]
    record = int(records * rand.random())
    rare = int(_RARE_ROWS * rand.random())
    if rare == 0:
        return _SHAPES["UPDATE", RARE_TABLE], _values(record % 9, 2), _values(record % 9, 1)
    if rare == 1:
        return ApplicationEvent("READ", f"public.{table}", str(record), b"")
    version = versions[table][record]
    before, after = _values(record, version), _values(record, version + 1)
    if version == 0:
        versions[table][record] = 1
        return _SHAPES["INSERT", table], after, []
    if version > 200 or rand.random() < 0.02:
        versions[table][record] = 0
        return _SHAPES["DELETE", table], [], before
    versions[table][record] = version + 1
    return _SHAPES["UPDATE", table], after, before


def _emptied(versions: dict[str, bytearray], table: str) -> Truncate:
    versions[table] = bytearray(len(versions[table]))
    return Truncate("public", table, "")


def _values(record: int, version: int) -> list[bytes]:
    note = b'"moved"' if (record * 31 + version) % _RARE_ROWS == 0 else b"null"
    return [b"%d" % record, note, b"%d.%02d" % (record % 997, version), _STATUS[version % 4]]


def _context(rand: random.Random, number: int) -> Context:
    if rand.random() < 0.02:
        return NO_CONTEXT
    user = int(USERS * rand.random() ** 2)
    tenant = f'{{"tenant": "t{user % 50}", "request_id": "{number * 2654435761 % (1 << 64):016x}"}}'
    rare = int(_RARE_CONTEXTS * rand.random())
    if rare == 0:
        return Context(Trust.FORGED, rest=f'{{"claimed": {tenant}}}')
    if rare == 1:
        return Context(
            Trust.SIGNED, "admin", "admin@example.org", RARE_IP, "", f'{{"reason": "{RARE_TEXT} 4711"}}', "admin",
            RARE_APPLICATION,
        )  # fmt: skip
    return Context(
        Trust.SIGNED, f"u{user}", f"u{user}@example.org", f"10.{user % 7}.{user % 251}.{rand.randint(1, 3)}",
        f"shop/{user % 9}.2 (Linux)", tenant, "app", "shop",
    )  # fmt: skip


_Piece: TypeAlias = tuple[bytes, str, Block, bytes]  # a block's lines, their month, the block and its hash


def _build(
    rows: int,
    end: datetime,
    previous: Block,
    previous_hash: bytes,
    out: Connection,
) -> None:
    builder = BlockBuilder(previous, previous_hash, timeline=1, key_id=previous.key_id)
    month = ""

    def close() -> None:
        lines = builder.take()
        sealed = builder.close(kind="data", written_at=ledger.timestamp(end - MONTHS))
        out.send((lines, month, sealed.block, sealed.block_hash))

    for stretch in stretches(rows, end):
        if not builder.fits(stretch):
            close()
        if not builder.rows:
            month = stretch.transaction.committed_at[:7]
        builder.add(stretch)
        if builder.rows >= _BLOCK_ROWS:
            close()
    if builder.rows:
        close()
    out.send(None)


def fill(dsn: str, schema: str, rows: int, end: datetime | None = None, signer: Signer | None = None) -> None:
    """Write a trail into a migrated, empty schema. Two processes: one builds, this one writes, and signs if it can."""
    asyncio.run(_fill(dsn, schema, rows, end or datetime.now(UTC), signer))


async def _fill(dsn: str, schema: str, rows: int, end: datetime, signer: Signer | None) -> None:
    writer = await Writer.open(dsn, schema, application_name="trail_rows", signer=signer)
    try:
        block, hash_ = ledger.without_rows(
            ledger.before_genesis("7000000000000000000", "generated", 0), NO_HASH, kind="genesis", start_lsn=0, end_lsn=0,
            detail={}, timeline=1, written_at=ledger.timestamp(end - MONTHS), signer=signer,
        )  # fmt: skip
        await writer.commit(block, hash_)
        assert block_hash(block) == hash_
        with contextlib.closing(built(rows, end, block, hash_)) as pieces:
            for lines, month, data, data_hash in pieces:
                await writer.write(lines, month)
                await writer.commit(data, data_hash)
    finally:
        await writer.close()


def built(rows: int, end: datetime, previous: Block, previous_hash: bytes) -> Generator[_Piece, None, None]:
    """What the other process builds, each piece while the one before is written. Raises RuntimeError if that process dies."""
    processes = multiprocessing.get_context("spawn")
    receiving, sending = processes.Pipe(duplex=False)
    builder = processes.Process(
        target=_build, args=(rows, end, previous, previous_hash, sending), daemon=True
    )
    with receiving:
        builder.start()
        sending.close()  # the builder's is the only one left, so that its end is the pipe's
        try:
            while (piece := receiving.recv()) is not None:
                yield piece
        except EOFError:
            builder.join()
            raise RuntimeError(f"the builder of the trail died (exit code {builder.exitcode})") from None
        finally:
            builder.terminate()
            builder.join()
