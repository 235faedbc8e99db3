from __future__ import annotations

import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.decode.built_in_types import ARRAYS, SCALARS
from cdc_audit.decode.values import ValueFormatError, from_text, from_wal2json
from cdc_audit.errors import UnknownTypeError
from cdc_audit.model.catalog import TypeInfo, TypeKind

MOOD, MOODS, PAIR, PAIRS, MIXED, GONE, NOTHING = range(20000, 20007)
POSITIVE, FLAG, BLOB, LABEL, MOMENT, INTS, SOME_PAIR, DOC, INDEXES, TEMPER, LOCAL = range(20100, 20111)
TYPES: dict[int, TypeInfo | None] = {
    MOOD: TypeInfo(MOOD, TypeKind.SCALAR, MOOD),
    MOODS: TypeInfo(MOODS, TypeKind.ARRAY, MOODS, element=MOOD),
    PAIR: TypeInfo(PAIR, TypeKind.COMPOSITE, PAIR, fields=(("bb", 25), ("z", 23), ("a", 16), ("é", 17))),
    PAIRS: TypeInfo(PAIRS, TypeKind.ARRAY, PAIRS, element=PAIR),
    MIXED: TypeInfo(MIXED, TypeKind.COMPOSITE, MIXED, fields=(("pairs", PAIRS), ("j", 114))),
    NOTHING: TypeInfo(NOTHING, TypeKind.COMPOSITE, NOTHING),
    GONE: None,
    POSITIVE: TypeInfo(POSITIVE, TypeKind.SCALAR, 23, is_domain=True),
    FLAG: TypeInfo(FLAG, TypeKind.SCALAR, 16, is_domain=True),
    BLOB: TypeInfo(BLOB, TypeKind.SCALAR, 17, is_domain=True),
    LABEL: TypeInfo(LABEL, TypeKind.SCALAR, 1043, is_domain=True),
    MOMENT: TypeInfo(MOMENT, TypeKind.SCALAR, 1184, is_domain=True),
    LOCAL: TypeInfo(LOCAL, TypeKind.SCALAR, 1114, is_domain=True),
    INTS: TypeInfo(INTS, TypeKind.ARRAY, 1007, element=23, is_domain=True),
    INDEXES: TypeInfo(INDEXES, TypeKind.ARRAY, 22, element=21, delimiter=" ", is_domain=True),
    SOME_PAIR: TypeInfo(
        SOME_PAIR,
        TypeKind.COMPOSITE,
        PAIR,
        fields=(("bb", 25), ("z", 23), ("a", 16), ("é", 17)),
        is_domain=True,
    ),
    DOC: TypeInfo(DOC, TypeKind.SCALAR, 3802, is_domain=True),
    TEMPER: TypeInfo(TEMPER, TypeKind.SCALAR, MOOD, is_domain=True),
}

# What the token in a wal2json line becomes
TOKENS = [
    (21, "-5", "-5"),
    (20, "9223372036854775807", "9223372036854775807"),
    (1700, "12345.60", "12345.60"),
    (16, "true", "true"),
    (25, '"a \\"b\\" \\\\ \\n\\u0001\x7f/é"', '"a \\"b\\" \\\\ \\n\\u0001\x7f/é"'),
    (2950, '"a0ee"', '"a0ee"'),
    (1082, '"0044-03-15 BC"', '"0044-03-15 BC"'),
    (701, "1.5", "1.5"),
    (701, "-1.5", "-1.5"),
    (701, "1e+300", "1" + "0" * 300),
    (701, "-2.5e-07", "-0.00000025"),
    (700, "-0", "0"),
    (26, "4294967295", '"4294967295"'),
    (17, '"dead"', '"\\\\xdead"'),
    (17, '""', '"\\\\x"'),
    (1114, '"2024-02-29 01:02:03.5"', '"2024-02-29T01:02:03.5"'),
    (1114, '"0044-03-15 12:00:00 BC"', '"0044-03-15T12:00:00 BC"'),
    (1114, '"infinity"', '"infinity"'),
    (1184, '"2024-02-29 01:02:03.5+00"', '"2024-02-29T01:02:03.5+00:00"'),
    (1184, '"10000-01-01 00:00:01+00"', '"10000-01-01T00:00:01+00:00"'),
    (1184, '"0044-03-15 12:00:00+00 BC"', '"0044-03-15T12:00:00+00:00 BC"'),
    (1184, '"-infinity"', '"-infinity"'),
    (1184, '"2024-02-29 01:02:03-03"', '"2024-02-29T01:02:03-03:00"'),
    (1184, '"2024-02-29 01:02:03+05:30"', '"2024-02-29T01:02:03+05:30"'),
    (1184, '"1850-01-01 00:00:00+05:53:28"', '"1850-01-01T00:00:00+05:53:28"'),
    (3802, '"{\\"a\\": \\"\\\\\\"\\\\n\\", \\"b\\": 1.50}"', '{"a": "\\"\\n", "b": 1.50}'),
    (3802, '"null"', "null"),
    (114, '"{\\"b\\":1.50, \\"a\\":1e2}"', '{"a": 100, "b": 1.50}'),
    (114, '"null"', "null"),
    (114, '"\\"\\\\u0000\\""', '"\\"\\\\u0000\\""'),
    (114, '"[\\"\\\\ud800\\"]"', '"[\\"\\\\ud800\\"]"'),
    (1007, '"{1,NULL,-3}"', "[1, null, -3]"),
    (1007, '"[0:1]={1,2}"', "[1, 2]"),
    (1007, '"{}"', "[]"),
    (1016, '"{{1,2},{3,4}}"', "[[1, 2], [3, 4]]"),
    (1231, '"{1.50,NaN,-Infinity,NULL,-0.5}"', '[1.50, "NaN", "-Infinity", null, -0.5]'),
    (1022, '"{-0,0.1}"', "[0, 0.1]"),
    (1022, '"{1e+30,-0,0.1}"', "[1" + "0" * 30 + ", 0, 0.1]"),
    (1009,
     '"{a,\\"b c\\",NULL,\\"NULL\\",\\"\\",\\"q\\\\\\"\\\\\\\\\\"}"',
     '["a", "b c", null, "NULL", "", "q\\"\\\\"]'),
    (1001, '"{\\"\\\\\\\\x00ff\\"}"', '["\\\\x00ff"]'),
    (1000, '"{t,f,NULL}"', "[true, false, null]"),
    (1185, '"{\\"2024-01-01 00:00:00+00\\",infinity}"', '["2024-01-01T00:00:00+00:00", "infinity"]'),
    (3807, '"{\\"{\\\\\\"a\\\\\\": 1.50}\\",5}"', '[{"a": 1.50}, 5]'),
    (1020, '"{(1,1),(0,0);NULL}"', '["(1,1),(0,0)", null]'),
    (22, '"1 -2"', "[1, -2]"),
    (30, '"1 2"', '["1", "2"]'),
    (1006, '"{\\"1 2\\",\\"3\\"}"', "[[1, 2], [3]]"),
    (MOOD, '"so so"', '"so so"'),
    (MOODS, '"{ok,\\"so so\\",NULL}"', '["ok", "so so", null]'),
    (PAIR,
     '"(\\"a \\"\\"b\\"\\"\\",5,t,\\"\\\\\\\\xdead\\")"',
     '{"a": true, "z": 5, "bb": "a \\"b\\"", "é": "\\\\xdead"}'),
    (PAIR, '"(,,,)"', '{"a": null, "z": null, "bb": null, "é": null}'),
    (PAIR, '"(\\"\\",,f,)"', '{"a": false, "z": null, "bb": "", "é": null}'),
    (PAIRS, '"{\\"(x,1,t,)\\",NULL}"', '[{"a": true, "z": 1, "bb": "x", "é": null}, null]'),
    (MIXED, '"(\\"{\\"\\"(x,1,t,)\\"\\"}\\",\\"{\\"\\"b\\"\\":1}\\")"',
     '{"j": {"b": 1}, "pairs": [{"a": true, "z": 1, "bb": "x", "é": null}]}'),
    (NOTHING, '"()"', "{}"),
    (GONE, '"what it was"', '"what it was"'),
    (POSITIVE, '"7"', "7"),
    (FLAG, '"t"', "true"),
    (BLOB, '"\\\\xdead"', '"\\\\xdead"'),
    (LABEL, '"x"', '"x"'),
    (MOMENT, '"2024-01-01 00:00:00+00"', '"2024-01-01T00:00:00+00:00"'),
    (LOCAL, '"2024-01-01 00:00:00"', '"2024-01-01T00:00:00"'),
    (INTS, '"{1,2}"', "[1, 2]"),
    (INDEXES, '"1 2"', "[1, 2]"),
    (SOME_PAIR, '"(x,1,t,)"', '{"a": true, "z": 1, "bb": "x", "é": null}'),
    (DOC, '"{\\"a\\": 1}"', '{"a": 1}'),
    (TEMPER, '"ok"', '"ok"'),
]  # fmt: skip

# What the text of a type's output function becomes, where wal2json's token isn't that text
TEXTS = [
    (23, "-12", "-12"),
    (23, "7", "7"),
    (1700, "12345.60", "12345.60"),
    (1700, "-0.50", "-0.50"),
    (1700, "NaN", '"NaN"'),
    (701, "-Infinity", '"-Infinity"'),
    (701, "1e-07", "0.0000001"),
    (701, "-0", "0"),
    (16, "t", "true"),
    (16, "f", "false"),
    (26, "12", '"12"'),
    (17, "\\xdead", '"\\\\xdead"'),
    (25, 'a"\n', '"a\\"\\n"'),
    (1184, "2024-01-01 00:00:00+00", '"2024-01-01T00:00:00+00:00"'),
    (1184, "0044-03-15 12:00:00+00 BC", '"0044-03-15T12:00:00+00:00 BC"'),
    (3802, '{"a": 1.50}', '{"a": 1.50}'),
    (114, '{"a":1.50}', '{"a": 1.50}'),
    (114, '"\\u0000"', '"\\"\\\\u0000\\""'),
]  # fmt: skip

QUOTED_NUMBERS = [
    (23, '"12"', "12"),
    (23, "12", "12"),
    (1700, '"-12.50"', "-12.50"),
    (1700, '"NaN"', '"NaN"'),
    (1700, '"-Infinity"', '"-Infinity"'),
    (701, '"1e+30"', "1" + "0" * 30),
    (701, '"Infinity"', '"Infinity"'),
    (26, '"12"', '"12"'),
    (1231, '"{1.50,NaN}"', '[1.50, "NaN"]'),
    (16, "true", "true"),
    (POSITIVE, '"7"', "7"),
]  # fmt: skip


def converted(type_oid: int, token: str, *, quoted_numbers: bool = False) -> str:
    convert = from_wal2json(type_oid, TYPES, quoted_numbers=quoted_numbers)
    return convert(token.encode()).decode() if convert else token


@pytest.mark.parametrize(("type_oid", "token", "expected"), TOKENS)
def test_a_token_becomes_what_to_jsonb_writes(type_oid: int, token: str, expected: str) -> None:
    assert converted(type_oid, token) == expected


@pytest.mark.parametrize(("type_oid", "text", "expected"), TEXTS)
def test_a_text_becomes_what_to_jsonb_writes(type_oid: int, text: str, expected: str) -> None:
    assert from_text(type_oid, TYPES)(text).decode() == expected


@pytest.mark.parametrize(("type_oid", "token", "expected"), QUOTED_NUMBERS)
def test_a_number_in_quotes_becomes_a_number_again_and_nan_stays_a_string(
    type_oid: int, token: str, expected: str
) -> None:
    assert converted(type_oid, token, quoted_numbers=True) == expected


@pytest.mark.parametrize("type_oid", sorted({*SCALARS, *ARRAYS, *TYPES}))
@pytest.mark.parametrize("quoted_numbers", [False, True])
def test_null_stays_null_for_every_type(type_oid: int, quoted_numbers: bool) -> None:
    assert converted(type_oid, "null", quoted_numbers=quoted_numbers) == "null"


@pytest.mark.parametrize(
    "type_oid",
    [16, 20, 21, 23, 25, 1043, 1042, 19, 1082, 1083, 1186, 1700, 2950, 869, MOOD, LABEL, BLOB, GONE],
)
def test_the_common_types_need_no_converter(type_oid: int) -> None:
    assert from_wal2json(type_oid, TYPES) is None


@pytest.mark.parametrize("make", [from_wal2json, from_text])
@pytest.mark.parametrize(
    ("type_oid", "without", "missing"),
    [
        (30000, (), {30000}),
        (83, (), {83}),
        (9999, (), {9999}),
        (MOODS, (MOOD,), {MOOD}),
        (MIXED, (PAIR, 114), {PAIR}),
        (MIXED, (MIXED,), {MIXED}),
        (TEMPER, (MOOD,), {MOOD}),
        (30001, (PAIRS, MOODS), {PAIRS, MOODS}),
    ],
)  # fmt: skip
def test_all_types_that_are_not_known_are_named_at_once(
    make: Callable[..., object], type_oid: int, without: tuple[int, ...], missing: set[int]
) -> None:
    both = TypeInfo(30001, TypeKind.COMPOSITE, 30001, fields=(("a", PAIRS), ("b", MOODS)))
    known = {oid: info for oid, info in {**TYPES, 30001: both}.items() if oid not in without}
    with pytest.raises(UnknownTypeError) as error:
        make(type_oid, known)
    assert error.value.type_oids == missing
    assert error.value.tables == frozenset()


def test_a_type_that_contains_itself_is_refused() -> None:
    knot = {50000: TypeInfo(50000, TypeKind.ARRAY, 50000, element=50000)}
    with pytest.raises(ValueFormatError):
        from_text(50000, knot)


# fmt: off
MALFORMED_TEXTS = {
    16: ["true", ""],
    23: ["", "x"],
    1700: ["1.2.3", "\uff11"],
    701: ["e"],
    25: ["\0", "\ud800"],
    3802: ["\ud800"],
    22: ["x"],
    1000: ["{x}"],
    1007: ["", "1", "{", "}", "{1", "{1}}", "{{1}", "{1,}", "{,1}", "{1,,2}", "{1}{2}", "[0:1]",
           "[0:1]=1", "{x}", "{1}x"],
    1009: ['{"a}', '{"a"b}', '{a"b"}', '{"a""b"}', "{a\\b}", '{"a\\n"}', '{"a\0b\\\\"}',
           '{a"b",,c}', "{a,{b}}}", '{{a}"b"}', "{{{{{{{1}}}}}}}"],
    PAIR: ["", "()", "(1,2)", "(,,,", ",,,)", '("a,,,)', '("a"b,,,)', "(,x,,)", "(,,,,)",
           '("', '("a"', '("a")'],
}
# fmt: on


@pytest.mark.parametrize(
    ("type_oid", "text"), [(type_oid, text) for type_oid, texts in MALFORMED_TEXTS.items() for text in texts]
)
def test_malformed_text_is_refused_with_one_error(type_oid: int, text: str) -> None:
    with pytest.raises(ValueFormatError):
        from_text(type_oid, TYPES)(text)


@pytest.mark.parametrize(
    "type_oid", [26, 114, 3802, 1007, 1009, 22, 700, 701, 1184, PAIR, MOODS, POSITIVE, FLAG]
)
@pytest.mark.parametrize(
    "token", [b"", b'"', b"x", b"[]", b'{"a":1}', b'"\xff"', b"nul", b"truth", b'"a', b"\\"]
)
def test_a_malformed_token_is_refused_with_one_error(type_oid: int, token: bytes) -> None:
    convert = from_wal2json(type_oid, TYPES)
    assert convert
    with pytest.raises(ValueFormatError):
        convert(token)


def test_an_error_never_holds_the_value() -> None:
    for type_oid, text in [
        (16, "canary"),
        (1700, "canary"),
        (1007, "{canary}"),
        (1009, '{"canary}'),
        (PAIR, "(canary)"),
    ]:
        with pytest.raises(ValueFormatError) as error:
            from_text(type_oid, TYPES)(text)
        assert "canary" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None
        convert = from_wal2json(26, TYPES)
        assert convert
        with pytest.raises(ValueFormatError) as error:
            convert(text.encode())
        assert "canary" not in str(error.value)


def test_a_large_array_needs_neither_recursion_nor_much_time() -> None:
    texts = ["a", 'b "c"', "", "\\", "NULL"] * 8_000
    assert from_text(1009, {})("{" + ",".join(_array_item(text) for text in texts) + "}") == _spaced(texts)
    assert from_text(1009, {})('{"' + '\\"' * 100_000 + '"}') == b'["' + b'\\"' * 100_000 + b'"]'
    assert from_text(PAIR, TYPES)('("' + '""' * 100_000 + '",,,)').count(b'\\"') == 100_000


def _array_item(text: str | None) -> str:
    """array_out's rules, written once more."""
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    needs_quotes = (
        not text or text.upper() == "NULL" or any(c in '{},"\\' or c in " \t\n\r\v\f" for c in text)
    )
    return f'"{escaped}"' if needs_quotes else escaped


def _field(text: str | None) -> str:
    """record_out's rules, written once more."""
    if text is None:
        return ""
    doubled = text.replace("\\", "\\\\").replace('"', '""')
    return f'"{doubled}"' if not text or any(c in '(),"\\' or c in " \t\n\r\v\f" for c in text) else doubled


def _spaced(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


characters = st.characters(exclude_characters="\0", codec="utf-8")
hostile = st.text(st.one_of(st.sampled_from('{}(),"\\; \nNUL\x01\x7f'), characters), max_size=8)
optional = st.none() | hostile


@given(st.lists(optional, max_size=6))
def test_any_text_array_is_read_back(items: list[str | None]) -> None:
    text = "{" + ",".join(map(_array_item, items)) + "}"
    assert from_text(1009, {})(text) == _joined(items)
    convert = from_wal2json(1009, {})
    assert convert
    assert convert(orjson.dumps(text)) == _joined(items)


@given(st.lists(st.tuples(optional, optional), min_size=1, max_size=4))
def test_any_two_dimensional_text_array_is_read_back(rows: list[tuple[str | None, str | None]]) -> None:
    text = "{" + ",".join("{" + ",".join(map(_array_item, row)) + "}" for row in rows) + "}"
    assert from_text(1009, {})(text) == b"[" + b", ".join(_joined(row) for row in rows) + b"]"


@given(optional, optional)
def test_any_composite_of_texts_and_any_array_of_it_are_read_back(
    first: str | None, second: str | None
) -> None:
    types = {
        1 << 20: TypeInfo(1 << 20, TypeKind.COMPOSITE, 1 << 20, fields=(("b", 25), ("a", 25))),
        1 << 21: TypeInfo(1 << 21, TypeKind.ARRAY, 1 << 21, element=1 << 20),
    }
    text = f"({_field(first)},{_field(second)})"
    expected = b'{"a": ' + orjson.dumps(second) + b', "b": ' + orjson.dumps(first) + b"}"
    assert from_text(1 << 20, types)(text) == expected
    assert from_text(1 << 21, types)("{" + _array_item(text) + ",NULL}") == b"[" + expected + b", null]"


def _joined(items: list[str | None] | tuple[str | None, ...]) -> bytes:
    return b"[" + b", ".join(map(orjson.dumps, items)) + b"]"


@given(
    st.sampled_from(sorted({*SCALARS, *ARRAYS, *TYPES})),
    st.text(max_size=12) | st.text('{}(),"\\1e.-NULnat \0', max_size=12),
)
def test_any_text_for_any_type_is_converted_or_refused_with_one_error(type_oid: int, text: str) -> None:
    try:
        assert type(from_text(type_oid, TYPES)(text)) is bytes
    except ValueFormatError:
        return


@given(
    st.sampled_from(sorted({*SCALARS, *ARRAYS, *TYPES})),
    st.binary(max_size=12) | st.text(max_size=9).map(json.dumps).map(str.encode),
    st.booleans(),
)
def test_any_token_for_any_type_is_converted_or_refused_with_one_error(
    type_oid: int, token: bytes, quoted_numbers: bool
) -> None:
    convert = from_wal2json(type_oid, TYPES, quoted_numbers=quoted_numbers)
    try:
        assert convert is None or type(convert(token)) is bytes
    except ValueFormatError:
        return
