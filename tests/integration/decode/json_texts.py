"""JSON documents in every way of writing them, and many that are broken."""

# ruff: noqa: E501, RUF001
# fmt: off

from __future__ import annotations

import random

NUMBERS = [
    "0", "-0", "0.0", "-0.0", "1", "-1", "1.50", "-1.50", "1e5", "1E-7", "1.5e3", "1.50e1", "0e5", "0.00e2", "0e-5", "10e-1",
    "12345678901234567890123456789", "18446744073709551616", "-9223372036854775809", "9007199254740993", "0.1", "1e23",
    "123456789012345678.99", "1e400", "1.7976931348623157e309", "5e-325", "1e-400", "1e0005", "1E+05", "-1.5E-3", "3.14159e+2",
    "1e131071", "1e131072", "1e-16383", "1e-16384", "1e200000", "0e200000", "0e1073741823", "0e-16384", "1e99999999999999999999",
    "9" * 500, "0." + "3" * 500, "9" * 5000, "01", "-", "1.", ".5", "1e", "+1", "NaN", "Infinity", "-Infinity", "0x10", "1_000",
    "١", "-01", "1e+", "--1", "1,",
]
STRINGS = [
    "", "a", "b", "aa", "é", "ééé", "zz", "日本", "\U0001f600", "\\u0061", "\\u00e9", "\\u00E9", "\\ud83d\\ude00", "\\uD83D\\uDE00", "\\/", "/",
    "\\b\\f\\n\\r\\t", "\\\"", "\\\\", "\\\\u0000", "\\u0000", "\\ud83d", "\\ude00", "\\ud83dx", "\\ud83d\\n", "\\ud83d\\ud83d",
    "\\u001f", "\\u0001", "\\u007f", "\x7f", "\\u2028", "\u2028", "\\x", "\\u12", "\\u00zz", "\\U0041", "\t", "\n", "\x01", "'", "NULL", "1.5e3",
    "\\uffff", "\\ufeff", "\ufeff", "key with blanks", "x" * 40,
]
BLANKS = ["", "", "", " ", "\n", "\t", "\r\n", "  "]
BROKEN = [
    "", " ", "nul", "True", "[1,]", "{\"a\":1,}", "[", "]", "{", "{\"a\"}", "{1:2}", "{a:1}", "\"", "\"abc", "[1 2]", "1 2", "{}{}", "null,", "'a'",
    "[1,,2]", "\ufeff1", "\u00a01", "1\u00a0", "/*c*/1", "nullx", "truefalse", "\x0b1", "\x0c1", "[\"a\" \"b\"]", "{\"a\" 1}", "undefined", "{\"a\":}",
]

# fmt: on


def json_texts(dice: random.Random, count: int) -> list[str]:
    """``count`` texts or more: fixed hard cases, generated documents, and documents damaged at one place."""
    texts = [
        *NUMBERS,
        *(f'"{string}"' for string in STRINGS),
        *(f'{{"{string}": 1}}' for string in STRINGS),
        *BROKEN,
    ]
    texts += [f"[{number}]" for number in NUMBERS] + ["[" * 200 + "]" * 200, "[" * 499 + "1.5" + "]" * 499]
    while len(texts) < count:
        text = _value(dice, 4, harmless=dice.random() < 0.8)
        texts.append(_damaged(dice, text) if dice.random() < 0.25 else text)
    return texts


def _value(dice: random.Random, depth: int, *, harmless: bool) -> str:
    blank = dice.choice(BLANKS)
    kind = dice.randrange(7 if depth else 4)
    if kind < 2:
        text = dice.choice(NUMBERS[:29] if harmless else NUMBERS)
    elif kind == 2:
        text = _string(dice, harmless=harmless)
    elif kind == 3:
        text = dice.choice(["null", "true", "false"])
    elif kind == 4:
        text = (
            "["
            + ",".join(_value(dice, depth - 1, harmless=harmless) for _ in range(dice.randrange(4)))
            + blank
            + "]"
        )
    else:
        members = [
            f"{blank}{_string(dice, harmless=harmless)}{blank}:{_value(dice, depth - 1, harmless=harmless)}"
            for _ in range(dice.randrange(6))
        ]
        text = "{" + ",".join(members) + blank + "}"
    return blank + text + dice.choice(BLANKS)


def _string(dice: random.Random, *, harmless: bool) -> str:
    return '"' + dice.choice(STRINGS[:14] if harmless else STRINGS) + '"'


def _damaged(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text) + 1)
    return (
        text[:at]
        + dice.choice(["", ",", '"', "}", "\\", "e5", ".", "-", "\t"])
        + text[at + dice.randrange(2) :]
    )
