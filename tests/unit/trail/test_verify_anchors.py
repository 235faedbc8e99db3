"""Anchors: written by the daemon, read by the verifier."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cdc_audit.errors import IncompleteEvidenceError, SettingError
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.sink.anchor import Anchors as Writer
from cdc_audit.sink.anchor import FileAnchor, anchor_line
from cdc_audit.trail.verify_anchors import Anchors
from tests.support.daemon import until
from tests.unit.seal.test_signature import A, B

AT = "2026-11-22 19:19:02+00"
ONE_KEY = {A.key_id: A.public}


def receipt(block: int, hash_: bytes = b"h" * 32, signature: bytes = b"") -> Receipt:
    header = Block(
        block, "data", 1, 0, "7", 1, "s", 1, 1, "", AT, b"", b"", "", A.key_id if signature else ""
    )
    return Receipt(header, hash_, 0.0, signature)


def anchor(block: int, hash_: bytes, schema: str = "audit", signature: bytes = b"") -> bytes:
    return anchor_line(schema, receipt(block, hash_, signature)) + b"\n"


def read(path: Path) -> dict[int, bytes]:
    anchors = Anchors("audit", {})
    with path.open("rb") as lines:
        anchors.read(lines, "file")
    return anchors.hashes


def test_anchors_are_read_as_the_daemon_writes_them() -> None:
    anchors = Anchors("audit", ONE_KEY)
    hash_ = b"h" * 32
    lines = [anchor(1, hash_), anchor(2, hash_, signature=A.sign(hash_)), anchor(3, hash_, "other")]
    anchors.read(lines, "file")
    assert (anchors.hashes, anchors.twice) == ({1: hash_, 2: hash_}, [])
    anchors.read([anchor(1, b"x" * 32)], "file")
    assert anchors.twice == [1]


def test_a_line_that_was_cut_short_is_passed_over_and_other_nonsense_is_not() -> None:
    good, torn = anchor(1, b"h" * 32), anchor(2, b"h" * 32)[:40]
    for lines in ([good, torn], [torn + b"\n", b"\n", good], [good, b"\n", b"\n"]):
        anchors = Anchors("audit", {})
        anchors.read(lines, "file")
        assert list(anchors.hashes) == [1]
    for lines in ([torn + b"\n", good], [good, torn + b"\n"], [b"{}\n"], [b"[1]\n", good]):
        with pytest.raises(IncompleteEvidenceError):
            Anchors("audit", {}).read(lines, "file")


def test_an_anchor_with_a_strangers_signature_is_no_evidence() -> None:
    hash_ = b"h" * 32
    with pytest.raises(IncompleteEvidenceError):
        Anchors("audit", ONE_KEY).read([anchor(1, hash_, signature=B.sign(hash_))], "file")
    with pytest.raises(IncompleteEvidenceError):
        Anchors("audit", {B.key_id: B.public}).read([anchor(1, hash_, signature=A.sign(hash_))], "file")


def test_the_newest_block_is_anchored_once_a_minute_and_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "anchors"

    async def scenario() -> None:
        anchors = Writer([f"file:{path}"], "audit", lambda target, reason: pytest.fail(reason))
        running = asyncio.create_task(anchors.run())
        anchors.note(receipt(1))
        await asyncio.to_thread(until, lambda: path.exists() and path.read_bytes().endswith(b"\n"), "a line")
        anchors.note(receipt(2))
        anchors.note(receipt(3))
        for _ in range(20):
            await asyncio.sleep(0)
        assert list(read(path)) == [1]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await anchors.flush()
        await anchors.flush()

    asyncio.run(scenario())
    assert list(read(path)) == [1, 3]
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_line_is_ended_so_that_the_next_one_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    path.write_bytes(anchor(1, b"h" * 32) + anchor(2, b"h" * 32)[:30])
    FileAnchor(f"file:{path}").append(anchor_line("audit", receipt(3)))
    assert list(read(path)) == [1, 3]


def test_one_target_that_fails_does_not_keep_others_from_it(tmp_path: Path) -> None:
    path, failed = tmp_path / "anchors", []

    async def scenario() -> None:
        targets = [f"file:{tmp_path}", f"file:{path}"]
        anchors = Writer(targets, "audit", lambda target, reason: failed.append((target, reason)))
        anchors.note(receipt(1))
        await anchors.flush()

    asyncio.run(scenario())
    assert failed == [(f"file:{tmp_path}", "Is a directory")]
    assert list(read(path)) == [1]


@pytest.mark.parametrize("target", ["https://elsewhere.example", "s3://bucket", "file:relative", "/path", ""])
def test_an_anchor_of_an_unknown_kind_is_refused(target: str) -> None:
    with pytest.raises(SettingError):
        FileAnchor(target)
