"""What the compiled decoders give is what Python gives, also of lines and messages that nobody should send."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cdc_audit.decode import pgoutput, wal2json
from cdc_audit.decode.pgoutput import PgOutputDecoder
from cdc_audit.decode.relation import NULL
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.sent_values import PGOUTPUT_CONVERTERS
from cdc_audit.decode.values import WAL2JSON_CONVERTERS
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog
from cdc_audit.model.event import Begin, Commit, Message
from tests.support.native import compiled
from tests.unit.decode.test_fuzz import LINES, FakeCatalog, damaged
from tests.unit.decode.test_pgoutput import COLUMNS, INFO, TYPES, Table, relation, row

BATCHES = 1500
TEXTS = [
    b"", b"x", b"null", b'"', b"\\", b"a\\\\b\\u0041\n\t\r\b\f\x01\x1f\x7f", "é€😀".encode(), b"\xff\xfe", b"nul\0nul",
    b'{"a": "\\\\ \\"", "key": [1.50]}', b"2026-11-28 09:28:58.36443+00", b"2026-11-28 09:28:58+05:30", b"infinity",
    b"0044-03-15 00:00:00+00 BC", b"NaN", b"12345.60", b"-0", b"t", b"f", b"(1,x)", b'(1,"a b")', b"1e400",
]  # fmt: skip


def outcomes(
    decoder: Any,
    batches: Sequence[Sequence[bytes]],
    catalog: FakeCatalog | Catalog,
    *,
    through_commits: bool = True,
) -> list[object]:
    """Each event or error, as the pump gets them; after an error with the item behind it."""
    found: list[object] = []
    for items in batches:
        position, asked_for = 0, 0
        while position < len(items):
            try:
                while (
                    position := decoder.decode_many(items, position, found, through_commits=through_commits)
                ) < len(items):
                    found.append(decoder.decode(items[position]))
                    position += 1
                    asked_for = 0
            except UnknownTypeError as unknown:
                asked_for += 1
                assert asked_for < 6, "asks the catalog for ever"
                decoder.learn(catalog.answer(unknown) if isinstance(catalog, FakeCatalog) else catalog)
            except StreamError as error:
                found.append(str(error))
                position += 1
                asked_for = 0
    return [
        one for event in found for one in (event if isinstance(event, list) else [event]) if one is not None
    ]


def varied(dice: random.Random, line: bytes) -> bytes:
    """A line of the same form with other values, or a damaged one."""
    kind = dice.randrange(8)
    if kind == 0:
        return damaged(dice, line)
    if kind == 1:
        return line.translate(bytes.maketrans(b"0123456789", bytes(dice.sample(b"0123456789", 10))))
    if kind == 2:
        return line.replace(
            b'"value":"', b'"value":"' + dice.choice((b"\\n", b'\\"', b"\\\\", b"\\u00e9", "é".encode()))
        )
    return line


MESSAGE = (
    '{"action":"M","xid":%s,"timestamp":"%s","lsn":"%s","transactional":%s,"prefix":"%s","content":"%s"}'
)
CONTENTS = [
    "", r"v1:k:00:{\"a\": \"b\"}", "é€😀", r"\\", r"a\nb\tc\/", r"\u00e9", r"\ud800", r"\u0000", '"', "x\x01", "\\", r"\x",
    "x" * 5000,
]  # fmt: skip
TIMES = ["2026-11-29 10:12:38.995528+00", "2026-11-29 10:12:39+00", "", "zeit é", "a\\nb", 'a"b']
NUMBERS = ["727", "0", "4294967295", "007", "-1", "99999999999", "1.5", "null", '"7"']
LSNS = ["0/1942F20", "FFFFFFFF/FFFFFFFF", "A/b", "0/0", "123456789/0", "/1", "1/", "1/2/3", "0/1942F20 "]


def usually(dice: random.Random, choices: list[str]) -> str:
    return choices[0] if dice.random() < 0.9 else dice.choice(choices)


def message(dice: random.Random) -> bytes:
    at = usually(dice, NUMBERS), usually(dice, TIMES), usually(dice, LSNS)
    prefix = usually(dice, ["cdc_audit.context", "", "a\\nb", "é", 'a"b'])
    given = *at, usually(dice, ["true", "false", "1"]), prefix, dice.choice(CONTENTS)
    return (MESSAGE % given).encode()


def transaction(dice: random.Random, rows: list[bytes]) -> list[bytes]:
    """Rows and messages between a BEGIN and a COMMIT that mostly fits it; one of them may be missing."""
    said = usually(dice, NUMBERS), usually(dice, TIMES), usually(dice, LSNS), usually(dice, LSNS)
    ends = b'"xid":%b,"timestamp":"%b","lsn":"%b","nextlsn":"%b"}' % tuple(map(str.encode, said))
    inside = rows + [message(dice) for _ in range(dice.choice((0, 0, 1, 1, 2)))]
    dice.shuffle(inside)
    other = ends if dice.random() < 0.95 else ends.replace(b"727", b"728")
    begin, commit = b'{"action":"B",' + ends, b'{"action":"C",' + other
    lines = [begin, *inside, commit]
    if dice.random() < 0.05:
        del lines[dice.choice((0, -1))]
    return [damaged(dice, line) if dice.random() < 0.02 else line for line in lines]


def batches_of(dice: random.Random) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    for _ in range(BATCHES):
        lines = dice.choices(LINES, k=2)
        rows = [varied(dice, dice.choice(lines)) for _ in range(dice.randrange(1, 8))]
        whole = transaction(dice, rows if dice.random() < 0.8 else []) if dice.random() < 0.7 else rows
        cut = dice.randrange(len(whole) + 1)  # looks end anywhere
        batches += [batches.pop() + whole[:cut], whole[cut:]] if batches else [whole]
    return batches


@pytest.mark.parametrize("through_commits", [True, False], ids=["through commits", "to each commit"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_compiled_and_pure_give_the_same_of_wal2json_lines_sound_and_damaged(
    encoding: str, through_commits: bool, native_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(random.Random(f"native {encoding}"))
    module = compiled(native_package, "decode", "_wal2json")
    module.init_converters(*WAL2JSON_CONVERTERS)
    module.init_events(Begin, Commit, Message)
    taken: Counter[bytes] = Counter()

    def events(items: Sequence[bytes], position: int, *rest: Any) -> tuple[int, bytes, bool]:
        found: tuple[int, bytes, bool] = module.events(items, position, *rest)
        taken.update(item[11:12] for item in items[position : found[0]])
        return found

    found = []
    for loop in (None, events):
        monkeypatch.setattr(wal2json, "_compiled", loop)
        decoder = Wal2JsonDecoder(Scope(), encoding=encoding)
        catalog = FakeCatalog(random.Random(1))
        found.append(outcomes(decoder, batches, catalog, through_commits=through_commits))
    pure, native = found
    assert native == pure
    assert list(map(type, native)) == list(map(type, pure))
    if encoding == "utf-8":
        least = {b"I": 300, b"U": 30, b"B": 300, b"M": 300, b"C": 300 if through_commits else 0}
        assert not {kind: taken[kind] for kind, count in least.items() if taken[kind] < count}, (
            "left to Python"
        )
        assert through_commits or not taken[b"C"]


def random_messages(dice: random.Random) -> list[bytes]:
    """A described table and rows of it: all actions, nulls, unchanged values, values that their types don't have, damage."""
    identity = dice.choice("dfn")
    messages = [relation(Table(identity=identity))]
    for _ in range(dice.randrange(1, 12)):
        new = tuple(value(dice, oid) for _, oid in COLUMNS)
        old = tuple(
            one if dice.random() < 0.6 else value(dice, oid)
            for one, (_, oid) in zip(new, COLUMNS, strict=True)
        )
        new = tuple(NotImplemented if dice.random() < 0.03 else one for one in new)
        action, kind = dice.choice("IUD"), dice.choice("OOK")
        message = row(
            action,
            new if action != "D" else None,
            old if action == "D" or (action == "U" and dice.random() < 0.7) else None,
            kind,
        )
        # Only the first row: how closely Python looks at lengths depends on the rows before.
        if len(messages) == 1 and dice.random() < 0.3:
            at, other = dice.randrange(1, len(message)), dice.choice((b"", b"\0", b"t\0\0", b"\xff"))
            message = message[:at] + other + message[at + dice.randrange(3) :]
        messages.append(message)
    return messages


def value(dice: random.Random, oid: int) -> bytes | None:
    if dice.random() < 0.1:
        return None
    if dice.random() < 0.1:
        return dice.choice(TEXTS)
    usual = {
        23: b"%d" % dice.randrange(-5, 99),
        1700: b"12.50",
        16: b"t",
        1184: TEXTS[10],
        3802: TEXTS[9],
        20000: b"(1,x)",
    }
    return usual.get(oid, dice.choice(TEXTS[:7]))


def test_compiled_and_pure_give_the_same_of_pgoutput_messages_sound_and_damaged(
    native_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random("native")
    batches = [random_messages(dice) for _ in range(BATCHES)]
    catalog = Catalog(TYPES, {("public", "t"): INFO})
    module = compiled(native_package, "decode", "_pgoutput")
    module.init_converters(*PGOUTPUT_CONVERTERS, NULL)
    monkeypatch.setattr(pgoutput, "_compiled", None)
    pure = outcomes(PgOutputDecoder(Scope()), batches, catalog)
    monkeypatch.setattr(pgoutput, "_compiled", module.rows)
    native = outcomes(PgOutputDecoder(Scope()), batches, catalog)
    assert native == pure
    assert len(pure) > 3 * BATCHES
