"""A second verifier, written from the docstrings of ``cdc_audit/seal`` alone; imports nothing of the product.
python -m tests.support.second_verifier DSN [SCHEMA] [PUBLIC-KEY-FILE ...]
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from psycopg import sql

LEDGER: LiteralString = (
    "copy (select block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn, last_commit_at,"
    " written_at, rows_root, prev_hash, detail, key_id, block_hash, signature from {}.ledger order by block) to stdout"
)
HEADER = re.findall(r"\w+", LEDGER)[2:17]  # the columns that the header line is made of
ROWS: LiteralString = (
    "copy (select id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id,"
    " user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture, unchanged_toast,"
    " partition_name, xid, commit_lsn, seq, row_hash from {}.audit_logs order by id) to stdout"
)
SETTINGS = "-c timezone=UTC -c datestyle=ISO -c bytea_output=hex -c client_encoding=UTF8"
SNAPSHOT = SETTINGS + r" -c default_transaction_isolation=repeatable\ read"
NAMES = {b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


def leaf_hash(line: bytes) -> bytes:
    return sha256(b"\x00" + line).digest()


def block_hash(line: bytes) -> bytes:
    return sha256(b"\x02" + line).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()


def key_id(public: bytes) -> str:
    return sha256(public).hexdigest()[:16]


def is_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def value(field: bytes) -> bytes | None:
    """A field of COPY's text format."""
    if field == b"\\N":
        return None
    return re.sub(rb"\\(.)", lambda found: NAMES.get(found[1], found[1]), field, flags=re.DOTALL)


def hexadecimal(field: bytes) -> bytes:
    text = value(field)
    return bytes.fromhex(text[2:].decode()) if text else b""


def position(lsn: str) -> int:
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Chain:
    """Walks the headers; ``problems`` collects what is wrong."""

    def __init__(self, keys: Mapping[str, bytes], anchors: Mapping[int, str]) -> None:
        self.keys, self.anchors = keys, anchors
        self.problems: list[str] = []
        self.before: dict[str, Any] = {}
        self.due = ""

    def header(self, row: bytes) -> tuple[int, int, bytes]:
        """The next row of the ledger: its first id, its number of rows and their root."""
        fields = row.split(b"\t")
        texts = [(value(field) or b"").decode() for field in fields[:15]]
        now: dict[str, Any] = dict(zip(HEADER, texts, strict=True))
        now["hash"] = block_hash(b"\t".join(fields[:15]))
        now["prev_hash"] = hexadecimal(fields[12])
        signature = hexadecimal(fields[16])
        harm = self.linked(now)
        if now["hash"] != hexadecimal(fields[15]):
            harm = "its hash is not the header's"
        harm = harm or self.signed(now, signature)
        if harm:
            self.problems.append(f"block {now['block']}: {harm}")
        anchored = self.anchors.get(int(now["block"]))
        if anchored is not None and bytes.fromhex(anchored) != now["hash"]:
            self.problems.append(f"block {now['block']}: anchored with another hash")
        self.before = now
        return int(now["first_id"]), int(now["row_count"]), hexadecimal(fields[11])

    def linked(self, now: dict[str, Any]) -> str:
        before = self.before
        if not before:
            begins = (now["block"], now["kind"], now["first_id"], now["prev_hash"])
            return "" if begins == ("0", "genesis", "1", bytes(32)) else "the trail does not begin here"
        if int(now["block"]) != int(before["block"]) + 1:
            return "blocks are missing before it"
        if now["prev_hash"] != before["hash"]:
            return "does not name the block before"
        if int(now["first_id"]) != int(before["first_id"]) + int(before["row_count"]):
            return "ids are not dense"
        if any(now[name] != before[name] for name in ("system_identifier", "slot")):
            return "another cluster or slot"
        if now["start_lsn"] != before["end_lsn"]:
            return "a gap in positions"
        turns = now["kind"] in ("timeline", "divergence")
        if position(now["end_lsn"]) < position(now["start_lsn"]) and now["kind"] != "divergence":
            return "goes back"
        return "" if now["timeline"] == before["timeline"] or turns else "the timeline changes"

    def signed(self, now: dict[str, Any], signature: bytes) -> str:
        mine, is_key = now["key_id"], now["kind"] == "key"
        if not mine:
            return "unsigned" if self.due or signature else ""
        if self.due and mine != self.due:
            return "signed with a key that is not due"
        if not self.due and now["block"] != "0" and not is_key:
            return "signing begins without a key block"
        if mine not in self.keys:
            return "signed with an unknown key"
        if not is_signature(self.keys[mine], b"cdc-audit block v1\0" + now["hash"], signature):
            return "wrong signature"
        if not is_key:
            self.due = mine
            return ""
        said = json.loads(now["detail"])
        old = base64.b64decode(said["old_public_key"] or "")
        new = base64.b64decode(said["new_public_key"])
        message = b"cdc-audit key v1\0" + now["prev_hash"] + old + new
        names_both = (said["new_key_id"], said["old_key_id"]) == (key_id(new), key_id(old) if old else None)
        if (said["old_key_id"] or "") != self.due or not names_both:
            return "wrong succession"
        self.due = key_id(new)
        is_new = is_signature(new, message, base64.b64decode(said["new_signature"]))
        return "" if is_new else "not signed by the new key"


def verify(dsn: str, schema: str, public_keys: Sequence[bytes], anchors: Mapping[int, str]) -> list[str]:
    """What is wrong with a trail; nothing, if nothing is. ``anchors``: hexadecimal hash by block number."""
    chain = Chain({key_id(public): public for public in public_keys}, anchors)
    with psycopg.connect(dsn, options=SNAPSHOT) as connection:
        blocks = [chain.header(row) for row in copied(connection, LEDGER, schema)]
        stored = copied(connection, ROWS, schema)
        due = 1
        for number, (first, count, root) in enumerate(blocks):
            leaves = []
            for wanted, row in zip(range(first, first + count), stored, strict=False):
                line, _, row_hash = row.rpartition(b"\t")
                leaves.append(leaf_hash(line))
                if not line.startswith(b"%d\t" % wanted) or leaves[-1] != hexadecimal(row_hash):
                    chain.problems.append(f"row {wanted}: missing or altered")
            if merkle_root(leaves) != root:
                chain.problems.append(f"block {number}: its rows do not give its root")
            due = first + count
        chain.problems += [f"row {row.partition(b'	')[0].decode()}: in no block" for row in stored]
    end = int(chain.before["block"]) if chain.before else -1
    chain.problems += [f"block {number}: anchored, but gone" for number in anchors if number > end]
    if chain.due not in chain.keys and (chain.due or chain.keys):
        chain.problems.append(
            f"the ledger's key is {chain.due or 'none'}, not a given one (ids end at {due - 1})"
        )
    return chain.problems


def copied(connection: psycopg.Connection, statement: LiteralString, schema: str) -> Iterator[bytes]:
    with connection.cursor().copy(sql.SQL(statement).format(sql.Identifier(schema))) as rows:
        for row in rows:
            yield bytes(row)[:-1]


if __name__ == "__main__":
    given = [load_pem_public_key(Path(name).read_bytes()) for name in sys.argv[3:]]
    raw = [key.public_bytes(Encoding.Raw, PublicFormat.Raw) for key in given]
    found = verify(sys.argv[1], (sys.argv[2:] or ["audit"])[0], raw, {})
    print("\n".join(found) or "whole")
    sys.exit(bool(found))
