"""Personal values: commitments in the lines, openings beside them, and what the header says of those."""

from __future__ import annotations

import itertools
import json
from hashlib import sha256

import orjson
import pytest

from cdc_audit.config import RedactRule
from cdc_audit.model.context import Context, Trust
from cdc_audit.model.event import Row, Shape
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.seal.copy_text import unescape
from cdc_audit.seal.personal import commitment, erasure_of, said_of, text_of
from cdc_audit.seal.redact import Redaction
from tests.unit.seal.test_seal import AT, GENESIS, stretch

ALL = (RedactRule(table="*.*", column="*", mode="personal"),)
COLUMNS = ("id", "näme", "a")
WHO = Context(
    Trust.SIGNED, "u1", "ann@x", "10.0.0.9", "curl", '{"n": 1.50, "device": {"k": 12.00}}', "db", "app"
)


def salts(size: int = 16) -> bytes:
    return bytes([next(_NUMBERS) % 256]) * size


_NUMBERS = itertools.count()


def updated(
    new: list[bytes], old: list[bytes], *, key: tuple[str, ...] = ("id",), nested: tuple[str, ...] = ()
) -> Row:
    return (Shape("UPDATE", "public", "t", "", COLUMNS, COLUMNS, True, key, (), nested=nested), new, old)


def built(
    *rows: Row, redaction: Redaction, context: Context = WHO
) -> tuple[list[list[bytes]], list[list[bytes]], Block]:
    """Fields of the lines and of the openings, and the header."""
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1, redaction=redaction, random=salts)
    builder.add(stretch(*rows, context=context))
    lines = [line.split(b"\t") for line in builder.take().splitlines()]
    openings = [line.split(b"\t") for line in builder.take_openings().splitlines()]
    return lines, openings, builder.close(kind="data", written_at=AT).block


def hexadecimal(field: bytes) -> bytes:
    return bytes.fromhex(field.removeprefix(b"\\\\x").decode())


def test_in_the_images_stand_commitments_that_salt_and_value_give() -> None:
    row = updated([b"1", b'"B\\\\\xc3\xa9"', b"12345678901234567890.10"], [b"1", b'"A"', b"null"])
    (line,), openings, _ = built(row, redaction=Redaction(ALL))
    assert [opening[:3] for opening in openings] == [
        [b"1", b"new_data", b"a"], [b"1", b"new_data", "näme".encode()], [b"1", b"old_data", "näme".encode()],
    ]  # fmt: skip
    assert [unescape(opening[5]) for opening in openings] == [
        b"12345678901234567890.10", b'"B\\\\\xc3\xa9"', b'"A"',
    ]  # fmt: skip
    images = {b"old_data": orjson.loads(line[6]), b"new_data": orjson.loads(line[7])}
    for _, part, name, committed, salt, value in openings:
        digest = sha256(b"\3" + hexadecimal(salt) + unescape(value)).digest()
        assert digest == hexadecimal(committed) == commitment(hexadecimal(salt), unescape(value))
        assert images[part][name.decode()] == f"personal:{digest.hex()}" == text_of(digest)
    assert images[b"old_data"]["a"] is None
    assert line[8] == "{näme,a}".encode()


def test_equal_values_have_different_commitments() -> None:
    (line,), _, _ = built(updated([b"1", b'"A"', b"1"], [b"1", b'"A"', b"1"]), redaction=Redaction(ALL))
    assert line[6] != line[7]
    assert line[8] == b"{}"


def test_the_header_counts_and_hashes_what_a_plain_copy_prints() -> None:
    rows = [updated([b"%d" % n, b'"x"', b"null"], [b"%d" % n, b'"y"', b"2"]) for n in range(3)]
    _, openings, block = built(*rows, redaction=Redaction(ALL, personal_context=("user_email",)))
    printed = [(b"%b\t%b\t%b\t" % tuple(o[:3])) + o[3].removeprefix(b"\\\\x") + b"\n" for o in openings]
    assert sorted(printed, key=lambda line: (int(line.split(b"\t")[0]), *line.split(b"\t")[1:3])) == printed
    assert said_of(block.detail) == (12, sha256(b"".join(printed)).hexdigest())
    assert json.loads(block.detail) == {"personal": {"hash": said_of(block.detail)[1], "count": 12}}


def test_blocks_without_personal_values_say_nothing_and_counting_begins_anew_in_each() -> None:
    builder = BlockBuilder(GENESIS, NO_HASH, timeline=1, redaction=Redaction(ALL), random=salts)
    details = []
    for value in (b'"x"', b"null", b'"y"'):
        builder.add(stretch(updated([b"1", value, b"null"], [b"1", b"null", b"null"])))
        details.append(builder.close(kind="data", written_at=AT).block.detail)
    assert [said_of(detail)[0] for detail in details] == [1, 0, 1]
    assert details[1] == ""
    assert said_of('{"other": 1}') == (0, "")
    with pytest.raises(ValueError, match="detail"):
        said_of('{"personal": 7}')


def test_what_is_personal_in_a_context_is_committed_to_once_and_opened_in_each_row() -> None:
    rows = [updated([b"1", b"null", b"null"], [b"1", b"null", b"null"])] * 2
    names = ("email", "ip_address", "user_agent", "device")
    (first, second), openings, _ = built(*rows, redaction=Redaction(personal_context=names))
    assert first[9:17] == second[9:17]
    assert first[11] == b"\\N"
    rest = orjson.loads(first[13])
    opened = {(int(o[0]), o[2].decode()): (hexadecimal(o[3]), unescape(o[5])) for o in openings}
    shown = {"user_email": first[10], "user_agent": first[12]} | {
        k: rest[k].encode() for k in ("ip_address", "device")
    }
    for row_id in (1, 2):
        for name, text in shown.items():
            assert text_of(opened[row_id, name][0]).encode() == text
    assert {name: value for (row_id, name), (_, value) in opened.items() if row_id == 1} == {
        "user_email": b'"ann@x"', "ip_address": b'"10.0.0.9"', "user_agent": b'"curl"', "device": b'{"k": 12.00}',
    }  # fmt: skip
    assert b'"n": 1.50' in first[13]
    assert (first[9], first[14:17]) == (b"u1", [b"signed", b"db", b"app"])


def test_two_e_mail_addresses_of_which_one_is_none_do_not_share_an_opening() -> None:
    odd = WHO._replace(rest='{"user_email": {"x": "secret mail"}}')
    row = updated([b"1", b"null", b"null"], [b"1", b"null", b"null"])
    (line,), openings, _ = built(row, redaction=Redaction(personal_context=("user_email",)), context=odd)
    assert [o[2] for o in openings] == [b"user_email"]
    assert line[13] == b'{"user_email": "[redacted]"}'


def test_a_personal_key_is_hashed_with_the_key_or_else_stays_for_it_names_its_record() -> None:
    row = updated([b"1", b'"x"', b"null"], [b"1", b'"x"', b"null"])
    (line,), openings, _ = built(row, redaction=Redaction(ALL), context=WHO)
    assert (line[4], orjson.loads(line[7])["id"]) == (b"1", 1)
    (line,), openings, _ = built(row, redaction=Redaction(ALL, b"k" * 32), context=WHO)
    assert line[4].startswith(b"hmac:")
    assert orjson.loads(line[7])["id"] == line[4].decode()
    assert {o[2] for o in openings} == {"näme".encode()}


def test_secrets_inside_a_personal_value_are_in_no_opening_either() -> None:
    row = updated([b"1", b'{"pin": 1234, "n": 1}', b"null"], [b"1", b"null", b"null"], nested=("näme",))
    _, (opening,), _ = built(row, redaction=Redaction(ALL))
    assert unescape(opening[5]) == b'{"pin": "[redacted]", "n": 1}'


@pytest.mark.parametrize(
    "detail",
    ["", "{}", '{"ids": [], "parts": ["context"]}', '{"ids": [[1, 9]], "parts": ["context"]}',
     '{"ids": [[3, 2]], "parts": ["context"]}', '{"ids": [[3, 4], [1, 2]], "parts": ["context"]}',
     '{"ids": [[1, 2]], "parts": ["record_id"]}', '{"ids": 7, "parts": ["context"]}'],
)  # fmt: skip
def test_an_erasure_names_rising_ids_before_it_and_parts_that_there_are(detail: str) -> None:
    block = Block(5, "erasure", 9, 0, "77", 1, "s", 10, 10, "", AT, EMPTY_ROOT, NO_HASH, detail, "")
    with pytest.raises(ValueError, match="erasure"):
        erasure_of(block)
