"""Which blocks are stored by one statement, and what it is given."""

from __future__ import annotations

import pytest

from cdc_audit.sink import small_block


def test_sixteen_rows_of_sixteen_kilobytes_are_few_and_no_more() -> None:
    row = b"x" * 1023 + b"\n"
    assert small_block.fits(16 * row)
    assert not small_block.fits(16 * row + b"\n")
    assert not small_block.fits(b"x" * 16_384 + b"\n")


def test_a_lines_values_are_those_that_copy_would_read() -> None:
    lines = b"1\t\\N\t\t\\\\N\ta\\tb\\\\c\\n\n2\t\xc3\xa9\n"
    assert small_block.values(lines) == [["1", None, "", "\\N", "a\tb\\c\n"], ["2", "é"]]


def test_a_line_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        small_block.values(b"1\t\xff\n")
