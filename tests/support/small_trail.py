"""A small trail of given transactions, made by the product's own builder and writer without a source or a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Self

import orjson

from cdc_audit import postgres
from cdc_audit.model.context import Context, Trust
from cdc_audit.model.event import Begin, Change, Shape, Stretch
from cdc_audit.model.jsonb import canonical
from cdc_audit.model.ledger import Receipt
from cdc_audit.schema.migrate import migrate
from cdc_audit.seal.block import NO_HASH
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger
from cdc_audit.sink.writer import Writer

BEGUN = datetime(2026, 11, 20, tzinfo=UTC)


class Shop:
    """Transactions of a small shop, one after the other from ``at`` on. Images are Python values, or JSON as bytes."""

    def __init__(self, at: datetime, first_xid: int = 738) -> None:
        self._at = at
        self._xid = first_xid
        self.stretches: list[Stretch] = []

    def transaction(self, context: Context, *changes: Change, minutes: float = 1) -> Self:
        """One more, so many minutes after the one before."""
        self._at += timedelta(minutes=minutes)
        begin = Begin(self._xid, 4096 * (len(self.stretches) + 1), ledger.timestamp(self._at))
        self.stretches.append(Stretch(begin, context, list(changes), True, True))
        self._xid += 1
        return self


def said_by(user: str, address: str = "10.0.0.9", *, trust: Trust = Trust.SIGNED, **rest: object) -> Context:
    """A context of a user of the shop's application."""
    text = canonical(orjson.dumps(rest)).decode() if rest else ""
    return Context(trust, user, f"{user}@example.org", address, "Firefox/140", text, "shop", "web")


def row(
    table: str, old: Mapping[str, object] | None, new: Mapping[str, object] | None, key: str = "id"
) -> Change:
    """A change of a row with whole images; None: there is none."""
    action = "INSERT" if old is None else "DELETE" if new is None else "UPDATE"
    schema, _, name = table.rpartition(".")
    shape = Shape(
        action,  # type: ignore[arg-type]
        schema or "public",
        name,
        "",
        tuple(new or ()),
        tuple(old or ()),
        old is not None,
        (key,),
        (),
        False,
        tuple(
            {
                name
                for image in (old, new)
                for name, value in (image or {}).items()
                if isinstance(value, dict | list)
            }
        ),
    )
    return shape, _values(new), _values(old)


def _values(image: Mapping[str, object] | None) -> list[bytes]:
    return [
        value if isinstance(value, bytes) else canonical(orjson.dumps(value))
        for value in (image or {}).values()
    ]


def write_small_trail(
    dsn: str, stretches: Iterable[Stretch], signer: Signer | None = None, begun: datetime = BEGUN
) -> Receipt:
    """Migrate an empty database and write a block for each transaction, as of its time; the same rows give the same hashes.
    The last block's receipt.
    """
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
    return asyncio.run(_write(dsn, stretches, signer, begun))


async def _write(dsn: str, stretches: Iterable[Stretch], signer: Signer | None, begun: datetime) -> Receipt:
    writer = await Writer.open(dsn, "audit", application_name="small_trail", signer=signer)
    key_id = signer.key_id if signer else ""
    try:
        block, hash_ = ledger.without_rows(
            ledger.before_genesis("7000000000000000000", "shop", 0), NO_HASH, kind="genesis", start_lsn=0, end_lsn=0,
            detail={}, timeline=1, written_at=ledger.timestamp(begun), signer=signer,
        )  # fmt: skip
        receipt = await writer.commit(block, hash_)
        builder = BlockBuilder(block, hash_, timeline=1, key_id=key_id)
        for stretch in stretches:
            builder.add(stretch)
            if stretch.ends:
                at = stretch.transaction.committed_at
                await writer.write(builder.take(), at[:7])
                sealed = builder.close(kind="data", written_at=at)
                receipt = await writer.commit(sealed.block, sealed.block_hash)
        return receipt
    finally:
        await writer.close()
