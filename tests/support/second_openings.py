"""The second verifier's part for personal values, written from the docstring of ``cdc_audit/seal/personal`` alone."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from hashlib import sha256
from typing import Any, LiteralString

import psycopg

from tests.support.second_verifier import LEDGER, SNAPSHOT, copied, hexadecimal, value

OPENINGS: LiteralString = (
    "copy (select id, part, field, commitment, salt, value from {}.personal_values"
    " order by id, part, field) to stdout"
)


def verify(dsn: str, schema: str) -> list[str]:
    """What is wrong with the openings of a trail whose headers and rows are whole."""
    problems: list[str] = []
    blocks: list[tuple[int, int, str, dict[str, Any]]] = []
    with psycopg.connect(dsn, options=SNAPSHOT) as connection:
        for row in copied(connection, LEDGER, schema):
            fields = [(value(field) or b"").decode() for field in row.split(b"\t")]
            blocks.append((int(fields[0]), int(fields[2]), fields[1], json.loads(fields[13] or "{}")))
        erased = {
            (part, number)
            for _, first_id, kind, said in blocks
            if kind == "erasure"
            for first, last in said["ids"]
            for number in range(first, last + 1)
            for part in said["parts"]
            if number < first_id
        }
        lines: dict[int, list[bytes]] = defaultdict(list)
        firsts = [first for _, first, _, _ in blocks]
        for row in copied(connection, OPENINGS, schema):
            number, part, name, committed, salt, opened = row.split(b"\t")
            hash_ = hexadecimal(committed)
            lines[bisect_right(firsts, int(number)) - 1].append(
                b"%b\t%b\t%b\t%b\n" % (number, part, name, hash_.hex().encode())
            )
            is_gone = value(salt) is None and value(opened) is None
            if is_gone != ((part.decode(), int(number)) in erased):
                problems.append(
                    f"row {number.decode()}: a value is gone and no block says so, or the other way round"
                )
            elif (
                not is_gone and sha256(b"\x03" + hexadecimal(salt) + (value(opened) or b"")).digest() != hash_
            ):
                problems.append(f"row {number.decode()}: a value is not what was committed to")
    for at, (block, _, _, said) in enumerate(blocks):
        found = lines.get(at, [])
        claimed = said.get("personal", {"count": 0, "hash": sha256().hexdigest()})
        if claimed != {"count": len(found), "hash": sha256(b"".join(found)).hexdigest()}:
            problems.append(f"block {block}: its openings are not those that it says")
    return problems
