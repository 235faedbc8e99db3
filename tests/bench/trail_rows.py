"""A trail of any size over 24 months, made by the product's own builder and writer: what ``answers`` asks its questions of.

Not measured here. Every run makes the same rows: 5,000 users (some a hundred times as busy as others), 12 tables, records that live
on for many changes, transactions of 1 to 20 rows, of which one in fifty has no context. Images are small, so that disks hold it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.queues import Queue

from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import Begin, Row, Shape, Stretch
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import NO_HASH, block_hash
from cdc_audit.seal.builder import BlockBuilder, Sealed
from cdc_audit.sink import ledger
from cdc_audit.sink.writer import Writer

MONTHS = timedelta(days=730)
USERS = 5_000
TABLES = tuple(f"table_{number:02}" for number in range(12))
_BLOCK_ROWS = 20_000
_COLUMNS = ("id", "status", "total")
_STATUS = (b'"new"', b'"paid"', b'"sent"', b'"back"')
_CHANGES_EACH = 10  # of a record, at the median
_LSN_EACH = 4096


def shape(action: str, table: str) -> Shape:
    """The form of a table's rows."""
    new = () if action == "DELETE" else _COLUMNS
    old = () if action == "INSERT" else _COLUMNS
    return Shape(action, "public", table, "", new, old, bool(old), ("id",), ())  # type: ignore[arg-type]


_SHAPES = {
    (action, table): shape(action, table) for action in ("INSERT", "UPDATE", "DELETE") for table in TABLES
}


def stretches(rows: int, end: datetime) -> Iterator[Stretch]:
    """Transactions with ``rows`` row changes in all, evenly over the 24 months before ``end``."""
    rand = random.Random(20)
    records = max(1, rows // _CHANGES_EACH // len(TABLES))
    versions = {table: bytearray(records) for table in TABLES}
    made, number, begin = 0, 0, end - MONTHS
    while made < rows:
        number += 1
        count = min(rand.randint(1, 20), rows - made)
        at = ledger.timestamp(begin + MONTHS * (made / rows))
        changes = [_change(rand, versions, records) for _ in range(count)]
        yield Stretch(Begin(1000 + number, number * _LSN_EACH, at), _context(rand), list(changes), True, True)
        made += count


def _change(rand: random.Random, versions: dict[str, bytearray], records: int) -> Row:
    table = TABLES[int(len(TABLES) * rand.random() ** 2)]
    record = int(records * rand.random())
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


def _values(record: int, version: int) -> list[bytes]:
    return [b"%d" % record, _STATUS[version % 4], b"%d.%02d" % (record % 997, version)]


def _context(rand: random.Random) -> Context:
    if rand.random() < 0.02:
        return NO_CONTEXT
    user = int(USERS * rand.random() ** 2)
    return Context(
        Trust.SIGNED, f"u{user}", f"u{user}@example.org", f"10.{user % 7}.{user % 251}.{rand.randint(1, 3)}", "", "",
        "app", "shop",
    )  # fmt: skip


def _build(
    rows: int,
    end: datetime,
    previous: Block,
    previous_hash: bytes,
    out: Queue[tuple[bytes, str, Sealed] | None],
) -> None:
    builder = BlockBuilder(previous, previous_hash, timeline=1)
    month = ""

    def close() -> None:
        lines = builder.take()
        out.put((lines, month, builder.close(kind="data", written_at=ledger.timestamp(end - MONTHS))))

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
    out.put(None)


def fill(dsn: str, schema: str, rows: int, end: datetime | None = None) -> None:
    """Write a trail into a migrated, empty schema. Two processes: one builds, this one writes."""
    asyncio.run(_fill(dsn, schema, rows, end or datetime.now(UTC)))


async def _fill(dsn: str, schema: str, rows: int, end: datetime) -> None:
    writer = await Writer.open(dsn, schema, application_name="trail_rows")
    try:
        block, hash_ = ledger.without_rows(
            ledger.before_genesis("7000000000000000000", "generated", 0), NO_HASH, kind="genesis", start_lsn=0, end_lsn=0,
            detail={}, timeline=1, written_at=ledger.timestamp(end - MONTHS),
        )  # fmt: skip
        await writer.commit(block, hash_)
        assert block_hash(block) == hash_
        processes = multiprocessing.get_context("spawn")
        queue: Queue[tuple[bytes, str, Sealed] | None] = processes.Queue(4)
        builder = processes.Process(target=_build, args=(rows, end, block, hash_, queue), daemon=True)
        builder.start()
        while (piece := queue.get()) is not None:
            lines, month, sealed = piece
            await writer.write(lines, month)
            await writer.commit(sealed.block, sealed.block_hash)
        builder.join()
    finally:
        await writer.close()
