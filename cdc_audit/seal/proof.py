r"""Inclusion proofs: that one row is in the trail, to be checked with a public key alone. Pure.

A proof is one line of JSON (UTF-8, no blanks between tokens, keys in this order) and a line end::

    {"proof":"cdc-audit row v1","line":...,"leaf_index":...,"path":["<64 hex digits>",...],
     "header":...,"key_id":...,"signature":"<128 hex digits>"}

``line`` is the row's line (``cdc_audit.seal.lines``), ``header`` the line of its block's header (``cdc_audit.seal.block``), both as
COPY prints them. It holds if

1.  the text is exactly what this format makes of its values,
2.  the line's id is the header's first_id + leaf_index, and leaf_index is less than row_count,
3.  SHA-256(0x00 || line), leaf_index, row_count and path give the header's rows_root (RFC 9162, section 2.1.3.2),
4.  key_id is the header's and the verifier's key's, and the signature is that key's over the header's block_hash
    (``cdc_audit.seal.signature``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

import orjson

from cdc_audit.errors import CheckFailedError, IncompleteEvidenceError
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import header_hash, parse_header
from cdc_audit.seal.merkle import MerkleTree
from cdc_audit.seal.signature import is_signed_by

_FORMAT = "cdc-audit row v1"


class Proof(NamedTuple):
    """A row's line, its place among the block's leaves, and the block's signed header. "" and b"" where it is unsigned."""

    line: str
    leaf_index: int
    path: tuple[bytes, ...]
    header: str
    key_id: str
    signature: bytes


class PathBuilder:
    """The audit path of one leaf (RFC 6962, section 2.1.1), in memory that does not grow with the leaves."""

    def __init__(self, index: int, size: int) -> None:
        self._ranges = list(_siblings(index, size))
        self._trees = [MerkleTree() for _ in self._ranges]
        self._next = 0

    def extend(self, leaves: list[bytes]) -> None:
        """The next leaves' hashes."""
        begin = self._next
        for (first, end), tree in zip(self._ranges, self._trees, strict=True):
            tree.extend(leaves[max(0, first - begin) : max(0, end - begin)])
        self._next += len(leaves)

    def path(self) -> tuple[bytes, ...]:
        """From the leaf's sibling up to the root's child, when all leaves are in."""
        return tuple(tree.root() for tree in self._trees)


def _siblings(index: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of leaves whose roots make the path, the leaf's sibling first."""
    first, end = 0, size
    ranges: list[tuple[int, int]] = []
    while end - first > 1:
        split = first + (1 << ((end - first - 1).bit_length() - 1))
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((first, split))
            first = split
    return reversed(ranges)


def root_of(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bytes | None:
    """The root that a path leads to, or None if it is longer or shorter than the tree is high."""
    if not 0 <= index < size:
        return None
    node, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            node = sha256(b"\1" + sibling + node).digest()
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1" + node + sibling).digest()
        index, last = index >> 1, last >> 1
    return node if last == 0 else None


def write(proof: Proof) -> bytes:
    """The proof's text."""
    said = {
        "proof": _FORMAT,
        "line": proof.line,
        "leaf_index": proof.leaf_index,
        "path": [node.hex() for node in proof.path],
        "header": proof.header,
        "key_id": proof.key_id,
        "signature": proof.signature.hex(),
    }
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


def read(text: bytes) -> Proof:
    """The proof that a text is. Raises CheckFailedError if it is anything else, were it by one byte."""
    try:
        said = orjson.loads(text)
        proof = Proof(
            said["line"],
            said["leaf_index"],
            tuple(map(bytes.fromhex, said["path"])),
            said["header"],
            said["key_id"],
            bytes.fromhex(said["signature"]),
        )
        is_same = write(proof) == text and _has_right_types(proof)
    except (ValueError, KeyError, TypeError):
        is_same = False
    if not is_same:
        raise CheckFailedError("this is not a proof, or no longer as cdc-audit wrote it")
    return proof


def _has_right_types(proof: Proof) -> bool:
    return (
        all(type(one) is str for one in (proof.line, proof.header, proof.key_id))
        and type(proof.leaf_index) is int
        and all(len(node) == sha256().digest_size for node in proof.path)
    )


def check(text: bytes, keys: Mapping[str, bytes]) -> tuple[Proof, Block]:
    """The proof and its block, if it holds. ``keys``: the verifier's raw public keys, by key id.

    Raises CheckFailedError if it is wrong, IncompleteEvidenceError if nobody signed it or no key was given.
    """
    proof = read(text)
    line, header = proof.line.encode(), proof.header.encode()
    try:
        block = parse_header(header)
        row_id = int(line.partition(b"\t")[0])
    except ValueError:
        raise CheckFailedError("the proof's row or header can't be read") from None
    leaf = sha256(b"\0" + line).digest()
    if row_id != block.first_id + proof.leaf_index:
        raise CheckFailedError(f"row {row_id} is not at its place in block {block.block}")
    if root_of(leaf, proof.leaf_index, block.row_count, proof.path) != block.rows_root:
        raise CheckFailedError(
            f"row {row_id} is not in block {block.block}: the path does not lead to its root"
        )
    if proof.key_id != block.key_id:
        raise CheckFailedError("the proof names another key than its block")
    if not keys:
        raise IncompleteEvidenceError("no public key was given", remedy="give --public-key FILE")
    if not block.key_id or not proof.signature:
        raise IncompleteEvidenceError(f"block {block.block} is not signed: anyone can have made this proof")
    public = keys.get(block.key_id)
    if public is None:
        raise CheckFailedError(
            f"block {block.block} is signed with key {block.key_id}, none of the given ones"
        )
    if not is_signed_by(public, header_hash(header), proof.signature):
        raise CheckFailedError(f"the signature is not key {block.key_id}'s for block {block.block}")
    return proof, block
