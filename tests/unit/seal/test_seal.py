"""Lines, images, Merkle roots and block hashes."""

from hashlib import sha256

import pytest

from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Row, Shape, Stretch, Suppressed, Truncate
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH, block_hash, header_line
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.copy_text import array, escape
from cdc_audit.seal.merkle import MerkleTree

AT = "2026-11-22 19:19:02+00"
GENESIS = Block(0, "genesis", 1, 0, "77", 1, "s", 10, 10, "", AT, EMPTY_ROOT, NO_HASH, "", "")


def update(new: list[bytes], old: list[bytes], columns: tuple[str, ...] = ("id", "name")) -> Row:
    return (Shape("UPDATE", "public", "t", "", columns, columns, True, ("id",), ()), new, old)


def stretch(
    *changes: Change, at: str = AT, lsn: int = 256, context: Context = NO_CONTEXT, **more: bool
) -> Stretch:
    flags = {"starts": True, "ends": True, **more}
    return Stretch(Begin(7, lsn, at), context, list(changes), **flags)


def fields(*changes: Change, context: Context = NO_CONTEXT) -> list[list[bytes]]:
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1)
    builder.add(stretch(*changes, context=context))
    return [line.split(b"\t") for line in builder.take().splitlines()]


def test_an_update_names_the_columns_whose_value_differs() -> None:
    (line,) = fields(update([b"1", b'"b"'], [b"1", b'"a"']))
    assert line[:9] == [
        b"1", AT.encode(), b"public", b"t", b"1", b"UPDATE",
        b'{"id": 1, "name": "a"}', b'{"id": 1, "name": "b"}', b"{name}",
    ]  # fmt: skip
    assert line[17:23] == [b"full", b"\\N", b"\\N", b"7", b"0/100", b"1"]


def test_keys_stand_in_jsonb_order_by_length_then_bytes() -> None:
    columns = ("bb", "a", "C", "é")
    (line,) = fields(update([b"1", b"2", b"3", b"4"], [b"1", b"2", b"3", b"4"], columns))
    assert line[7] == '{"C": 3, "a": 2, "bb": 1, "é": 4}'.encode()
    assert line[8] == b"{}"


def test_the_leaf_is_the_hash_of_the_line_without_it() -> None:
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1)
    builder.add(stretch(update([b"1", b'"b\\\\n"'], [b"1", b"null"])))
    line, _, row_hash = builder.take().rstrip(b"\n").rpartition(b"\t")
    assert row_hash == b"\\\\x" + sha256(b"\0" + line).hexdigest().encode()


def test_a_key_that_changed_is_recorded_under_the_old_one() -> None:
    (line,) = fields(update([b"2", b'"a"'], [b"1", b'"a"']))
    assert (line[4], line[8]) == (b"1", b"{id}")


def test_a_composite_key_is_a_json_array_of_texts() -> None:
    shape = Shape("INSERT", "public", "t", "", ("a", "b", "c"), (), False, ("a", "b"), ())
    (line,) = fields((shape, [b"1", b'"x\\"y"', b"null"], []))
    assert line[4] == b'["1", "x\\\\"y"]'


def test_a_column_name_with_percent_signs_and_quotes_is_no_format() -> None:
    (line,) = fields(update([b"1", b"2"], [b"1", b"3"], ("id", '%b"\\')))
    assert line[7] == b'{"id": 1, "%b\\\\"\\\\\\\\": 2}'
    assert line[8] == b'{"%b\\\\"\\\\\\\\"}'


def test_truncates_suppressed_changes_and_events_have_lines_too() -> None:
    lines = fields(
        Truncate("public", "t", "leaf"),
        Suppressed("DELETE", "public", "n", ""),
        ApplicationEvent("READ", "med.patients", "7", b'{"a": "\\n"}'),
    )
    assert [line[2:9] for line in lines] == [
        [b"public", b"t", b"\\N", b"TRUNCATE", b"\\N", b"\\N", b"\\N"],
        [b"public", b"n", b"\\N", b"DELETE", b"\\N", b"\\N", b"\\N"],
        [b"med", b"patients", b"7", b"READ", b"\\N", b'{"a": "\\\\n"}', b"\\N"],
    ]
    assert [line[17] for line in lines] == [b"full", b"suppressed", b"full"]
    assert lines[0][19] == b"leaf"
    assert [line[22] for line in lines] == [b"1", b"2", b"3"]


def test_the_context_fills_its_columns() -> None:
    context = Context(Trust.SIGNED, "u\t1", "", "10.0.0.9", "", '{"a": "\\\\"}', "app", "web")
    (line,) = fields(update([b"1", b"2"], [b"1", b"2"]), context=context)
    assert line[9:17] == [
        b"u\\t1",
        b"\\N",
        b"10.0.0.9",
        b"\\N",
        b'{"a": "\\\\\\\\"}',
        b"signed",
        b"app",
        b"web",
    ]


def test_control_characters_and_arrays_are_escaped_as_copy_does() -> None:
    assert escape(b"a\\b\b\t\n\v\f\rz\x01") == b"a\\\\b\\b\\t\\n\\v\\f\\rz\x01"
    assert (
        array(["a", "", "NULL", "x y", 'q"', "b\\", "{", ","])
        == b'{a,"","NULL","x y","q\\\\"","b\\\\\\\\","{",","}'
    )


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 1023, 1024, 1025, 2048, 3000, 5121])
def test_the_root_is_rfc_6962s_however_the_leaves_come(count: int) -> None:
    leaves = [sha256(str(n).encode()).digest() for n in range(count)]
    tree = MerkleTree()
    for start in range(0, count, 700):
        tree.extend(leaves[start : start + 700])
    assert tree.root() == reference_root(leaves)


def test_known_roots_of_certificate_transparency_hold() -> None:
    # The leaves and roots of the reference implementation's own tests.
    inputs = [
        bytes.fromhex(h)
        for h in (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        )
    ]
    tree = MerkleTree()
    tree.extend([sha256(b"\0" + data).digest() for data in inputs])
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_blocks_chain_and_count_on() -> None:
    builder = BlockBuilder(GENESIS, block_hash(GENESIS), timeline=1)
    builder.add(stretch(update([b"1", b"2"], [b"1", b"2"]), lsn=20))
    first = builder.close(kind="data", written_at=AT)
    builder.add(stretch(update([b"1", b"2"], [b"1", b"2"]), lsn=30))
    second = builder.close(kind="data", written_at=AT)
    assert (first.block.block, first.block.first_id, first.block.row_count) == (1, 1, 1)
    assert (first.block.start_lsn, first.block.end_lsn) == (10, 20)
    assert (second.block.first_id, second.block.start_lsn, second.block.end_lsn) == (2, 20, 30)
    assert first.block.prev_hash == block_hash(GENESIS)
    assert second.block.prev_hash == first.block_hash == sha256(b"\2" + header_line(first.block)).digest()
    assert second.rows_by_action == {"UPDATE": 1}


def test_a_block_lies_in_one_month_and_a_flowing_transaction_has_its_own() -> None:
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1)
    builder.add(stretch(update([b"1", b"2"], [b"1", b"2"])))
    assert builder.fits(stretch(at="2026-11-30 23:59:59+00"))
    assert not builder.fits(stretch(at="2026-12-01 00:00:00+00"))
    assert not builder.fits(stretch(ends=False, is_whole=False))
    assert builder.fits(stretch(starts=False, is_whole=False))


def test_seq_counts_through_a_transactions_stretches_and_begins_anew_with_the_next() -> None:
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1)
    one = update([b"1", b"2"], [b"1", b"2"])
    builder.add(stretch(one, one, ends=False))
    builder.add(stretch(one, starts=False))
    builder.add(stretch(one))
    assert [line.split(b"\t")[22] for line in builder.take().splitlines()] == [b"1", b"2", b"3", b"1"]


def test_a_lost_value_is_marked_before_an_old_image_that_is_not_whole() -> None:
    partial = Shape("UPDATE", "public", "t", "", ("id", "n"), ("id",), False, ("id",), ())
    rows = [(partial._replace(is_lossy=lossy), [b"1", b"null"], [b"1"]) for lossy in (True, False)]
    assert [line[17] for line in fields(*rows)] == [b"lossy", b"partial"]


def test_transactions_whose_ids_repeat_are_told_apart_by_their_commit() -> None:
    """Case 16: xids wrap round at 2^32."""
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1)
    for lsn in (256, 512):
        builder.add(stretch(Truncate("public", "t", ""), lsn=lsn))
    lines = [line.split(b"\t") for line in builder.take().splitlines()]
    assert [(line[0], line[20], line[21], line[22]) for line in lines] == [
        (b"1", b"7", b"0/100", b"1"),
        (b"2", b"7", b"0/200", b"1"),
    ]
