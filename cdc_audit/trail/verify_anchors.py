"""Anchors that a verifier brings: which block had which hash, and when. Pure; how they look: ``cdc_audit.sink.anchor``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from cdc_audit.errors import IncompleteEvidenceError
from cdc_audit.seal.signature import is_signed_by


class Anchors:
    """Hashes by block of one ledger. ``twice`` are blocks that were anchored with different hashes: the ledger was rewritten.

    ``missing`` says why what the verifier named gives less evidence than it should, ``notes`` what somebody did to anchors.
    """

    def __init__(self, schema: str, keys: Mapping[str, bytes]) -> None:
        """``keys`` are the verifier's raw public keys by key id."""
        self.schema = schema
        self._keys = keys
        self.hashes: dict[int, bytes] = {}
        self.twice: list[int] = []
        self.missing: list[str] = []
        self.notes: list[str] = []

    def read(self, lines: Iterable[bytes], name: str) -> int:
        """A file's lines, with their line ends. A line that was cut short is passed over. How many are of this ledger.

        Raises IncompleteEvidenceError for any other line that isn't an anchor, or whose signature isn't the given key's.
        """
        count, doubtful, is_ended = 0, 0, False
        for number, line in enumerate(lines, 1):
            is_empty = not line.strip()
            if doubtful and not is_empty:
                break
            fits = None if is_empty else self._read_line(line, f"anchor {name}, line {number}")
            doubtful = number if fits is None and not is_empty else 0
            count += bool(fits)
            is_ended = line.endswith(b"\n")
        if doubtful and is_ended:
            raise IncompleteEvidenceError(f"anchor {name}, line {doubtful}: not an anchor")
        return count

    def _read_line(self, line: bytes, where: str) -> bool | None:
        """Whether it is of this ledger; None if it is no anchor."""
        try:
            said = orjson.loads(line)
            schema, block, key_id = said["schema"], int(said["block"]), said["key_id"]
            hash_, signature = bytes.fromhex(said["hash"]), bytes.fromhex(said["signature"] or "")
        except (ValueError, KeyError, TypeError):
            return None
        if schema != self.schema:
            return False
        if signature and self._keys:
            public = self._keys.get(key_id)
            if public is None or not is_signed_by(public, hash_, signature):
                raise IncompleteEvidenceError(f"{where}: not signed with a given key")
        if self.hashes.setdefault(block, hash_) != hash_:
            self.twice.append(block)
        return True
