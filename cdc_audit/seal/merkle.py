"""The Merkle tree hash of RFC 6962, section 2.1, grown leaf by leaf in memory that does not grow with the leaves.

A leaf's hash is SHA-256(0x00 || data), an inner node's SHA-256(0x01 || left || right); a list is split at the largest power of two
below its length; the hash of no leaves is SHA-256 of the empty string.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

_compiled: Callable[[list[bytes]], bytes] | None = None
try:
    from cdc_audit.seal import _lines
except ImportError:
    pass
else:
    _compiled = _lines.perfect

_BATCH = 1024  # leaves hashed together to one node: a power of two


class MerkleTree:
    """Leaf hashes go in, the root comes out; a new tree for each block."""

    def __init__(self) -> None:
        self._leaves: list[bytes] = []
        self._nodes: list[tuple[int, bytes]] = []  # (leaves below, hash), sizes falling, each a power of two

    def extend(self, leaves: list[bytes]) -> None:
        """Add leaf hashes (32 bytes each), in order."""
        self._leaves += leaves
        while len(self._leaves) >= _BATCH:
            batch, self._leaves = self._leaves[:_BATCH], self._leaves[_BATCH:]
            self._push(_BATCH, _perfect(batch))

    def root(self) -> bytes:
        """The root of all leaves added so far."""
        nodes = [*self._nodes]
        rest = self._leaves
        while rest:
            size = 1 << (len(rest).bit_length() - 1)
            nodes.append((size, _perfect(rest[:size])))
            rest = rest[size:]
        if not nodes:
            return sha256().digest()
        root = nodes.pop()[1]
        while nodes:
            root = sha256(b"\1" + nodes.pop()[1] + root).digest()
        return root

    def _push(self, size: int, node: bytes) -> None:
        while self._nodes and self._nodes[-1][0] == size:
            node = sha256(b"\1" + self._nodes.pop()[1] + node).digest()
            size *= 2
        self._nodes.append((size, node))


def _perfect(nodes: list[bytes]) -> bytes:
    """The root over a power of two of nodes."""
    if _compiled is not None:
        return _compiled(nodes)
    while len(nodes) > 1:
        pairs = iter(nodes)
        nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return nodes[0]
