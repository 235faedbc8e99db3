"""What lines become in COPY's binary format, and that nothing else becomes anything. What the server makes of it:
``tests/integration/seal/test_lines.py``.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from cdc_audit.seal import copy_binary
from cdc_audit.seal.redact import NO_RULES
from tests.support.native import compiled
from tests.unit.seal.test_native import random_stretches, sealed

FIELDS = [
    b"7", b"2026-11-22 19:19:02.5+00", b"public", b"t\\\\\\t", rb"\N", b"INSERT", rb"\N", r'{"a": "\\"é"}'.encode(),
    rb'{a,"b c","\\"\\\\"}',
    b"u1", rb"\N", b"10.0.0.0/8", rb"\N", rb"\N", b"none", rb"\N", rb"\N", b"full", b"{}", rb"\N",
    b"771", b"16/B374D848", b"1", rb"\\x" + b"00ff" * 16,
]  # fmt: skip
NULL = b"\xff\xff\xff\xff"


@pytest.fixture(autouse=True)
def _is_compiled(native_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_binary, "_compiled", compiled(native_package, "seal", "_copy_binary").rows)


def line(changed: dict[int, bytes] | None = None) -> bytes:
    return b"\t".join((changed or {}).get(at, field) for at, field in enumerate(FIELDS)) + b"\n"


def value(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def test_each_type_is_what_its_receive_function_takes() -> None:
    since_2000 = 26 * 365 + 7 + 31 + 28 + 31 + 30 + 31 + 30 + 31 + 31 + 30 + 31 + 21  # days
    moment = ((since_2000 * 24 + 19) * 60 + 19) * 60 + 2.5
    elements = value(b"a") + value(b"b c") + value(b'"\\')
    expected = [
        value(struct.pack(">q", 7)), value(struct.pack(">q", int(moment * 1e6))), value(b"public"), value(b"t\\\t"), NULL,
        value(b"INSERT"), NULL, value(b'\1{"a": "\\"' + 'é"}'.encode()), value(struct.pack(">5i", 1, 0, 25, 3, 1) + elements),
        value(b"u1"), NULL, value(bytes([2, 8, 0, 4, 10, 0, 0, 0])), NULL, NULL, value(b"none"), NULL, NULL, value(b"full"),
        value(struct.pack(">3i", 0, 0, 25)), NULL, value(struct.pack(">q", 771)), value(struct.pack(">q", 0x16B374D848)),
        value(struct.pack(">i", 1)), value(b"\0\xff" * 16),
    ]  # fmt: skip
    assert copy_binary.rows(line()) == struct.pack(">h", 24) + b"".join(expected)


def test_a_row_is_the_same_whatever_stands_before_it() -> None:
    """Fields that are as in the line before are taken from there."""
    dice = random.Random(7)
    lines: list[bytes] = []
    for seed in range(20):
        lines += sealed(random_stretches(random.Random(seed)), NO_RULES, seed)[0].splitlines(keepends=True)
    lines += [line({9: b"u"}), line({9: b"u1"}), line({9: b"u12"}), line({22: b"2"}), line({21: b"0/1"})]
    dice.shuffle(lines)
    apart = b"".join(map(copy_binary.rows, lines))
    assert copy_binary.rows(b"".join(lines)) == apart
    assert copy_binary.rows(b"".join(line for line in lines for _ in range(3))) == b"".join(
        copy_binary.rows(line) * 3 for line in lines
    )


@pytest.mark.parametrize(
    ("at", "texts"),
    [
        (0, [b"", b"-1", b"1.0", b"seven", b"9" * 19]),
        (1, [
            b"", b"infinity", b"2026-11-22", b"2026-13-22 19:19:02+00", b"2026-02-29 19:19:02+00", b"2026-11-22 24:19:02+00",
            b"2026-11-22 19:19:02+01", b"2026-11-22 19:19:02.+00", b"2026-11-22 19:19:02.1234567+00", b"2026-11-22T19:19:02+00",
            b"2026-11-22 19:19:0x+00", b"0000-11-22 19:19:02+00", b"999999-11-22 19:19:02+00", b"226-11-22 19:19:02.123+00",
        ]),
        (8, [b"", b"{", b"}", b"{a", b"a}", b"{a,}", b"{,a}", b"{NULL}", b"{null}", b'{"a}', b'{"a"b}', b"{{a}}", b"{[0:1]={a}"]),
        (11, [b"", b"10.0.0", b"10.0.0.256", b"10.0.0.1/33", b"10.0.0.1/", b"::g", b"::1/129", b"1" * 80]),
        (21, [b"", b"1", b"/", b"1/", b"/1", b"1/2/3", b"123456789/1", b"1/g"]),
        (22, [b"", b"2147483648", b"x"]),
        (23, [b"", b"00", rb"\\x0", rb"\\x0g", rb"\x00"]),
    ],
)  # fmt: skip
def test_a_text_that_is_not_one_of_its_type_is_refused_by_its_place_alone(
    at: int, texts: list[bytes]
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"^the text of field {at + 1} of a line is not") as refused:
            copy_binary.rows(line() + line({at: text}))
        assert not text.strip(b'0"{},x/') or text.decode() not in str(refused.value)


@pytest.mark.parametrize("lines", [line()[:-1], b"\n", line().replace(b"\tu1", b""), line()[:-1] + b"\tx\n"])
def test_what_is_not_a_line_is_refused(lines: bytes) -> None:
    with pytest.raises(ValueError, match="line "):
        copy_binary.rows(lines)


def test_no_lines_are_no_rows() -> None:
    assert copy_binary.rows(b"") == b""


def test_bytes_at_random_are_refused_or_taken_and_never_more() -> None:
    dice = random.Random(11)
    taken = 0
    for _ in range(5000):
        data = bytearray(line() * dice.randint(1, 3))
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.choice(b'\t\n\\"{},/0aN\xff')
        try:
            copy_binary.rows(bytes(data))
            taken += 1
        except ValueError:
            pass
    assert 500 < taken < 4500


@pytest.mark.parametrize(
    "kinds", [b"", b"x", b"(tt", b"tt)", b"t(t)", b"()t", b"((t)t)t", b"(t)(t)(t)(t)(t)t", b"t" * 65, b"t\0"]
)
def test_kinds_are_letters_in_simple_brackets(kinds: bytes) -> None:
    assert copy_binary._compiled is not None
    with pytest.raises(ValueError, match="kinds are letters"):
        copy_binary._compiled(b"", kinds)
