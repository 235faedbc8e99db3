"""Openings against headers and rows: what is erased, what is put back, what is gone."""

from __future__ import annotations

from hashlib import sha256

import pytest

from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import NO_HASH, block_hash, header_line
from cdc_audit.seal.personal import Erasure, detail
from cdc_audit.trail.verify_chain import Header
from cdc_audit.trail.verify_findings import Findings
from cdc_audit.trail.verify_personal import Erased, Openings
from cdc_audit.trail.verify_rows import spans

AT = "2026-11-22 19:19:02+00"
SALT, VALUE = bytes(range(16)), b'"Zo\xc3\xab \\\\n"'
COMMITTED = sha256(b"\3" + SALT + VALUE).hexdigest().encode()


def opening(
    row_id: int, part: bytes = b"new_data", *, gone: bool = False, stands: bytes = COMMITTED
) -> bytes:
    opened = b"\\N\t\\N" if gone else b"\\\\x%b\t%b" % (SALT.hex().encode(), VALUE.replace(b"\\", b"\\\\"))
    return b"%d\t%b\tname\t\\\\x%b\t%b\tpersonal:%b\n" % (row_id, part, COMMITTED, opened, stands)


def headers(*counts: int, text: str | None = None) -> list[Header]:
    """Data blocks of two rows each, from row 1 on, with so many openings: of their first rows' new_data."""
    found = []
    for number, count in enumerate(counts):
        first = 1 + 2 * number
        said = b"".join(b"%d\tnew_data\tname\t%b\n" % (first + n, COMMITTED) for n in range(count))
        personal = text or (detail(count, sha256(said).digest()) if count else "")
        block = Block(
            number + 1, "data", first, 2, "7", 1, "s", 1, 1, AT, AT, bytes(32), NO_HASH, personal, ""
        )
        hash_ = block_hash(block)
        found.append(Header(block.block, header_line(block), block, hash_, hash_, b""))
    return found


def checked(
    blocks: list[Header],
    *rows: bytes,
    erased: tuple[Erasure, ...] = (),
    retired: tuple[tuple[int, int], ...] = (),
) -> tuple[list[str], Openings]:
    findings = Findings()
    held = spans(blocks, block=1, first=1, end_block=None)
    checker = Openings(findings, held, blocks, Erased(erased), retired)
    checker.check(rows)
    checker.finish()
    return [str(one) for one in findings.sorted()], checker


def test_openings_that_are_as_the_headers_say_are_whole() -> None:
    found, checker = checked(headers(2, 0, 1), opening(1), opening(2), opening(5))
    assert (found, checker.count, checker.erased_values) == ([], 3, 0)


def test_what_an_erasure_names_is_erased_and_counted() -> None:
    erasures = (Erasure(("new_data", "old_data"), ((2, 2), (5, 9))), Erasure(("context",), ((1, 1),)))
    found, checker = checked(
        headers(2, 0, 1), opening(1), opening(2, gone=True), opening(5, gone=True), erased=erasures
    )
    assert (found, checker.erased_values, checker.erased_rows) == ([], 2, 2)


def test_a_value_that_was_put_back_is_an_alteration() -> None:
    found, _ = checked(headers(1), opening(1), erased=(Erasure(("new_data",), ((1, 1),)),))
    assert found == [
        "altered: row 1: a personal value of its new_data is there, although an erasure block names it"
    ]


@pytest.mark.parametrize(
    "erased", [(), (Erasure(("old_data",), ((1, 1),)),), (Erasure(("new_data",), ((2, 2),)),)]
)
def test_a_value_that_is_gone_without_a_block_that_names_it_was_removed(erased: tuple[Erasure, ...]) -> None:
    found, _ = checked(headers(1), opening(1, gone=True), erased=erased)
    assert found == ["removed: row 1: a personal value of its new_data is gone without an erasure block"]


def test_openings_of_a_block_that_says_nothing_of_any_are_inserted_whatever_the_row_holds() -> None:
    found, _ = checked(headers(0), opening(1))
    assert found == [
        "inserted: block 1: openings of personal values are not what its header says: 1, it says 0"
    ]


def test_a_row_whose_text_only_looks_like_a_commitment_is_nothing() -> None:
    assert checked(headers(0, 0))[0] == []


def test_openings_of_rows_that_retention_took_out_are_counted_as_ever() -> None:
    rows = opening(1), opening(2)
    absent = [row[: row.rindex(b"\t")] + b"\t\\N\n" for row in rows]
    assert checked(headers(2), *absent, retired=((1, 2),))[0] == []
    for retired, which in (((), "rows 1-2"), (((2, 2),), "row 1")):
        what = f"altered: {which}: a commitment of its new_data does not stand in the row"
        assert checked(headers(2), *absent, retired=retired)[0] == [what]
    for there in ((), absent[:1]):
        found, _ = checked(headers(2), *there, retired=((1, 2),))
        what = f"openings of personal values are not what its header says: {len(there)}, it says 2"
        assert found == [f"removed: block 1: {what}"]


def test_a_detail_that_cannot_be_read_is_named() -> None:
    found, _ = checked(headers(0, text='{"personal": 7}'))
    assert found == ["chain broken: block 1: its detail can't be read"]


def test_ranges_of_erasures_are_one_set_of_rows() -> None:
    erased = Erased([Erasure(("context",), ((5, 9), (20, 20))), Erasure(("context",), ((1, 6), (10, 10)))])
    assert [n for n in range(30) if erased.names(n, "context")] == [*range(1, 11), 20]
    assert not erased.names(5, "new_data")
