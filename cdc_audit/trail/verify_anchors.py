"""Anchors that a verifier brings: which block had which hash, and when. Pure; how they look: ``cdc_audit.sink.anchor``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from cdc_audit.errors import IncompleteEvidenceError
from cdc_audit.seal.signature import is_signed_by


class Anchors:
    """Hashes by block of one ledger. ``twice`` are blocks that were anchored with different hashes: the ledger was rewritten."""

    def __init__(self, schema: str, keys: Mapping[str, bytes]) -> None:
        """``keys`` are the verifier's raw public keys by key id."""
        self._schema = schema
        self._keys = keys
        self.hashes: dict[int, bytes] = {}
        self.twice: list[int] = []

    def read(self, lines: Iterable[bytes], name: str) -> None:
        """A file's lines, with their line ends. A line that was cut short is passed over.

        Raises IncompleteEvidenceError for any other line that isn't an anchor, or whose signature isn't the given key's.
        """
        doubtful, is_ended = 0, False
        for number, line in enumerate(lines, 1):
            is_empty = not line.strip()
            if doubtful and not is_empty:
                break
            doubtful = 0 if is_empty or self._read_line(line, f"anchor {name}, line {number}") else number
            is_ended = line.endswith(b"\n")
        if doubtful and is_ended:
            raise IncompleteEvidenceError(f"anchor {name}, line {doubtful}: not an anchor")

    def _read_line(self, line: bytes, where: str) -> bool:
        try:
            said = orjson.loads(line)
            schema, block, key_id = said["schema"], int(said["block"]), said["key_id"]
            hash_, signature = bytes.fromhex(said["hash"]), bytes.fromhex(said["signature"] or "")
        except (ValueError, KeyError, TypeError):
            return False
        if schema != self._schema:
            return True
        if signature and self._keys:
            public = self._keys.get(key_id)
            if public is None or not is_signed_by(public, hash_, signature):
                raise IncompleteEvidenceError(f"{where}: not signed with a given key")
        if self.hashes.setdefault(block, hash_) != hash_:
            self.twice.append(block)
        return True
