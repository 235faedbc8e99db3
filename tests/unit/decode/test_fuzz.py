"""Damaged lines: the decoder gives an event or its own error, soon, and never tells a value."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from cdc_audit.decode.scope import Scope
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog, TableInfo, TypeInfo, TypeKind

# What wal2json 2.5 on PostgreSQL 15.20 sent for the type zoo and for a table with this word in every value.
LINES = Path(__file__).with_name("wal2json_lines.jsonl").read_bytes().splitlines()
CANARY = "kanarienvogel"
MESSAGES = 200_000
WORDS = [
    b',"value":', b'"', b"\\", b"null", b"{", b"}", b"[", b"]", b",", b'"schema":', b'"columns":[', b'"pk":[]', b"\0",
    b"\xff", b"\xe9", b"-", b"1e400", b"NaN", b"0/0", b'"typeoid":16,', b'"typeoid":-1,', b'"identity":[', b"\\u0000",
    b"\\ud800", b"\n", b'"name":"id"', b"99999999999999999999", "é".encode(),
]  # fmt: skip
ACTIONS = b"BCIUDTMX\x00"
# Every text that the decoder's errors may have; # stands for a position.
TEXTS = {
    "wal2json, #: a message is not a JSON object",
    "wal2json, #: a row holds a value that is not a JSON scalar",
    "wal2json, #: a row has more or fewer values than columns",
    "wal2json, #: a row lacks a field or holds a wrong one",
    "wal2json, #: a value does not have its type's form",
    "wal2json, #: invalid JSON at byte #",
    "wal2json, #: the COMMIT does not fit its BEGIN",
}
ACTION_TEXTS = re.compile(
    r"wal2json, #: (unknown action b.*: this wal2json is newer than this program"
    r"|a message with action b.* lacks a field or holds a wrong one)"
)


def damaged(dice: random.Random, line: bytes) -> bytes:
    """A line after one to three mishaps."""
    for _ in range(dice.choice((1, 1, 2, 3))):
        kind = dice.getrandbits(4)
        size = len(line) + 1
        at = int(dice.random() * size)
        if kind < 4:  # another byte
            line = line[:at] + bytes((dice.getrandbits(8),)) + line[at + 1 :]
        elif kind < 6:  # another word
            line = line[:at] + dice.choice(WORDS) + line[at + dice.getrandbits(2) :]
        elif kind == 6:  # cut off
            line = line[:at]
        elif 7 < kind < 10:  # a part left out
            line = line[:at] + line[at + dice.getrandbits(5) :]
        elif 9 < kind < 12:  # a part twice
            line = line[: at + dice.getrandbits(6)] + line[at:]
        elif kind == 12:  # two lines in one
            other = dice.choice(LINES)
            line = line[:at] + other[int(dice.random() * len(other)) :]
        elif kind == 13:  # another action
            line = line[:11] + bytes((dice.choice(ACTIONS),)) + line[12:]
        elif kind == 14:  # another type
            oid = b'"typeoid":%d' % dice.choice(
                (16, 17, 20, 26, 114, 700, 1114, 1184, 1700, 3802, 1007, 20_001)
            )
            line = re.sub(rb'"typeoid":\d+', oid, line, count=1 + dice.getrandbits(2))
        else:  # other digits everywhere
            line = line.translate(bytes.maketrans(b"0123456789", bytes(dice.sample(b"0123456789", 10))))
    return line


class FakeCatalog:
    """Answers every question at random: sometimes there is no such thing."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.catalog = Catalog()

    def answer(self, asked: UnknownTypeError) -> Catalog:
        if len(self.catalog.tables) > 1000:
            self.catalog = Catalog()
        types = {oid: self._type(oid) for oid in asked.type_oids}
        self.catalog = self.catalog.with_found(types, {name: self._table(name) for name in asked.tables})
        return self.catalog

    def _type(self, oid: int) -> TypeInfo | None:
        dice = self._dice
        kind = dice.randrange(6)
        if kind == 0:
            return None
        if kind == 1:
            return TypeInfo(oid, TypeKind.ARRAY, oid, dice.choice((23, 25, 1700, 3802, 16)))
        if kind == 2:
            return TypeInfo(oid, TypeKind.COMPOSITE, oid, 0, (("a", 25), ("b", dice.choice((25, 23, 114)))))
        return TypeInfo(oid, TypeKind.SCALAR, dice.choice((oid, 23, 25, 1700, 17, 16, 3802)), is_domain=True)

    def _table(self, name: tuple[str, str]) -> TableInfo | None:
        dice = self._dice
        if dice.random() < 0.2:
            return None
        columns = tuple(
            (column, oid, dice.random() < 0.5)
            for column, oid in (("id", 23), ("n", 23), ("v", 1700), ("f", 701), ("a", 25), ("z", 25))
            if dice.random() < 0.8
        )
        root = name if dice.random() < 0.8 else ("public", "root")
        return TableInfo(name[0], name[1], root, dice.choice("rrrpm"), columns)


def told(error: BaseException | None) -> str:
    """All texts that a log of this error could hold."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_damaged_lines_give_an_event_or_a_stream_error_that_tells_no_value(encoding: str) -> None:
    """200,000 in all. Case 84: unknown keys and actions of newer versions among them."""
    dice = random.Random(f"84 {encoding}")
    decoder = Wal2JsonDecoder(Scope(), encoding=encoding)
    catalog = FakeCatalog(dice)
    texts: set[str] = set()
    events = 0
    slowest = 0.0
    for number in range(MESSAGES // 2):
        line = damaged(dice, LINES[number % len(LINES)])
        begun = time.thread_time()
        for _ in range(4):
            try:
                events += decoder.decode(line) is not None
            except UnknownTypeError as asked:
                decoder.learn(catalog.answer(asked))
                continue
            except StreamError as error:
                text = told(error)
                assert CANARY not in text
                texts.add(re.sub(r"(?<=byte )\d+", "#", re.sub(r"(?<=wal2json, )[^:]*", "#", str(error))))
            break
        else:
            raise AssertionError("asks the catalog for ever")
        slowest = max(slowest, time.thread_time() - begun)
    assert events > MESSAGES // 16
    assert {text for text in texts if not ACTION_TEXTS.fullmatch(text)} <= TEXTS
    assert slowest < 2


def test_damaged_notices_give_an_event_or_nothing() -> None:
    dice = random.Random(85)
    decoder = Wal2JsonDecoder(Scope())
    catalog = FakeCatalog(dice)
    notice = b'no tuple identifier for UPDATE in table "public"."t"'
    for _ in range(5000):
        text = damaged(dice, notice).decode("utf-8", "replace")
        try:
            decoder.decode_notice(text)
        except UnknownTypeError as asked:
            decoder.learn(catalog.answer(asked))
            decoder.decode_notice(text)


def test_real_lines_are_all_understood() -> None:
    decoder = Wal2JsonDecoder(Scope())
    catalog = FakeCatalog(random.Random(86))
    begun = b""
    for line in LINES:
        if line[11:12] == b"C" and line[12:] != begun:
            continue
        begun = line[12:] if line[11:12] == b"B" else begun
        for _ in range(4):
            try:
                decoder.decode(line)
            except UnknownTypeError as asked:
                decoder.learn(catalog.answer(asked))
            else:
                break
        else:
            raise AssertionError(line[:200])
