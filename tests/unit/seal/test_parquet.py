"""Rows go into Parquet and come back to the byte, whatever they hold; other engines read the values that stood there."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as reader

from cdc_audit.seal import parquet
from cdc_audit.seal.copy_text import array, field
from cdc_audit.sink.ledger import timestamp

Row: TypeAlias = tuple[str, list[str | None], list[str] | None, list[str] | None, int | None]
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
times = st.integers(0, 30 * 86_400 * 10**6).map(
    lambda micro: timestamp(BEGIN + timedelta(microseconds=micro))
)
arrays = st.none() | st.lists(texts, max_size=4)
rows = st.tuples(
    times,
    st.lists(st.none() | texts, min_size=18, max_size=18),
    arrays,
    arrays,
    st.none() | st.integers(0, 2**32),
)


def line(number: int, row: Row) -> bytes:
    """A row as COPY prints it, put together by the format's own rules."""
    at, plain, changed, toast, xid = row
    values = [field(text) for text in plain]
    lists = [b"\\N" if one is None else array(one) for one in (changed, toast)]
    fields = [
        b"%d" % number, at.encode(), *values[:6], lists[0], *values[6:15], lists[1], values[15],
        b"\\N" if xid is None else b"%d" % xid, field("16/B374D848"), b"1",
    ]  # fmt: skip
    text = b"\t".join(fields)
    return b"%b\t\\\\x%b\n" % (text, sha256(b"\0" + text).hexdigest().encode())


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8))
def test_rows_come_back_to_the_byte(
    given_rows: list[Row],
) -> None:
    lines = [line(number, row) for number, row in enumerate(given_rows, 1)]
    file = io.BytesIO()
    seen: list[int] = []
    parquet.write_rows(file, lines, lambda table: seen.append(table.num_rows))
    assert list(parquet.read_rows(file)) == lines
    assert sum(seen) == len(lines)
    back = reader.read_table(file).to_pylist()
    assert [one["changed_fields"] for one in back] == [row[2] for row in given_rows]
    assert [one["record_id"] for one in back] == [row[1][2] for row in given_rows]


def test_row_groups_are_small_and_their_statistics_and_filters_serve_look_ups() -> None:
    row: Row = ("2025-01-07 11:22:33.5+00", ["x"] * 18, None, None, 7)
    file = io.BytesIO()
    parquet.write_rows(file, (line(number, row) for number in range(1, 120_001)), lambda table: None)
    found = reader.ParquetFile(file).metadata
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    assert [group.num_rows for group in groups] == [50_000, 50_000, 20_000]
    assert [group.column(0).statistics.max for group in groups] == [50_000, 100_000, 120_000]
    assert all(group.column(1).statistics.has_min_max for group in groups)
    assert all(group.column(0).compression == "ZSTD" for group in groups)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nothing of the kind", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_file_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        list(parquet.read_rows(io.BytesIO(content)))
    with pytest.raises(ValueError, match="not a"):
        list(parquet.read_blocks(io.BytesIO(content)))
