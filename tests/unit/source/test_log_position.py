"""Which file is which, what of it is taken, and which transactions are waited for: decisions without any file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.model.read import LogFile, Taken
from cdc_audit.source import log_position
from cdc_audit.source.log_position import fingerprint, first_open, is_open, last_line_end, whole_lines

OLD, NEW = (LogFile(name.encode(), f"{name}.json", 100, time) for name, time in (("old", 10), ("new", 20)))


def test_a_file_is_known_by_its_first_line_alone_and_not_before_that_is_there() -> None:
    first = b'{"timestamp":"2026-11-28 12:00:00.001 UTC","pid":1}'
    assert fingerprint(first + b"\n") == fingerprint(first + b"\nmore\nand more")
    assert fingerprint(first) is None
    assert fingerprint(b"") is None
    assert fingerprint(first + b"\n") != fingerprint(first.replace(b"001", b"002") + b"\n")
    long = b"x" * log_position.HEAD_BYTES
    assert fingerprint(long) == fingerprint(long) is not None


@given(
    st.lists(st.sampled_from([b"", b"a", b"long line"]), max_size=9),
    st.lists(st.integers(1, 30)),
    st.integers(0, 99),
)
def test_each_line_is_taken_once_wherever_reading_stopped(
    lines: list[bytes], sizes: list[int], start: int
) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    taken: list[bytes] = []
    position = 0
    for size in [*sizes, len(whole)]:
        block = whole_lines(whole[position : position + size], start + position, with_rest=False)
        taken += block.lines
        position = block.ends[-1] - start if block.ends else position
    assert taken == lines


def test_the_rest_after_the_last_newline_is_a_line_only_where_its_end_will_never_come() -> None:
    assert whole_lines(b"a\nbc", 10, with_rest=False) == ((b"a",), (12,))
    assert whole_lines(b"a\nbc", 10, with_rest=True) == ((b"a", b"bc"), (12, 14))
    assert whole_lines(b"a\n", 10, with_rest=True) == ((b"a",), (12,))
    assert whole_lines(b"", 10, with_rest=True) == ((), ())


def test_a_last_line_is_found_in_a_files_tail() -> None:
    assert last_line_end(b"a\nbc", 100) == 98
    assert last_line_end(b"bc", 100) == 0
    assert last_line_end(b"a\n", 100) == 100


def test_only_a_file_that_was_not_over_can_be_missed() -> None:
    known = [Taken(b"old", "old.json", 100, True), Taken(b"new", "new.json", 50, False)]
    assert log_position.gone(known, []) == known[1:]
    assert log_position.gone(known, [NEW]) == []


def test_files_are_taken_in_the_order_of_their_writing_and_what_waits_is_counted() -> None:
    assert log_position.in_order([NEW, OLD]) == [OLD, NEW]
    assert log_position.last_written([NEW, OLD]) == 20
    assert log_position.behind([OLD, NEW], {b"old": Taken(b"old", "x", 90, False)}) == 110


def test_open_transactions_are_told_by_32_bits_also_where_the_ids_begin_again() -> None:
    assert is_open("100:105:100,103", 100)
    assert not is_open("100:105:100,103", 102)
    assert not is_open("100:105:100,103", 99)
    assert is_open("100:105:", 107)
    assert is_open("8589934590:8589934595:8589934590,8589934593", 0xFFFFFFFE)
    assert not is_open("8589934590:8589934595:8589934590,8589934593", 0xFFFFFFFF)
    assert is_open("8589934590:8589934595:8589934590,8589934593", 1)
    assert first_open("100:105:103", [0, 102, 103, 104]) == 2
    assert first_open("100:105:", [0, 102, 0]) == 3
