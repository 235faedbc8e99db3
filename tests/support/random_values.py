"""Random values that are awkward on their way through a change stream, but legal in their columns."""

from __future__ import annotations

import json
import string
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

BODY = 9_000  # characters: stored out of line, so an update that leaves it alone doesn't send it

_AWKWARD = (
    "",
    " ",
    "null",
    "NULL",
    r"\N",
    "{}",
    "[redacted]",
    "it's",
    'say "hi"',
    "back\\slash",
    "two\nlines",
    "tab\there",
    "\r\n",
    "naïve café",
    "日本語テキスト",
    "😀🤷‍♀️",
    "e\u0301",
    "\u2028",
    "\x7f\x01",
    '"typeoid":1700,"value":1.0',
    '{"action":"C"}',
    '},{"name":"x","type":"numeric","value":12',
    "%s %% ${x}",
    "'; drop table audit_logs; --",
    "<script>",
    "a,b;c|d",
    "\\u0041",
)


def text(rng: Random) -> str:
    """A short text."""
    if rng.random() < 0.5:
        return rng.choice(_AWKWARD)
    return "".join(rng.choices(string.ascii_letters + string.digits + " äßÇ", k=rng.randint(1, 40)))


def body(rng: Random) -> str:
    """A long text that doesn't compress."""
    return "".join(rng.choices(string.ascii_letters + string.digits, k=BODY))


def numeric(rng: Random) -> Decimal:
    """A number whose trailing zeros and digits a double would lose."""
    kind = rng.randrange(6)
    if kind == 0:
        return Decimal(rng.randint(-9999, 9999)).scaleb(-2)
    if kind == 1:
        return Decimal(str(rng.randint(0, 99)) + ".50000")
    if kind == 2:
        return Decimal(rng.randint(10**30, 10**40)).scaleb(-10)
    if kind == 3:
        return Decimal(rng.choice(("0", "0.00", "-0.000001", "1.0", "100", "18446744073709551616")))
    return Decimal(rng.randint(-(10**18), 10**18))


def amount(rng: Random) -> Decimal:
    """A number that fits numeric(20,5)."""
    return Decimal(rng.randint(-(10**17), 10**17)).scaleb(-5)


def ratio(rng: Random) -> float:
    """A double without exponent."""
    return rng.choice((0.1, 1.0, -2.5, 1 / 3, 123456.789, rng.random(), float(rng.randint(-1000, 1000))))


def moment(rng: Random) -> datetime:
    """A time with a random offset from UTC and 0 to 6 decimals of a second."""
    second = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randint(0, 400_000_000))
    return second + timedelta(microseconds=rng.choice((0, 500_000, 120_000, rng.randrange(1_000_000))))


def day(rng: Random) -> date:
    """A date."""
    return date(rng.randint(1, 9999), rng.randint(1, 12), rng.randint(1, 28))


def document(rng: Random, depth: int = 0) -> Any:
    """A JSON value."""
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [document(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == 6:
        return {_key(rng): document(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return (None, True, rng.randint(-(10**12), 10**12), text(rng), 1.5)[kind]


def _key(rng: Random) -> str:
    """An object's key. Chance must not spell a secret's name (otp, pwd, ...), which is redacted: its letters are left out."""
    if rng.random() < 0.5:
        return rng.choice(_AWKWARD)
    return "".join(rng.choices("abdefghijlnoquvwxyzABDEFGHIJLNOQUVWXYZ0123456789 äßÇ", k=rng.randint(1, 40)))


def document_text(rng: Random) -> str:
    """A JSON object as text, with a number whose digits matter."""
    inner = json.dumps(document(rng), ensure_ascii=rng.random() < 0.5)
    return f'{{"n": {rng.choice(("1.10", "0.30000000000000000001", "1e3", "10"))}, "d": {inner}}}'


def texts(rng: Random) -> list[str | None]:
    """An array of texts."""
    return [None if rng.random() < 0.15 else text(rng) for _ in range(rng.randint(0, 4))]


def numbers(rng: Random) -> list[int | None]:
    """An array of integers."""
    return [
        None if rng.random() < 0.15 else rng.randint(-(2**31), 2**31 - 1) for _ in range(rng.randint(0, 4))
    ]


def thing(rng: Random) -> dict[str, Any]:
    """A row of app.things without its id; any column but name may be null."""
    row: dict[str, Any] = {
        "qty": rng.randint(-(2**31), 2**31 - 1),
        "price": numeric(rng),
        "amount": amount(rng),
        "ratio": ratio(rng),
        "flag": rng.random() < 0.5,
        "seen": moment(rng),
        "clock": moment(rng).replace(tzinfo=None),
        "day": day(rng),
        "doc": document_text(rng),
        "tags": texts(rng),
        "nums": numbers(rng),
        "mark": UUID(int=rng.getrandbits(128)),
        "body": body(rng) if rng.random() < 0.2 else text(rng),
        "note": text(rng),
    }
    return {"name": text(rng), **{key: None if rng.random() < 0.1 else value for key, value in row.items()}}
