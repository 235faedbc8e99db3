"""The verifier's rules, on chains and rows made by hand: what a database can't be brought to show, and what is no harm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from cdc_audit.model.jsonb import canonical
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH, block_hash, header_line
from cdc_audit.seal.copy_text import bytea
from cdc_audit.trail.verify_chain import Chain, Header, boundaries, parse_row
from cdc_audit.trail.verify_findings import Findings, Kind
from cdc_audit.trail.verify_rows import Rows, spans
from tests.support.second_verifier import leaf_hash, merkle_root
from tests.unit.seal.test_signature import A, B

AT = "2026-11-22 19:19:02+00"


def line_of(number: int, text: str = "row") -> bytes:
    return b"%d\t%s" % (number, text.encode())


def row(number: int, text: str = "row") -> bytes:
    return b"%b\t%b\n" % (line_of(number, text), bytea(leaf_hash(line_of(number, text))))


def chained(*changes: Mapping[str, Any]) -> list[Header]:
    """Block 0, then one block for each change; ``rows`` in a change is the number of its rows."""
    before = Block(-1, "", 1, 0, "7", 1, "s", 10, 10, "", AT, EMPTY_ROOT, NO_HASH, "", "")
    hash_, found = NO_HASH, []
    for change in ({"kind": "genesis"}, *changes):
        wanted: dict[str, Any] = dict(change)
        count = wanted.pop("rows", 0)
        first = before.first_id + before.row_count
        root = merkle_root([leaf_hash(line_of(number)) for number in range(first, first + count)])
        block = before._replace(
            block=before.block + 1, kind="data", first_id=first, row_count=count, start_lsn=before.end_lsn,
            prev_hash=hash_, rows_root=root,
        )._replace(**wanted)  # fmt: skip
        hash_ = block_hash(block)
        signature = b""
        if block.key_id:
            signature = {A.key_id: A, B.key_id: B}[block.key_id].sign(hash_)
        text = b"\t".join([header_line(block), bytea(hash_), bytea(signature) if signature else b"\\N"])
        found.append(parse_row(text))
        before = block
    return found


def judged(
    headers: Sequence[Header],
    *,
    keys: dict[str, bytes] | None = None,
    anchors: dict[int, bytes] | None = None,
    base: Header | None = None,
) -> tuple[list[str], list[str]]:
    """Findings, and what is missing."""
    findings = Findings()
    first = base.number + 1 if base else 0
    chain = Chain(findings, keys=keys or {}, anchors=anchors or {}, first=first, base=base)
    for header in headers:
        chain.check(header)
    missing = chain.finish(wants_anchors=anchors is not None)
    return [f"{one.kind} {one.first}-{one.last}" for one in findings.sorted()], missing


def looked_at(
    headers: Sequence[Header], rows: Sequence[bytes], retired: Sequence[tuple[int, int]] = ()
) -> list[str]:
    findings = Findings()
    checker = Rows(findings, spans(headers, block=0, first=1, end_block=None), retired)
    checker.check(rows)
    checker.finish()
    return [f"{one.kind} {one.unit} {one.first}-{one.last}" for one in findings.sorted()]


ONE_KEY = {A.key_id: A.public}


def test_an_unsigned_chain_is_whole_where_no_key_is_brought() -> None:
    assert judged(chained({"rows": 3}, {"kind": "heartbeat"})) == ([], [])


def test_evidence_is_incomplete_without_what_was_asked_for() -> None:
    unsigned, signed = chained({"rows": 1}), chained({"rows": 1, "key_id": A.key_id})
    assert judged([])[1] == ["the ledger is empty"]
    assert judged(unsigned, keys=ONE_KEY)[1] == ["a public key was given, but no block is signed"]
    assert judged(signed)[1] == ["blocks are signed, but no public key was given (--public-key)"]
    assert "none for these blocks" in judged(unsigned, anchors={})[1][0]
    both = {**ONE_KEY, B.key_id: B.public}
    whole = chained({"key_id": A.key_id})[1:]
    base = chained()[0]
    assert judged(whole, keys=both, base=base)[1] == []


def test_signing_begins_with_a_key_block_or_in_block_0() -> None:
    before = chained({"rows": 1})[-1].hash
    detail = canonical(orjson.dumps(A.succession(before, None))).decode()
    begun = chained(
        {"rows": 1}, {"kind": "key", "key_id": A.key_id, "detail": detail}, {"key_id": A.key_id, "rows": 2}
    )
    assert judged(begun, keys=ONE_KEY) == ([], [])
    assert judged(chained({"rows": 1}, {"key_id": A.key_id}), keys=ONE_KEY)[0] == ["wrong key 2-2"]


@pytest.mark.parametrize(
    "change",
    [
        {"first_id": 7}, {"row_count": -1}, {"start_lsn": 11}, {"end_lsn": 9}, {"timeline": 2}, {"timeline": 0},
        {"system_identifier": "8"}, {"slot": "t"}, {"kind": "genesis"}, {"kind": "timeline", "timeline": 0},
    ],
)  # fmt: skip
def test_a_block_that_does_not_go_on_where_the_one_before_ends_breaks_the_chain(
    change: dict[str, Any],
) -> None:
    assert judged(chained(change))[0] == ["chain broken 1-1"]


def test_a_divergence_goes_back_and_a_timeline_turns() -> None:
    turned = chained(
        {"end_lsn": 50},
        {"kind": "divergence", "end_lsn": 40, "timeline": 2},
        {"kind": "timeline", "timeline": 3},
    )
    assert judged(turned) == ([], [])


@pytest.mark.parametrize("change", [{"kind": "data"}, {"first_id": 2}, {"prev_hash": b"x" * 32}])
def test_a_trail_begins_with_its_genesis(change: dict[str, Any]) -> None:
    findings = Findings()
    chain = Chain(findings, keys={}, anchors={})
    block = chained()[0].intact
    assert block
    other = block._replace(**change)
    chain.check(parse_row(b"\t".join([header_line(other), bytea(block_hash(other)), b"\\N"])))
    assert [one.kind for one in findings.sorted()] == [Kind.BROKEN]


def test_a_header_that_cannot_be_read_is_altered() -> None:
    headers = chained({"rows": 1}, {"rows": 1})
    torn = headers[1].line.replace(b"0/A", b"\\N")
    headers[1] = parse_row(b"\t".join([torn, bytea(headers[1].stored_hash), b"\\N"]))
    assert headers[1].block is None
    assert judged(headers)[0] == ["altered 1-1"]


def test_an_anchor_holds_its_block_and_all_before_it() -> None:
    headers = chained({"rows": 1}, {"rows": 1})
    assert judged(headers, anchors={2: headers[2].hash}) == ([], [])
    assert judged(headers, anchors={1: b"x" * 32})[0] == ["altered 1-1"]
    assert judged(headers, anchors={5: b"x" * 32})[0] == ["tail cut off 3-5"]
    assert judged([], anchors={1: b"x" * 32})[0] == ["tail cut off 0-1"]


def retired(ids: list[list[int]], rows: int) -> str:
    manifest = {"name": "audit/manifests/2026-10.txt", "sha256": "00"}
    return json.dumps({"month": "2026-10", "ids": ids, "rows": rows, "manifest": manifest})


def test_rows_may_be_gone_where_a_retention_block_names_their_whole_block() -> None:
    headers = chained({"rows": 3}, {"rows": 2}, {"kind": "retention", "detail": retired([[1, 3]], 3)})
    chain = Chain(Findings(), keys={}, anchors={})
    for header in headers:
        chain.check(header)
    assert chain.retired == [(1, 3)]
    assert looked_at(headers, [row(4), row(5)], chain.retired) == []
    assert looked_at(headers, [row(2), row(4), row(5)], chain.retired) == [
        "removed row 1-1",
        "removed row 3-3",
    ]
    assert looked_at(headers, [], chain.retired) == ["removed row 4-5"]
    for detail in (
        "{}",
        "[]",
        retired([[1, 3]], 2),
        retired([[2, 4]], 3),
        retired([[3, 1]], -1),
        retired([], 0),
    ):
        broken = chained({"rows": 3}, {"kind": "retention", "detail": detail})
        assert judged(broken)[0] == ["chain broken 2-2"], detail


def test_altered_rows_are_named_as_long_as_there_are_few() -> None:
    headers = chained({"rows": 12_000})
    rows = [row(number) for number in range(1, 12_001)]
    for number in range(0, 12_000, 2):
        rows[number] = rows[number].replace(b"row", b"rob")
    findings = Findings()
    checker = Rows(findings, spans(headers, block=0, first=1, end_block=None), ())
    checker.check(rows)
    checker.finish()
    assert (len(findings), findings.uncounted) == (1000, 5000)
    assert [one.first for one in findings.sorted()][:2] == [1, 3]


def test_a_row_in_a_gap_between_blocks_is_in_no_block() -> None:
    headers = chained({"rows": 2}, {"rows": 2, "first_id": 5})
    assert "inserted row 4-4" in looked_at(headers, [row(1), row(2), row(4), row(5), row(6)])


def test_rows_can_be_checked_in_stretches_that_begin_at_sound_headers() -> None:
    headers = chained(*({"rows": 10} for _ in range(9)))
    assert [header.number for header in boundaries(headers, 25, 100)] == [4, 7]
    assert [header.number for header in boundaries(headers, 1000, 4)] == [4, 8]
    block = headers[4].intact
    assert block
    altered = block._replace(slot="x")
    headers[4] = parse_row(b"\t".join([header_line(altered), bytea(headers[4].hash), b"\\N"]))
    assert [header.number for header in boundaries(headers, 25, 100)] == [6, 9]
