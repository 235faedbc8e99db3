"""How a block's rows become a data file, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from cdc_audit.seal import parquet
from cdc_audit.sink import lake


def line(number: int) -> bytes:
    """A row of 24 fields, both lists null."""
    row = [b"%d" % number, b"2026-11-29 12:00:00+00", *[b"x"] * 6, b"\\N", *[b"x"] * 9, b"\\N"]
    fields = [*row, b"x", b"7", b"0/1", b"1"]
    return b"\t".join((*fields, b"\\\\x" + b"ab" * 32)) + b"\n"


@pytest.mark.parametrize("rows_of_a_piece", [1, 100, 9_000])
def test_rows_are_taken_into_arrow_by_the_thousand_whatever_the_pieces_they_come_in(
    rows_of_a_piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Counted(parquet.RowsFile):
        def write(self, lines: Sequence[bytes]) -> Any:
            taken.append(len(lines))
            assert len(taken) <= 6, "each takes as long as thousands of rows"
            return super().write(lines)

    monkeypatch.setattr(lake, "RowsFile", Counted)
    table = SimpleNamespace(io=PyArrowFileIO(), location=lambda: str(tmp_path))
    lines = [line(number) for number in range(1, 9_001)]
    file = lake._DataFile(table, "2026-11")
    for start in range(0, len(lines), rows_of_a_piece):
        file.write(b"".join(lines[start : start + rows_of_a_piece]))
    path = file.close()
    assert sum(taken) == len(lines)
    assert max(taken) <= 2_000
    with Path(path).open("rb") as stored:
        assert list(parquet.read_rows(stored)) == lines
