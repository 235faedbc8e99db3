"""Anchors: written by the daemon, read by the verifier."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cdc_audit.errors import IncompleteEvidenceError, SettingError, UsageError
from cdc_audit.model.anchor import FileTarget
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.sink import anchor as sink_anchor
from cdc_audit.sink.anchor import Anchors as Writer
from cdc_audit.sink.anchor import anchor_line
from cdc_audit.sink.anchor_targets import Anchor, FileAnchor, open_target
from cdc_audit.trail.anchor_sources import parse_source, read_source
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
    assert anchors.read(lines, "file") == 2
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
    path, results = tmp_path / "anchors", list[str | None]()

    async def scenario() -> None:
        anchors = Writer([f"file:{path}"], "audit", lambda kind, target, reason: results.append(reason))
        running = asyncio.create_task(anchors.run())
        anchors.note(receipt(1))
        await asyncio.to_thread(until, lambda: path.exists() and path.read_bytes().endswith(b"\n"), "a line")
        anchors.note(receipt(2))
        anchors.note(receipt(3))
        for _ in range(20):
            await asyncio.sleep(0)
        assert list(read(path)) == [1]
        await anchors.close()
        await anchors.close()
        running.cancel()

    asyncio.run(scenario())
    assert (list(read(path)), results) == ([1, 3], [None, None])
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_line_is_ended_so_that_the_next_one_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    path.write_bytes(anchor(1, b"h" * 32) + anchor(2, b"h" * 32)[:30])
    FileAnchor(FileTarget(str(path))).append(Anchor("audit", 3, anchor_line("audit", receipt(3))))
    assert list(read(path)) == [1, 3]


def test_one_target_that_fails_does_not_keep_others_from_it(tmp_path: Path) -> None:
    path, results = tmp_path / "anchors", list[tuple[str, str, str | None]]()

    async def scenario() -> None:
        targets = [f"file:{tmp_path}", f"file:{path}"]
        anchors = Writer(targets, "audit", lambda *result: results.append(result))
        anchors.note(receipt(1))
        await anchors.close()

    asyncio.run(scenario())
    failed = ("file", f"file:{tmp_path}", "Is a directory")
    assert sorted(results, key=str) == sorted([failed, ("file", f"file:{path}", None)], key=str)
    assert list(read(path)) == [1]


class Stuck:
    """A target that comes back when it is let go."""

    kind, name = "file", "stuck"

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.attempts = 0

    def append(self, anchor: Anchor) -> None:
        self.attempts += 1
        self.let_go.wait()
        if self.attempts == 2:
            raise RuntimeError("a text that could hold anything")


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    target = Stuck()
    yield target
    target.let_go.set()


def test_a_target_that_hangs_is_left_alone_until_it_comes_back_and_holds_up_nothing_else(
    tmp_path: Path, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_anchor, "LIMIT", 0.3)
    monkeypatch.setattr(sink_anchor, "INTERVAL", 0.0)
    opened = open_target
    monkeypatch.setattr(
        sink_anchor,
        "open_target",
        lambda target, token: stuck if target == FileTarget("/stuck") else opened(target, token),
    )
    path, results = tmp_path / "anchors", list[tuple[str, str | None]]()

    def has_told(count: int) -> bool:
        return len(results) == count

    def has_come_back() -> bool:
        return all(thread.name != "anchor file" for thread in threading.enumerate())

    async def scenario() -> None:
        anchors = Writer(
            ["file:/stuck", f"file:{path}"], "audit", lambda kind, *result: results.append(result)
        )
        running = asyncio.create_task(anchors.run())
        for block in (1, 2, 3):
            if block == 3:
                stuck.let_go.set()
                await asyncio.to_thread(until, has_come_back, "the thread's end")
            anchors.note(receipt(block))
            await asyncio.to_thread(until, partial(has_told, 2 * block), f"block {block}")
        anchors.note(receipt(4))
        await anchors.close()
        running.cancel()

    asyncio.run(scenario())
    assert list(read(path)) == [1, 2, 3, 4]
    said = [reason for name, reason in results if name == "stuck"]
    assert said == ["no answer within 0 s", "still busy with an earlier block", "RuntimeError", None]


def test_the_end_of_the_process_does_not_wait_for_a_target_that_hangs() -> None:
    script = """if True:
        import asyncio, threading
        from cdc_audit.sink import anchor
        from tests.unit.trail.test_verify_anchors import Stuck, receipt
        anchor.LIMIT = 0.1
        anchor.open_target = lambda *_: Stuck()
        async def main():
            anchors = anchor.Anchors(["file:/x"], "audit", print)
            anchors.note(receipt(1))
            await anchors.close()
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("file stuck ")


def test_buckets_need_boto3_and_the_refusal_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingError) as refusal:
        Writer(["s3://bucket/x"], "audit", print)
    assert refusal.value.remedy == "pip install 'cdc-audit[archive]'"
    with pytest.raises(SettingError):
        read_source(Anchors("audit", {}), parse_source("s3://bucket/x"))


def test_a_source_of_anchors_is_a_path_or_a_target_and_nothing_else() -> None:
    assert parse_source("anchors") == FileTarget("anchors")
    assert parse_source("file:/a") == FileTarget("/a")
    for wrong in ("http://elsewhere.example/secret", "s3://", "file:a"):
        with pytest.raises(UsageError) as refusal:
            parse_source(wrong)
        assert "secret" not in str(refusal.value)


def test_a_source_that_is_away_empty_or_another_ledgers_is_missing_evidence(tmp_path: Path) -> None:
    empty, other, torn = tmp_path / "empty", tmp_path / "other", tmp_path / "torn"
    empty.touch()
    other.write_bytes(anchor(1, b"h" * 32, "other"))
    torn.write_bytes(b"no anchor\n")
    for path in (tmp_path / "none", empty, other, torn):
        anchors = Anchors("audit", {})
        read_source(anchors, FileTarget(str(path)))
        assert (len(anchors.missing), anchors.hashes) == (1, {}), path
        assert str(path) in anchors.missing[0]
