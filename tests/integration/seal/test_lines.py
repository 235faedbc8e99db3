"""The writer's lines are what COPY prints for the rows that they become: hostile texts in every field."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psycopg
import pytest

from cdc_audit import postgres
from cdc_audit.join.context import inet
from cdc_audit.model.context import Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Row, Shape, Stretch, Suppressed, Truncate
from cdc_audit.model.jsonb import canonical, string
from cdc_audit.model.ledger import Block
from cdc_audit.schema.migrate import migrate
from cdc_audit.seal import copy_binary
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH, header_line
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.copy_text import bytea
from cdc_audit.sink import small_block
from cdc_audit.sink.ledger import parameters
from tests.integration.decode.type_zoo import HOSTILE
from tests.support.native import compiled
from tests.support.proof import check_proof
from tests.support.servers import Server

ADDRESSES = [
    "10.0.0.9", "10.0.0.0/8", "::1", "::", "2001:db8::/32", "::ffff:10.0.0.1", "::10.0.0.1", "::1:2", "fe80::1",
    "1:0:0:2:0:0:0:3", "1:2:3:4:5:6:7:8", "0:0:1::", "::ffff:0:0", "2001:DB8::A", "255.255.255.255/0", "::ffff:0:1.2.3.4",
]  # fmt: skip
MOMENTS = [
    "2026-11-22 19:19:02.555107+00", "2026-11-22 19:19:02+00", "2026-11-22 19:19:02.5+00", "1969-12-31 23:59:59.000001+00",
    "2000-02-29 00:00:00+00", "2000-01-01 00:00:00+00", "1900-03-01 12:00:00+00", "12026-03-01 12:00:00.25+00",
    "0001-01-01 00:00:00+00",
]  # fmt: skip


@pytest.fixture
def dsn(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    dsn = audit_cluster.dsn(name)
    with postgres.connect(dsn, side="audit") as audit:
        migrate(audit, "audit", None)
    yield dsn
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture(params=["text", "binary", "statement"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How lines are stored: by COPY in text, in binary where there is a compiler for it, or with their header by one statement."""
    if request.param == "binary":
        folder: Path = request.getfixturevalue("native_package")
        monkeypatch.setattr(copy_binary, "_compiled", compiled(folder, "seal", "_copy_binary").rows)
    return str(request.param)


def text(dice: random.Random) -> str:
    return "".join(dice.choices(HOSTILE, k=dice.choice((0, 1, 1, 1, 2, 3))))


def name(dice: random.Random) -> str:
    return (text(dice) or "x")[:60]


def names(dice: random.Random, most: int = 4) -> tuple[str, ...]:
    return tuple({name(dice) for _ in range(dice.randint(0, most))})


def value(dice: random.Random) -> bytes:
    kind = dice.randrange(6)
    if kind == 0:
        return dice.choice((b"null", b"true", b"1.50", b"-7", b"0"))
    if kind == 1:
        return canonical(json.dumps({text(dice): [text(dice), 1, None], text(dice): {}}))
    return string(text(dice))


def context(dice: random.Random) -> Context:
    rest = canonical(json.dumps({text(dice): text(dice)})).decode() if dice.random() < 0.5 else ""
    address = inet(dice.choice(ADDRESSES)) if dice.random() < 0.7 else ""
    who = [text(dice) for _ in range(4)]
    return Context(dice.choice(list(Trust)), who[0], who[1], address, who[2], rest, who[3], name(dice))


def row(dice: random.Random) -> Row:
    columns = names(dice)
    action = dice.choice(("INSERT", "UPDATE", "DELETE"))
    is_full = dice.random() < 0.7
    old = () if action == "INSERT" else columns if is_full else columns[:2]
    new = () if action == "DELETE" else columns
    toast = () if is_full else names(dice)
    key = tuple(dice.sample(columns, dice.randint(0, min(3, len(columns)))))
    shape = Shape(
        action,  # type: ignore[arg-type]
        name(dice), name(dice), text(dice)[:60], new, old, is_full and bool(old), key, toast, dice.random() < 0.1,
    )  # fmt: skip
    return shape, [value(dice) for _ in new], [value(dice) for _ in old]


def change(dice: random.Random) -> Change:
    kind = dice.randrange(12)
    if kind == 0:
        return Truncate(name(dice), name(dice), text(dice))
    if kind == 1:
        return Suppressed("UPDATE", name(dice), name(dice), text(dice))
    if kind == 2:
        return ApplicationEvent("READ", text(dice), text(dice), dice.choice((b"", value(dice))))
    return row(dice)


BEFORE = Block(-1, "", 1, 0, "77", 0, "s\\ \"'\t", 16, 16, "", "", EMPTY_ROOT, NO_HASH, "", "")
LEDGER = """
    copy audit.ledger (block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn,
        last_commit_at, written_at, rows_root, prev_hash, detail, key_id, block_hash) from stdin
"""


def store(
    audit: psycopg.Connection, builder: BlockBuilder, form: str, written_at: str, detail: str = ""
) -> None:
    """The open block, rows and header, as the lines that were hashed."""
    lines = builder.take()
    if form == "statement":
        sealed = builder.close(kind="data", written_at=written_at, detail=detail)
        rows = small_block.values(lines)
        header = parameters(sealed.block, sealed.block_hash, b"")
        psycopg.RawCursor(audit).execute(small_block.statement("audit", len(rows)), [*header, *chain(*rows)])
        return
    with audit.cursor().copy(f"copy audit.audit_logs from stdin (format {form})") as copy:
        if form == "binary":
            lines = copy_binary.HEADER + copy_binary.rows(lines) + copy_binary.TRAILER
        copy.write(lines)
    sealed = builder.close(kind="data", written_at=written_at, detail=detail)
    with audit.cursor().copy(LEDGER) as copy:
        copy.write(header_line(sealed.block) + b"\t" + bytea(sealed.block_hash) + b"\n")


def test_lines_equal_what_copy_prints_of_the_rows_that_they_become(dsn: str, form: str) -> None:
    """1,500 rows with every hostile text in names, keys, values, contexts, addresses and events."""
    dice = random.Random(20261122)
    builder = BlockBuilder(BEFORE, NO_HASH, timeline=1)
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=Asia/Kolkata") as audit:
        audit.execute("select audit.ensure_partition('2026-11-01')")
        for number in range(1, 101):
            begin = Begin(number, 4096 * number, dice.choice(MOMENTS))
            changes = [change(dice) for _ in range(dice.randint(1, 30))]
            builder.add(Stretch(begin, context(dice), changes, True, True))
            if number % 10 == 0:
                detail = canonical(json.dumps({text(dice): 1})).decode()
                store(audit, builder, form, dice.choice(MOMENTS), detail)
    assert check_proof(dsn) > 1000


def test_every_character_that_jsonb_and_text_can_hold_is_printed_as_it_was_written(
    dsn: str, form: str
) -> None:
    columns = ("v",)
    shape = Shape("INSERT", "public", "t", "", columns, (), False, columns, ())
    characters = [chr(code) for code in range(1, 0x800)] + ["\uffff", "\U0010ffff", "\u2028", "\ufffe"]
    everything = "".join(characters)
    who = Context(Trust.ASSERTED, everything, rest=canonical(json.dumps({everything: 1})).decode())
    rows: list[Change] = [(shape, [string(c)], []) for c in characters]
    builder = BlockBuilder(BEFORE, NO_HASH, timeline=1)
    builder.add(Stretch(Begin(7, 4096, MOMENTS[0]), who, rows, True, True))
    with psycopg.connect(dsn, autocommit=True) as audit:
        store(audit, builder, form, MOMENTS[0])
        query = "select new_data ->> 'v', record_id, user_id = %s from audit.audit_logs order by id"
        stored = audit.execute(query, (everything,)).fetchall()
    assert stored == [(c, c, True) for c in characters]
    assert check_proof(dsn) == len(characters)
