"""pgoutput's transactions come whole, with the end position in front, in flat memory."""

import struct

import pytest

from cdc_audit.errors import StreamError
from cdc_audit.pipeline import spool as spool_module
from cdc_audit.pipeline.spool import Spool

BEGIN = struct.pack(">cQqI", b"B", 100, 0, 7)
COMMIT = struct.pack(">cBQQq", b"C", 0, 100, 130, 0)


def messages(spool: Spool, items: list[bytes]) -> list[object]:
    return [message for piece in spool.feed(items) for message in piece]


def test_nothing_of_a_transaction_comes_before_its_commit_and_then_all_with_its_end_in_front() -> None:
    spool = Spool()
    assert messages(spool, [BEGIN, b"I1"]) == []
    assert spool.is_holding
    assert messages(spool, [b"I2", COMMIT]) == [BEGIN + (130).to_bytes(8, "big"), b"I1", b"I2", COMMIT]


def test_what_stands_between_transactions_passes_in_its_place() -> None:
    items = [b"M1", BEGIN, b"I1", COMMIT, b"M2", BEGIN]
    assert messages(Spool(), items) == [b"M1", BEGIN + (130).to_bytes(8, "big"), b"I1", COMMIT, b"M2"]


def test_a_transaction_larger_than_memory_comes_back_from_the_file_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool_module, "_MEMORY_BYTES", 1000)
    monkeypatch.setattr(spool_module, "_PIECE_BYTES", 300)
    spool = Spool()
    rows = [b"I%d" % n + b"x" * (n % 50) for n in range(500)]
    assert messages(spool, [BEGIN, *rows]) == []
    pieces = list(spool.feed([COMMIT]))
    assert [message for piece in pieces for message in piece] == [
        BEGIN + (130).to_bytes(8, "big"),
        *rows,
        COMMIT,
    ]
    assert max(sum(map(len, piece)) for piece in pieces if isinstance(piece[0:1], list)) < 1500
    assert messages(spool, [BEGIN, b"I", COMMIT])[1:] == [b"I", COMMIT]


def test_short_transactions_share_a_piece_and_long_ones_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool_module, "_PIECE_MESSAGES", 8)
    short, long = [BEGIN, b"I", COMMIT], [BEGIN, *([b"L"] * 20), COMMIT]
    pieces = list(Spool().feed([*short, *short, *short, b"M", *long, *short]))
    assert [len(piece) for piece in pieces if piece] == [3 * 3 + 1, 1, 8, 8, 5, 3]
    marked = BEGIN + (130).to_bytes(8, "big")
    given = [message for piece in pieces for message in piece]
    short, long = [marked, *short[1:]], [marked, *long[1:]]
    assert given == [*short, *short, *short, b"M", *long, *short]


def test_what_came_before_a_commit_that_was_cut_is_given_first() -> None:
    pieces = Spool().feed([BEGIN, b"I", COMMIT, BEGIN, COMMIT[:-1]])
    assert next(pieces) == [BEGIN + (130).to_bytes(8, "big"), b"I", COMMIT]
    with pytest.raises(StreamError):
        list(pieces)


def test_a_commit_that_was_cut_is_refused() -> None:
    with pytest.raises(StreamError):
        messages(Spool(), [BEGIN, COMMIT[:-1]])
