"""What goes to the source is always a JSON object that jsonb holds, at most 8 kB, at most 16 deep."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_audit.client.payload import MAX_BYTES, context_text, event_texts


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Colour(enum.Enum):
    RED = "red"


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def holds(text: str) -> dict[str, Any]:
    """The object, after a check of what the source would refuse."""
    assert len(text.encode()) <= MAX_BYTES
    found = json.loads(text, parse_constant=lambda _: pytest.fail("not JSON"))
    assert isinstance(found, dict)
    assert "\0" not in "".join(strings(found))
    assert depth(found) <= 14
    return found


def test_values_without_a_json_form_are_their_text() -> None:
    number = uuid.uuid4()
    found = holds(
        context_text(
            {
                "user_id": number,
                "at": datetime(2026, 1, 2, tzinfo=UTC),
                "day": date(2026, 1, 2),
                "amount": Decimal("12345678901234567890.10"),
                "colour": Colour.RED,
                "set": {1},
                "bytes": b"\xff\0a",
                "nan": float("nan"),
                "huge": 1e300,
                "half": 0.5,
                "long": 10**30,
                "beyond": 10**9999,
                "yes": True,
                "odd": Unprintable(),
                7: "seven",  # type: ignore[dict-item]
            }
        )
    )
    assert found["user_id"] == str(number)
    assert found["amount"] == "12345678901234567890.10"
    assert (found["colour"], found["set"], found["half"], found["yes"]) == ("red", [1], 0.5, True)
    assert (found["nan"], found["huge"], found["long"]) == ("nan", "1e+300", str(10**30))
    assert (found["odd"], found["beyond"]) == ("[RuntimeError]", "[ValueError]")
    assert (found["bytes"], found["7"]) == ("\ufffd\ufffda", "seven")


def test_a_megabyte_is_cut_and_the_user_stays() -> None:
    fields = {f"k{n}": "x" * 1_000_000 for n in range(50)}
    found = holds(context_text({**fields, "user_id": "u" * 1_000_000, "email": "a@b.c"}))
    assert found["user_id"] == "u" * 1023 + "…"
    assert found["email"] == "a@b.c"
    assert found["_left_out"][0].startswith("k")


def test_what_holds_itself_or_goes_deep_comes_to_an_end() -> None:
    circle: dict[str, object] = {}
    circle.update({str(n): circle for n in range(50)})
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    found = holds(context_text({"circle": circle, "deep": deep, "user_id": "u1"}))
    assert found["user_id"] == "u1"
    assert "too deep" in json.dumps(found["deep"])
    while deep:  # taken apart by hand: CPython would recurse
        deep = deep[0]  # type: ignore[assignment]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2000) | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=50), inner, max_size=8),
    max_leaves=30,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=100) | st.sampled_from(["user_id", "email"]), VALUES, min_size=1))
def test_any_fields_give_what_the_source_takes(fields: dict[str, object]) -> None:
    holds(context_text(fields))


def test_nothing_to_say_is_nothing() -> None:
    assert context_text({}) == ""


def test_an_event_takes_its_context_along_and_is_never_cut() -> None:
    context = {"user_id": "u1", "note": "y" * 5000}
    action, table, record, data = event_texts("READ", "patients", 7, {"why": "x" * 5000}, context)
    assert (action, table, record) == ("READ", "patients", "7")
    assert data is not None
    found = holds(data)
    assert found["why"] == "x" * 5000
    assert found["context"]["user_id"] == "u1"
    with pytest.raises(ValueError, match="8192"):
        event_texts("READ", None, None, {"why": "x" * 9000}, {})
    assert event_texts("LOGIN", None, None, None, {}) == ("LOGIN", None, None, None)
