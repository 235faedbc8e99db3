"""Rows as COPY prints them, into rows of a snapshot."""

import pytest

from cdc_audit.decode.copied import CopiedRows
from cdc_audit.errors import StreamError
from cdc_audit.model.catalog import TableInfo, TypeInfo, TypeKind

PAIR = 70_000


def reader(*columns: tuple[str, int], key: tuple[str, ...] = (), encoding: str = "utf-8") -> CopiedRows:
    table = TableInfo("s", "leaf", ("s", "root"), "r", tuple((*one, False) for one in columns), key)
    pair = TypeInfo(PAIR, TypeKind.COMPOSITE, PAIR, fields=(("a", 23), ("b", 25)))
    return CopiedRows(table, {PAIR: pair}, encoding)


def test_a_shape_has_all_columns_and_the_key_and_names_root_and_leaf() -> None:
    shape = reader(("b", 23), ("p", PAIR), key=("b",)).shape
    assert shape[:6] == ("SNAPSHOT", "s", "root", "leaf", ("b", "p"), ())
    assert (shape.key, shape.nested) == (("b",), ("p",))


@pytest.mark.parametrize(
    ("field", "oid", "value"),
    [
        (b"\\N", 25, b"null"),
        (b"\\\\N", 25, b'"\\\\N"'),
        (b"", 25, b'""'),
        (b"a\\tb\\nc\\\\d", 25, b'"a\\tb\\nc\\\\d"'),
        (b"\\b\\v\\f\\r", 25, b'"\\b\\u000b\\f\\r"'),
        (b"12345.60", 1700, b"12345.60"),
        (b"NaN", 1700, b'"NaN"'),
        (b"t", 16, b"true"),
        (b"\\\\x00ff", 17, b'"\\\\x00ff"'),
        (b'(1,"x\\\\\\\\y")', PAIR, b'{"a": 1, "b": "x\\\\y"}'),
    ],
)
def test_a_field_is_what_to_jsonb_writes(field: bytes, oid: int, value: bytes) -> None:
    assert reader(("a", 23), ("v", oid)).row(b"1\t" + field)[1:] == ([b"1", value], [])


def test_bytes_are_in_the_servers_encoding() -> None:
    assert reader(("v", 25), encoding="latin-1").row(b"\xe9\\t")[1] == ['"é\\t"'.encode()]


def test_a_table_without_columns_has_empty_rows() -> None:
    assert reader().row(b"")[1] == []


def test_a_value_that_is_not_of_its_types_form_is_its_text_and_the_next_ones_are_as_always() -> None:
    rows = reader(("p", PAIR), ("n", 23))
    assert rows.row(b"(1)\t2")[1] == [b'"(1)"', b"2"]
    assert rows.row(b"(1,x)\t2")[1] == [b'{"a": 1, "b": "x"}', b"2"]


def test_a_row_with_other_columns_is_an_error_that_tells_no_value() -> None:
    with pytest.raises(StreamError) as caught:
        reader(("a", 23), ("b", 25)).row(b"1\tcanary\t3")
    assert "s.leaf" in caught.value.message
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error)
        error = error.__cause__ or error.__context__
