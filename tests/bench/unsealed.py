"""``cdc-audit`` with hashing and signing left out, for ``sealing`` alone: what it writes proves nothing.

``python -m tests.bench.unsealed run``. Lines still end in 32 bytes of hash, headers still have theirs: only nothing is computed.
"""

from __future__ import annotations

from cdc_audit.cli import main
from cdc_audit.seal import block, lines, merkle
from cdc_audit.seal.signature import Signer

_NOTHING = bytes(32)


class _Constant:
    """Stands for what ``hashlib.sha256`` returns."""

    def digest(self) -> bytes:
        return _NOTHING


_CONSTANT = _Constant()


def leave_out() -> None:
    """Replace each place where sealing computes; AttributeError where one has gone, so that none is measured by mistake."""
    for module in (lines, merkle, block):
        _replace(module, "sha256", lambda data=b"": _CONSTANT)
    _replace(merkle.MerkleTree, "extend", lambda self, leaves: None)
    _replace(merkle.MerkleTree, "root", lambda self: _NOTHING)
    _replace(Signer, "sign", lambda self, block_hash: bytes(64))


def _replace(owner: object, name: str, stand_in: object) -> None:
    getattr(owner, name)
    setattr(owner, name, stand_in)


if __name__ == "__main__":
    leave_out()
    main()
