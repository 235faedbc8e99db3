"""Signatures, the succession of keys, inclusion proofs; and the published test vectors, which both verifiers must find right."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cdc_audit.errors import CheckFailedError, IncompleteEvidenceError, SettingError
from cdc_audit.model.ledger import Block
from cdc_audit.seal import proof
from cdc_audit.seal.block import NO_HASH, block_hash, header_line, parse_header
from cdc_audit.seal.copy_text import escape, unescape
from cdc_audit.seal.signature import (
    Signer,
    Succession,
    begins_signing,
    is_signed_by,
    key_after,
    key_id,
    public_from_pem,
    succession_of,
)
from cdc_audit.trail.verify_chain import Chain, parse_row
from cdc_audit.trail.verify_findings import Findings
from tests.support import second_verifier as second

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text("utf-8"))
BLOCKS = VECTORS["blocks"]
PROOF = VECTORS["proof"].encode()
PRIVATE = [Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["seed"])) for key in VECTORS["keys"]]
A, B = map(Signer, PRIVATE)
KEYS = {signer.key_id: signer.public for signer in (A, B)}


def ledger_rows() -> list[bytes]:
    """The vectors' blocks as COPY of the ledger prints them."""
    return [
        b"%b\t\\\\x%b\t%b"
        % (
            one["header"].encode(),
            one["block_hash"].encode(),
            b"\\\\x" + one["signature"].encode() if one["signature"] else b"\\N",
        )
        for one in BLOCKS
    ]


def test_the_vectors_keys_have_their_ids() -> None:
    for signer, key in zip((A, B), VECTORS["keys"], strict=True):
        assert (signer.public.hex(), signer.key_id) == (key["public"], key["key_id"])
        assert second.key_id(signer.public) == key["key_id"] == key_id(signer.public)


@pytest.mark.parametrize("one", BLOCKS, ids=[one["header"].split("\t")[1] for one in BLOCKS])
def test_the_vectors_headers_give_their_hashes_and_signatures(one: dict[str, str]) -> None:
    line = one["header"].encode()
    block = parse_header(line)
    assert header_line(block) == line
    assert block_hash(block).hex() == one["block_hash"] == second.block_hash(line).hex()
    if block.key_id:
        signer = {A.key_id: A, B.key_id: B}[block.key_id]
        assert signer.sign(block_hash(block)).hex() == one["signature"]


def test_the_vectors_rows_give_their_hashes_and_their_blocks_root() -> None:
    leaves = [second.leaf_hash(row["line"].encode()) for row in VECTORS["rows"]]
    assert [leaf.hex() for leaf in leaves] == [row["row_hash"] for row in VECTORS["rows"]]
    assert second.merkle_root(leaves) == parse_header(BLOCKS[2]["header"].encode()).rows_root


def test_both_verifiers_find_the_vectors_chain_right() -> None:
    findings = Findings()
    chain, other = Chain(findings, keys=KEYS, anchors={}), second.Chain(KEYS, {})
    for row in ledger_rows():
        chain.check(parse_row(row))
        other.header(row)
    assert (findings.sorted(), chain.finish(wants_anchors=False), other.problems) == ([], [], [])
    assert chain.signed == 4


def test_the_vectors_proof_holds() -> None:
    found, block = proof.check(PROOF, KEYS)
    assert (found.line, block.block) == (VECTORS["rows"][3]["line"], 2)
    assert proof.write(found) == PROOF


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_byte_of_a_proof_counts(mask: int) -> None:
    for place in range(len(PROOF)):
        changed = bytearray(PROOF)
        changed[place] ^= mask
        with pytest.raises((CheckFailedError, IncompleteEvidenceError)):
            proof.check(bytes(changed), KEYS)


def test_a_proof_that_lacks_or_has_more_is_none() -> None:
    for text in (PROOF[:-1], PROOF + b"\n", b" " + PROOF, b"", b"[]", b"null\n", PROOF * 2):
        with pytest.raises(CheckFailedError):
            proof.check(text, KEYS)


def test_a_proof_for_another_place_or_another_tree_fails() -> None:
    right = proof.read(PROOF)
    for wrong in (
        right._replace(leaf_index=2),
        right._replace(leaf_index=-1),
        right._replace(leaf_index=True),
        right._replace(path=right.path[:-1]),
        right._replace(path=(*right.path, bytes(32))),
        right._replace(path=(right.path[0] + b"\0", *right.path[1:])),
        right._replace(line=VECTORS["rows"][2]["line"]),
        right._replace(header=BLOCKS[1]["header"]),
        right._replace(key_id=B.key_id),
        right._replace(signature=B.sign(bytes.fromhex(BLOCKS[2]["block_hash"]))),
    ):
        with pytest.raises(CheckFailedError):
            proof.check(proof.write(wrong), KEYS)


def test_a_proof_without_signature_or_key_is_incomplete_and_one_by_a_stranger_wrong() -> None:
    with pytest.raises(IncompleteEvidenceError):
        proof.check(PROOF, {})
    with pytest.raises(IncompleteEvidenceError):
        proof.check(proof.write(proof.read(PROOF)._replace(signature=b"")), KEYS)
    with pytest.raises(CheckFailedError):
        proof.check(PROOF, {B.key_id: B.public})


def test_paths_lead_to_the_root_for_each_leaf_of_each_tree() -> None:
    leaves = [sha256(bytes([n])).digest() for n in range(40)]
    for size in range(1, 41):
        root = second.merkle_root(leaves[:size])
        for index in range(size):
            builder = proof.PathBuilder(index, size)
            for at in range(0, size, 7):
                builder.extend(leaves[at : min(size, at + 7)])
            path = builder.path()
            assert proof.root_of(leaves[index], index, size, path) == root
            assert proof.root_of(leaves[index], index, size, (*path, bytes(32))) != root
            assert proof.root_of(leaves[index], size, size, path) is None


def test_a_signature_is_of_a_block_and_of_nothing_else() -> None:
    hash_ = bytes(range(32))
    assert is_signed_by(A.public, hash_, A.sign(hash_))
    assert not is_signed_by(B.public, hash_, A.sign(hash_))
    assert not is_signed_by(A.public, hash_, PRIVATE[0].sign(hash_))
    assert not is_signed_by(A.public, hash_, b"")
    assert not is_signed_by(b"short", hash_, A.sign(hash_))


def test_a_succession_names_both_keys_and_is_signed_by_the_new_one_at_this_place() -> None:
    detail = B.succession(b"p" * 32, A)
    assert succession_of(json.dumps(detail), b"p" * 32) == Succession(A.key_id, B.key_id)
    assert succession_of(json.dumps(A.succession(NO_HASH, None)), NO_HASH) == Succession("", A.key_id)
    assert succession_of(json.dumps(detail), b"q" * 32) is None
    for name in detail:
        other = {**detail, name: A.succession(b"p" * 32, B)[name]}
        assert succession_of(json.dumps(other), b"p" * 32) is None, name
    for text in ("", "{}", "[]", "null", json.dumps({**detail, "new_public_key": 7})):
        assert succession_of(text, b"p" * 32) is None


def head(kind: str = "data", key: str = "", detail: str = "", number: int = 5) -> Block:
    return Block(number, kind, 1, 0, "7", 1, "s", 1, 1, "", "", b"", b"p" * 32, detail, key)


def test_the_key_of_the_next_block_follows_from_the_last_one() -> None:
    announced = head("key", A.key_id, json.dumps(B.succession(b"p" * 32, A)))
    assert (key_after(head()), key_after(head(key=A.key_id)), key_after(announced)) == (
        "",
        A.key_id,
        B.key_id,
    )
    assert not begins_signing(head(), None)
    assert begins_signing(head(), A)
    assert not begins_signing(head(number=-1), A)
    assert not begins_signing(head(key=A.key_id), A)
    assert not begins_signing(announced, B)
    for last, signer, remedy in (
        (head(key=A.key_id), None, "signing_key_file"),
        (head(key=A.key_id), B, "cdc-audit key rotate --old"),
        (announced, A, "cdc-audit key rotate --old"),
    ):
        with pytest.raises(SettingError) as refused:
            begins_signing(last, signer)
        assert remedy in (refused.value.remedy or "")


def test_keys_are_read_from_pem_and_nothing_else_is() -> None:
    pem = PRIVATE[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = PRIVATE[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    public = PRIVATE[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = generate_private_key(SECP256R1())
    foreign = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    foreign_public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert Signer.from_pem(pem).key_id == A.key_id
    assert public_from_pem(public) == A.public
    for wrong in (locked, foreign, public, b"", b"nonsense"):
        with pytest.raises(ValueError, match=r".*"):
            Signer.from_pem(wrong)
    for wrong in (pem, foreign_public, b"", b"nonsense"):
        with pytest.raises(ValueError, match=r".*"):
            public_from_pem(wrong)


def test_unescape_undoes_escape() -> None:
    data = bytes(range(256)) + b"\\N\\\\n\\t"
    assert unescape(escape(data)) == data


@pytest.mark.parametrize(
    "change", [(0, "x"), (2, "\\N"), (7, "0"), (11, "abc"), (12, "\\\\xzz"), (15, "more")]
)
def test_a_header_that_is_none_is_refused(change: tuple[int, str]) -> None:
    fields = BLOCKS[2]["header"].split("\t")
    fields[change[0] : change[0] + 1] = [change[1]]
    with pytest.raises(ValueError, match=r".*"):
        parse_header("\t".join(fields).encode())
