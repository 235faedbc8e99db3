from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.model import jsonb
from cdc_audit.model.jsonb import NotJsonbError, canonical, number, string

NUMBERS = [
    ("0", "0"),
    ("-0", "0"),
    ("-0.0", "0.0"),
    ("1.50", "1.50"),
    ("-1.50", "-1.50"),
    ("1e5", "100000"),
    ("1E+5", "100000"),
    ("1E-7", "0.0000001"),
    ("1.5e3", "1500"),
    ("1.50e1", "15.0"),
    ("-2.5e-10", "-0.00000000025"),
    ("10e-1", "1.0"),
    ("100e-2", "1.00"),
    ("123.456e2", "12345.6"),
    ("0.00123e1", "0.0123"),
    ("0e10", "0"),
    ("0e200000", "0"),
    ("0.0e-5", "0.000000"),
    ("1e0005", "100000"),
    ("18446744073709551616", "18446744073709551616"),
    ("123456789012345678.99", "123456789012345678.99"),
    ("9007199254740993", "9007199254740993"),
    ("1e400", "1" + "0" * 400),
    ("1e131071", "1" + "0" * 131071),
    ("1e-16383", "0." + "0" * 16382 + "1"),
    ("9" * 5000, "9" * 5000),
]

DOCUMENTS = [
    ('{"b":1,"a":2}', '{"a": 2, "b": 1}'),
    ('{"aa":1,"b":2,"":3}', '{"": 3, "b": 2, "aa": 1}'),
    ('{"é":1,"zz":2,"z":3}', '{"z": 3, "zz": 2, "é": 1}'),
    ('{"é":1.0,"zz":2,"z":3}', '{"z": 3, "zz": 2, "é": 1.0}'),
    ('{"\U0001f600":1,"\uffff":2,"abcd":3}', '{"\uffff": 2, "abcd": 3, "\U0001f600": 1}'),
    ('{"a":1,"b":1,"a":2}', '{"a": 2, "b": 1}'),
    ('{"a":1.5,"\\u0061":2.50}', '{"a": 2.50}'),
    ("[]", "[]"),
    (" { } ", "{}"),
    ("[1,[2,[]],{}]", "[1, [2, []], {}]"),
    ("[true,false,null]", "[true, false, null]"),
    ('{"a":{"c":1e2,"b":[1.10,{"y":1,"x":"e5"}]}}', '{"a": {"b": [1.10, {"x": "e5", "y": 1}], "c": 100}}'),
    ('"\\u0041\\/\\u00e9"', '"A/é"'),
    ('"\\b\\f\\n\\r\\t\\"\\\\"', '"\\b\\f\\n\\r\\t\\"\\\\"'),
    ('"\\u0001\\u001F\\u007f"', '"\\u0001\\u001f\x7f"'),
    ('"\\ud83d\\ude00"', '"\U0001f600"'),
    ('["\\ud83d\\ude00",1.0]', '["\U0001f600", 1.0]'),
    ('"\\\\u0000"', '"\\\\u0000"'),
    ('["\\\\ud800", 1.0]', '["\\\\ud800", 1.0]'),
    ('"1.5 e3"', '"1.5 e3"'),
    ("\t\r\n null \n", "null"),
]

# fmt: off
REFUSED = [
    "", " ", "nul", "NaN", "Infinity", "-Infinity", "[NaN]", "[1.0,Infinity]", "01", "1.", ".5", "+1", "-",
    "1e", "0x1", "1_0", "'a'", "[1,]", '{"a":1,}', "[1", '{"a"}', "{1:2}", "1 2", "1.5 2", "{}{}", '"a',
    '"\t"', '["\n",1.5]', '"\\x"', '"\\u12"', "\ufeff1", "1\u00a0", "\u0661", '"\\u0000"',
    '{"\\u0000":1}', '{"a":"\\u0000","a":1}', '"\\\\\\u0000"', '"\\ud800"', '"\\udc00"', '["\\ud800",1.5]',
    '["\\ud83d\\ud83d",1.5]', '["\\ud83dx\\ude00",1.5]', '{"a":"\\ude00","a":1.5}',
    '["\\ud83d\\n\\ude00",1.5]',
    '["\\ud83d",1.5]', "\ud800", '"\ud800"', "1e131072", "1e-16384", "1e200000", "-1e999999999999",
    "[0e1073741823]", "0e-20000", "9" * 131073, "0." + "0" * 16384,
]
# fmt: on


@pytest.mark.parametrize(("token", "expected"), NUMBERS)
def test_a_number_is_printed_as_numeric_prints_it(token: str, expected: str) -> None:
    assert number(token.encode()).decode() == expected
    assert canonical(token).decode() == expected
    assert canonical(f'{{"a":[{token}]}}').decode() == f'{{"a": [{expected}]}}'


@pytest.mark.parametrize(
    "token", ["", "abc", "1.", "--1", "1e", "NaN", "Infinity", "é", "\u0661", " 1", "1\n", "1e131072", "-"]
)
def test_what_is_no_number_or_beyond_numeric_is_refused(token: str) -> None:
    with pytest.raises(NotJsonbError):
        number(token.encode())


@pytest.mark.parametrize(("text", "expected"), DOCUMENTS)
def test_a_document_is_printed_as_jsonb_prints_it(text: str, expected: str) -> None:
    assert canonical(text).decode() == expected
    assert canonical(text.encode()).decode() == expected


@pytest.mark.parametrize("text", REFUSED)
def test_what_jsonb_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(NotJsonbError):
        canonical(text)


@pytest.mark.parametrize("raw", [b'"\xff"', b"\xc0\x80", b'["\xed\xa0\x80", 1.5]'])
def test_bytes_that_are_not_utf_8_are_refused(raw: bytes) -> None:
    with pytest.raises(NotJsonbError):
        canonical(raw)


@pytest.mark.parametrize("leaf", ["", "1", "1.5"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded_and_never_a_recursion_error(opening: str, closing: str, leaf: str) -> None:
    leaf = leaf or "null"
    most = canonical(opening * jsonb.MAX_DEPTH + leaf + closing * jsonb.MAX_DEPTH)
    assert most.count(opening[:1].encode()) == jsonb.MAX_DEPTH
    for depth in (jsonb.MAX_DEPTH + 1, 900, 1020, 1100, 200_000):
        with pytest.raises(NotJsonbError):
            canonical(opening * depth + leaf + closing * depth)


def test_a_short_document_cannot_grow_without_bound() -> None:
    assert len(canonical("[" + ",".join(["1e131071"] * 100) + "]")) > 13_000_000
    with pytest.raises(NotJsonbError):
        canonical("[" + ",".join(["1e131071"] * 10_000) + "]")


def test_what_exceeds_jsonb_s_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 67."""
    monkeypatch.setattr(jsonb, "MAX_BYTES", 1000)
    assert string("x" * 1000)
    assert string("\n" * 1000)
    assert canonical(f'"{"x" * 900}"')
    with pytest.raises(NotJsonbError):
        string("x" * 1001)
    for text in (f'"{"x" * 1001}"', f"[{'1,' * 100}1]"):
        with pytest.raises(NotJsonbError):
            canonical(text)


@pytest.mark.parametrize("text", ["\0", "a\0b", chr(0xD800), "a" + chr(0xDC80)])
def test_a_string_that_jsonb_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(NotJsonbError):
        string(text)


def test_a_refusal_never_holds_the_value() -> None:
    for text in ('{"a": "canary"', '"canary\\u0000"', "canary", '["canary\\ud800", 1.5]', '"canary" canary'):
        with pytest.raises(NotJsonbError) as refusal:
            canonical(text)
        assert "canary" not in str(refusal.value)
        assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    with pytest.raises(NotJsonbError) as refusal:
        string("canary\ud800")
    assert "canary" not in str(refusal.value)


def test_a_thousand_kinds_of_objects_leave_little_behind() -> None:
    for i in range(3000):
        assert canonical(f'{{"k{i}":1,"a":2}}') == f'{{"a": 2, "k{i}": 1}}'.encode()
    assert len(jsonb._LAYOUTS) <= jsonb._MAX_LAYOUTS


characters = st.characters(exclude_characters="\0", codec="utf-8")
texts = st.text(characters, max_size=8)
numbers = st.one_of(
    st.integers(),
    st.integers(min_value=-(10**60), max_value=10**60),
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=Decimal(-(10**30)), max_value=Decimal(10**30)
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)
documents: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=12,
)


def _text(document: Any, *, ascii_only: bool) -> str:
    if isinstance(document, (dict, list)):
        inner = [
            (json.dumps(item, ensure_ascii=ascii_only) + ":" + _text(document[item], ascii_only=ascii_only))
            if isinstance(document, dict)
            else _text(item, ascii_only=ascii_only)
            for item in document
        ]
        return ("{%s}" if isinstance(document, dict) else "[%s]") % ",".join(inner)
    if isinstance(document, (Decimal, float)):
        return str(document)
    return json.dumps(document, ensure_ascii=ascii_only)


def _exact(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def _sorted_keys(document: Any) -> bool:
    if isinstance(document, dict):
        keys = [key.encode() for key in document]
        return keys == sorted(keys, key=lambda key: (len(key), key)) and all(
            map(_sorted_keys, document.values())
        )
    return all(map(_sorted_keys, document)) if isinstance(document, list) else True


@given(documents, st.booleans())
def test_canonical_text_means_the_same_and_is_its_own_canonical_text(document: Any, ascii_only: bool) -> None:
    text = _text(document, ascii_only=ascii_only)
    ours = canonical(text)
    assert _exact(ours) == _exact(text)
    assert _sorted_keys(_exact(ours))
    assert canonical(ours) == ours
    assert canonical(ours.decode()) == ours


@given(st.text(characters))
def test_a_string_is_what_orjson_writes(text: str) -> None:
    assert string(text) == orjson.dumps(text)
    assert canonical(string(text)) == string(text)
    assert canonical(json.dumps(text)) == string(text)


@given(
    st.decimals(
        allow_nan=False,
        allow_infinity=False,
        min_value=Decimal("-1e300"),
        max_value=Decimal("1e300"),
        places=None,
    )
)
def test_a_number_keeps_its_value_and_has_no_exponent(value: Decimal) -> None:
    ours = number(str(value).encode()).decode()
    assert Decimal(ours) == value
    assert set(ours) <= set("-.0123456789")
    assert number(ours.encode()).decode() == ours


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_s_shortest_text_keeps_its_value(value: float) -> None:
    assert math.isclose(float(number(repr(value).encode())), value, rel_tol=0, abs_tol=0)


@given(st.text(max_size=30) | st.text('{}[]",:\\u0d8eE.-+1 \nntf', max_size=30))
def test_any_text_is_either_canonical_json_or_refused(text: str) -> None:
    try:
        ours = canonical(text)
    except NotJsonbError:
        return
    assert canonical(ours) == ours
    assert _exact(ours) == _exact(text)


@given(st.binary(max_size=20))
def test_any_bytes_are_either_canonical_json_or_refused(raw: bytes) -> None:
    try:
        assert canonical(canonical(raw)) == canonical(raw)
    except NotJsonbError:
        return
