"""A small signed ledger with a bit of everything, and a superuser who tampers with it. Hashes and signatures are computed by the
second verifier's functions, so that a mistake of the product's isn't made by its tests as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection, sql

from cdc_audit import postgres
from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Shape, Stretch, Suppressed, Truncate
from cdc_audit.schema.migrate import migrate
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.redact import NO_RULES, Redaction
from cdc_audit.seal.signature import Signer
from cdc_audit.sink import ledger
from tests.support import second_verifier as second

OCTOBER, NOVEMBER, DECEMBER = (f"2026-{month}-07 11:22:33.5+00" for month in ("10", "11", "12"))
KEY_A, KEY_B, STRANGER = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
KEYS = {signer.key_id: signer.public for signer in (KEY_A, KEY_B)}

ANN = Context(
    Trust.SIGNED,
    "u1",
    "ann@shop.example",
    "10.0.0.9",
    "Mozilla\t5.0",
    '{"request_id": "r\\\\1"}',
    "shop",
    "web",
)
BEN = Context(Trust.ASSERTED, "u2", "ben@shop.example")
_COLUMNS = ("id", "note", "price")
_ORDER = Shape("UPDATE", "public", "orders", "orders_1", _COLUMNS, _COLUMNS, True, ("id",), ("picture",))


class LedgerWriter:
    """Tiny blocks through the product's own builder, in the caller's transaction."""

    def __init__(
        self, connection: Connection, signer: Signer | None = None, redaction: Redaction = NO_RULES
    ) -> None:
        self.connection = connection
        self.signer = signer
        self._redaction = redaction
        self._lsn = 1000
        self._note = 0

    def genesis(self) -> None:
        ledger.genesis(
            self.connection, "audit", system_identifier="7000000000000000001", timeline=1, slot="s", lsn=1000,
            detail={"database": "shop", "plugin": "wal2json"}, signer=self.signer,
        )  # fmt: skip

    def go_on(self, lsn: int) -> None:
        """The ledger's last block ends here."""
        self._lsn = lsn

    def bare(self, kind: str, **detail: object) -> None:
        self._lsn += 16
        ledger.append(
            self.connection, "audit", kind, start_lsn=self._lsn - 16, end_lsn=self._lsn, detail=detail, signer=self.signer
        )  # fmt: skip

    def rotate(self, new: Signer) -> None:
        assert self.signer
        ledger.rotate(self.connection, "audit", old=self.signer, new=new)
        self.signer = new

    def data(self, rows: int, at: str = NOVEMBER, *more: Change, context: Context = NO_CONTEXT) -> None:
        """A block of one transaction with so many updates, and more changes."""
        self.blocks([(rows, at, more, context)])

    def blocks(self, blocks: Sequence[tuple[int, str, tuple[Change, ...], Context]]) -> None:
        """Data blocks one after another."""
        head = ledger.last_block(self.connection, "audit")
        assert head
        key_id = self.signer.key_id if self.signer else ""
        builder = BlockBuilder(*head, timeline=1, redaction=self._redaction, random=os.urandom, key_id=key_id)
        for rows, at, more, context in blocks:
            self._lsn += 16
            changes = [*(self._update() for _ in range(rows)), *more]
            builder.add(Stretch(Begin(700 + self._note, self._lsn, at), context, changes, True, True))
            self.connection.execute(ledger.statement("ensure_partition", "audit"), (at[:10],))
            with self.connection.cursor().copy(ledger.statement("copy_rows", "audit")) as copy:
                copy.write(builder.take())
            with self.connection.cursor().copy(ledger.statement("copy_openings", "audit")) as copy:
                copy.write(builder.take_openings())
            sealed = builder.close(kind="data", written_at=at)
            signature = ledger.sign(sealed.block, sealed.block_hash, self.signer)
            self.connection.execute(
                ledger.statement("append", "audit"),
                ledger.parameters(sealed.block, sealed.block_hash, signature),
            )

    def _update(self) -> Change:
        self._note += 1
        n = str(self._note).encode()
        new = [n, b'"tab \\\\t, quote \\", \xc3\xa9, ' + n + b'"', b"12.50"]
        return _ORDER, new, [n, b"null", b"12.60"]


def write_trail(dsn: str) -> None:
    """Twelve blocks with 24 rows in three months; the key is rotated in block 7."""
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        with connection.transaction():
            writer = LedgerWriter(connection, KEY_A)
            writer.genesis()
            writer.data(3, OCTOBER, context=ANN)  # block 1, rows 1-3
            writer.data(3, OCTOBER)  # block 2, rows 4-6
            writer.bare("heartbeat")
            event = ApplicationEvent("READ", "clinic.patients", "7", b'{"why": "a\\\\nb"}')
            writer.data(2, NOVEMBER, Truncate("public", "t", ""), event,
                        Suppressed("DELETE", "public", "t", ""), context=BEN)  # block 4, rows 7-11  # fmt: skip
            writer.data(3, context=ANN)  # block 5, rows 12-14
            writer.bare("gap", reason="slot lost, \\ ticket 4711")
            writer.rotate(KEY_B)  # block 7
            writer.data(3, context=BEN)  # block 8, rows 15-17
            writer.data(3, DECEMBER)  # block 9, rows 18-20
            writer.bare("heartbeat")
            writer.data(4, DECEMBER, context=ANN)  # block 11, rows 21-24


class Superuser:
    """Whoever can do everything in the audit database; the refusing triggers are off already."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p')"
        )
        for (table,) in tables.fetchall():
            connection.execute(sql.SQL("alter table {} disable trigger all").format(sql.SQL(table)))

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement)

    def value(self, query: LiteralString, *values: object) -> Any:
        row = self.connection.execute(query, values).fetchone()
        return row and row[0]

    def rehash_rows(self, *ids: int) -> None:
        """Make row_hash fit the rows again."""
        for number in ids:
            line = self._lines(second.ROWS, "where id = {} order by id", number)[0].rpartition(b"\t")[0]
            self.connection.execute(
                "update audit.audit_logs set row_hash = %s where id = %s", (second.leaf_hash(line), number)
            )

    def rehash_blocks(
        self, first: int, last: int, signer: Signer | None = None, *, reroot: bool = True
    ) -> None:
        """Make rows_root, prev_hash and block_hash of blocks fit again; and sign them anew, if a signer is given."""
        for number in range(first, last + 1):
            if reroot:
                hashes = self.connection.execute(
                    "select row_hash from audit.audit_logs, audit.ledger where block = %s and id >= first_id "
                    "and id < first_id + row_count order by id",
                    (number,),
                ).fetchall()
                root = second.merkle_root([bytes(one) for (one,) in hashes])
                self.connection.execute(
                    "update audit.ledger set rows_root = %s where block = %s", (root, number)
                )
            self.connection.execute(
                "update audit.ledger set prev_hash = (select block_hash from audit.ledger where block = %s), "
                "key_id = coalesce(%s, key_id) where block = %s and block > 0",
                (number - 1, signer and signer.key_id, number),
            )
            line = b"\t".join(
                self._lines(second.LEDGER, "where block = {} order by block", number)[0].split(b"\t")[:15]
            )
            hash_ = second.block_hash(line)
            self.connection.execute(
                "update audit.ledger set block_hash = %s, signature = coalesce(%s, signature) where block = %s",
                (hash_, signer and signer.sign(hash_), number),
            )

    def _lines(self, statement: LiteralString, condition: LiteralString, number: int) -> list[bytes]:
        narrowed = statement.replace("order by id", condition).replace("order by block", condition)
        query = sql.SQL(narrowed).format(sql.Identifier("audit"), sql.Literal(number))
        with self.connection.cursor().copy(query) as rows:
            return [bytes(row)[:-1] for row in rows]


def superuser(dsn: str) -> Connection:
    """A connection whose COPY prints what was hashed."""
    return psycopg.connect(dsn, autocommit=True, options=second.SETTINGS)
