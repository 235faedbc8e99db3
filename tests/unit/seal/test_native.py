"""What the compiled loops seal is what Python seals, to the byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cdc_audit.config import RedactRule
from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Shape, Stretch, Suppressed, Truncate
from cdc_audit.seal import lines, merkle
from cdc_audit.seal.block import NO_HASH
from cdc_audit.seal.builder import BlockBuilder, Sealed
from cdc_audit.seal.plan import Plan
from cdc_audit.seal.redact import NO_RULES, STEMS, Redaction, mask_keys
from tests.support.native import compiled
from tests.unit.seal.test_seal import AT, GENESIS

NAMES = ("id", "note", "é", "password", "doc", 'a"\\%b', "bb", "at")
VALUES = (
    b"null", b"1", b"-12.50", b'"x"', b'""', b'"a\\\\b\\"c\\n"', b"true", '"é"'.encode(),
    b'{"a": "\\\\", "PIN": 1, "Card_Number": "4"}', b'[{"token": "t"}]', b'{"pink": 2}', b'"{\\"secret\\": 1}"',
)  # fmt: skip
RULES = (
    NO_RULES,
    Redaction(
        (
            RedactRule(table="public.t", column="note", mode="mask"),
            RedactRule(table="public.t", column="bb", mode="drop"),
            RedactRule(table="public.t", column="at", mode="hmac"),
            RedactRule(table="public.u", column="note", mode="personal"),
            RedactRule(table="public.t", column="password", mode="keep"),
        ),
        b"k" * 32,
        ("user_email",),
    ),
)
CONTEXTS = (
    NO_CONTEXT,
    Context(Trust.SIGNED, "u1", "a@b.c", "10.0.0.9", "agent\\1", '{"r": "\\n"}', "app", "psql"),
)


def random_shape(dice: random.Random) -> Shape:
    action = dice.choice(("INSERT", "UPDATE", "UPDATE", "DELETE"))
    columns = tuple(dice.sample(NAMES, dice.randrange(1, len(NAMES))))
    is_full = dice.random() < 0.7
    old = () if action == "INSERT" else columns if is_full else columns[:1]
    key = dice.choice(((), columns[:1], columns[:2]))
    nested = tuple(name for name in columns if name in ("doc", "note"))
    return Shape(
        action,  # type: ignore[arg-type]
        "public",
        dice.choice("tu"),
        dice.choice(("", "leaf")),
        () if action == "DELETE" else columns,
        old,
        is_full and action != "INSERT",
        key,
        (),
    )._replace(nested=nested)


OTHERS: tuple[Change, ...] = (
    Truncate("public", "t", ""),
    Suppressed("DELETE", "public", "n", ""),
    ApplicationEvent("READ", "p", "7", b'{"pin": 1}'),
)


def row(dice: random.Random, shape: Shape) -> Change:
    new = [dice.choice(VALUES) for _ in shape.new_columns]
    kept = [*new, *VALUES]
    old = [kept[i] if dice.random() < 0.6 else dice.choice(VALUES) for i in range(len(shape.old_columns))]
    return shape, new, old


def random_stretches(dice: random.Random) -> list[Stretch]:
    shapes = [random_shape(dice) for _ in range(12)]
    stretches = []
    for number in range(60):
        changes: list[Change] = []
        for _ in range(dice.randrange(6)):
            shape = dice.choice(shapes)
            changes += [row(dice, shape) for _ in range(dice.randrange(1, 5))]
            if dice.random() < 0.2:
                changes.append(dice.choice(OTHERS))
        begin = Begin(dice.choice((0, 7)), 256 + number, AT)
        stretches.append(Stretch(begin, dice.choice(CONTEXTS), changes, True, True))
    return stretches


def sealed(stretches: list[Stretch], redaction: Redaction, seed: int) -> tuple[bytes, bytes, Sealed]:
    builder = BlockBuilder(
        GENESIS,
        NO_HASH,
        timeline=1,
        redaction=redaction,
        random=random.Random(seed).randbytes,
        keeps_facts=True,
    )
    for stretch in stretches:
        builder.add(stretch)
    rows, openings = builder.take(), builder.take_openings()
    return rows, openings, builder.close(kind="data", written_at=AT)


@pytest.mark.parametrize("redaction", RULES, ids=["no rules", "all modes"])
def test_compiled_and_pure_seal_random_rows_the_same(
    redaction: Redaction, native_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = compiled(native_package, "seal", "_lines")
    module.init_redaction(mask_keys, STEMS)
    for seed in range(60):
        stretches = random_stretches(random.Random(seed))
        with monkeypatch.context() as patch:
            patch.setattr(lines, "_compiled", None)
            patch.setattr(merkle, "_compiled", None)
            pure = sealed(stretches, redaction, seed)
            patch.setattr(lines, "_compiled", module.run)
            patch.setattr(merkle, "_compiled", module.perfect)
            assert sealed(stretches, redaction, seed) == pure
        assert pure[2].block.row_count > 50
        assert sum(pure[2].facts.values()) == pure[2].block.row_count


def test_a_run_of_large_rows_ends_after_a_megabyte_and_goes_on(
    native_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = compiled(native_package, "seal", "_lines")
    module.init_redaction(mask_keys, STEMS)
    shape = Shape("INSERT", "public", "t", "", ("id", "note"), (), False, ("id",), ())
    changes: list[Change] = [(shape, [b"%d" % n, b'"' + b"\\\\" * 200_000 + b'"'], []) for n in range(5)]
    stretch = Stretch(Begin(7, 256, AT), NO_CONTEXT, changes, True, True)
    monkeypatch.setattr(lines, "_compiled", None)
    pure = sealed([stretch], NO_RULES, 0)
    monkeypatch.setattr(lines, "_compiled", module.run)
    assert sealed([stretch], NO_RULES, 0) == pure
    plan = lines.LineWriter()._plan(shape)
    counts: list[tuple[Plan, int]] = []
    _, rows, _ = module.run(changes, 0, {id(shape): (shape, plan)}, b"", b"", b"", 1, 1, [], counts)
    assert 1 < rows < 5
    assert counts == [(plan, rows)]


def test_plans_of_another_version_are_an_error_and_no_endless_loop(native_package: Path) -> None:
    module = compiled(native_package, "seal", "_lines")
    module.init_redaction(mask_keys, STEMS)
    shape = Shape("INSERT", "public", "t", "", ("id",), (), False, ("id",), ())
    with pytest.raises(TypeError, match="make native"):
        module.run([(shape, [b"1"], [])], 0, {id(shape): (shape, (1, 2))}, b"", b"", b"", 1, 1, [], [])
