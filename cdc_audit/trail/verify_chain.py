r"""The ledger's chain, checked header by header. Pure.

Fed with the ledger as ``COPY ledger (block, ..., key_id, block_hash, signature) TO STDOUT`` prints it in UTC, in order of block.
The rules, in their order; where one is broken, those that would only repeat it are left out:

1.  Block numbers are dense and begin with 0. What is missing was removed.
2.  ``block_hash`` is SHA-256(0x02 || header line) (``cdc_audit.seal.block``). Else the header was altered.
3.  ``prev_hash`` is the hash of the block before, 32 zero bytes in block 0. Else the chain is broken between the two.
4.  ``first_id`` is the one after the last id of the block before, 1 in block 0; ``row_count`` is not negative.
5.  ``start_lsn`` is the ``end_lsn`` of the block before, ``end_lsn`` is not below it except in a ``divergence``. The timeline
    never falls and changes only in a ``timeline`` or ``divergence``. Cluster and slot stay the same. Only block 0, and always it,
    is ``genesis``.
6.  Each block is signed with the key that is due: that of the block before, or the one that a ``key`` block made its successor
    (``cdc_audit.seal.signature``); so neither an old key signs a newer block, nor a newer key an older one. Signatures are checked
    with the keys that the verifier brought, never with one from the database; a block signed with any other key is wrong. After a
    header that is missing or altered, each of the brought keys may go on.
7.  Blocks are unsigned only before the ``key`` block that begins signing; its signature covers them by rule 3.
8.  A block for which the verifier brought an anchor has the anchored hash; a block that is anchored is there.

Evidence is incomplete, though nothing is wrong, if the ledger is empty; if blocks are signed and no key was brought; if a key was
brought and no block is signed, or none with that key; if anchors were demanded and none fits this ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import NO_HASH, header_hash, parse_header
from cdc_audit.seal.copy_text import NULL
from cdc_audit.seal.manifest import Retired, purged_of, retired_of
from cdc_audit.seal.personal import Erasure, erasure_of
from cdc_audit.seal.signature import is_signed_by, key_after, succession_of
from cdc_audit.trail.verify_findings import Findings, Kind

_HEADER_FIELDS = len(Block._fields)


class Header(NamedTuple):
    """One row of the ledger; ``block`` is None if it can't be read. ``hash`` is recomputed, ``stored_hash`` what stands there."""

    number: int
    line: bytes
    block: Block | None
    hash: bytes
    stored_hash: bytes
    signature: bytes

    @property
    def intact(self) -> Block | None:
        """The block, if its header gives its block_hash."""
        return self.block if self.hash == self.stored_hash else None


def parse_row(row: bytes) -> Header:
    """A row of the ledger's COPY, without line end."""
    fields = row.split(b"\t")
    line = b"\t".join(fields[:_HEADER_FIELDS])
    try:
        block = parse_header(line)
    except ValueError:
        block = None
    return Header(int(fields[0]), line, block, header_hash(line), *map(_bytes, fields[_HEADER_FIELDS:]))


def _bytes(field: bytes) -> bytes:
    return b"" if field == NULL else bytes.fromhex(field[3:].decode())


class Chain:
    """Walks the chain from block ``first`` on. ``base`` is the header before it, where it isn't block 0.

    ``keys`` are raw public keys by key id, ``anchors`` hashes by block number: both the verifier's own.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        keys: Mapping[str, bytes],
        anchors: Mapping[int, bytes],
        first: int = 0,
        base: Header | None = None,
    ) -> None:
        self._findings = findings
        self._keys = keys
        self._anchors = anchors
        self._first = first
        self._last = base
        # "" while nothing is signed; None where it can't be known, because the header before is missing or altered.
        self._due_key: str | None = (
            "" if not first else key_after(base.block) if base and base.block else None
        )
        self._used_keys: set[str] = set()
        self.blocks = 0
        self.signed = 0
        self.anchored = 0
        self.retirements: list[Retired] = []
        self.purged_rows = 0
        self.erasures: list[Erasure] = []

    @property
    def last(self) -> Header | None:
        """The newest header so far."""
        return self._last

    @property
    def retired(self) -> list[tuple[int, int]]:
        """The rows that were taken out, as inclusive ranges of ids."""
        return [one for retirement in self.retirements for one in retirement.ids]

    def check(self, header: Header) -> None:
        """The next header."""
        before, number = self._last, header.number
        wanted = before.number + 1 if before else self._first
        if number > wanted:
            self._add(Kind.REMOVED, wanted, number - 1, "not in the ledger")
            self._due_key = None
        elif number < wanted:
            self._add(Kind.INSERTED, number, number, "is in the ledger twice")
        if header.intact is None:
            self._add(Kind.ALTERED, number, number, "its header does not give its block_hash")
            self._due_key = None
        else:
            if number == wanted:
                self._check_link(before, header, header.intact)
            self._check_signature(header, header.intact)
            self._note_retention(header.intact)
            self._note_erasure(header.intact)
        self._check_anchor(header)
        self._last = header
        self.blocks += 1

    def _add(self, kind: Kind, first: int, last: int, what: str) -> None:
        self._findings.add(kind, "block", first, last, what)

    def _check_link(self, before: Header | None, header: Header, block: Block) -> None:
        """Rules 3 to 5, for a header that gives its hash."""
        if before is None and self._first:
            self._add(Kind.REMOVED, self._first - 1, self._first - 1, "not in the ledger")
            return
        if before is None:
            if block.prev_hash != NO_HASH:
                self._add(Kind.BROKEN, 0, 0, "the first block names a block before it")
            if (block.kind, block.first_id) != ("genesis", 1):
                self._add(Kind.BROKEN, 0, 0, "the trail does not begin here")
            return
        if block.prev_hash not in (before.hash, before.stored_hash):
            what = "prev_hash is not the hash of the block before: one of the two was replaced"
            self._add(Kind.BROKEN, before.number, header.number, what)
        if before.intact and (broken := _misfit(before.intact, block)):
            self._add(Kind.BROKEN, header.number, header.number, broken)

    def _check_signature(self, header: Header, block: Block) -> None:
        """Rules 6 and 7."""
        number = header.number
        if not block.key_id:
            if self._due_key:
                self._add(Kind.UNSIGNED, number, number, f"not signed, key {self._due_key} was due")
            elif header.signature:
                self._add(Kind.ALTERED, number, number, "it has a signature, but names no key")
            return
        self.signed += 1
        if not header.signature:
            self._add(Kind.UNSIGNED, number, number, f"names key {block.key_id}, but has no signature")
        elif (wrong := self._wrong_signature(header, block)) is not None:
            self._add(Kind.WRONG_KEY, number, number, wrong)
            self._due_key = None if block.kind == "key" else self._due_key or block.key_id
        else:
            self._used_keys.add(block.key_id)
            self._succeed(block)

    def _wrong_signature(self, header: Header, block: Block) -> str | None:
        if self._due_key and block.key_id != self._due_key:
            return f"signed with key {block.key_id}, due was key {self._due_key}"
        if self._due_key == "" and header.number and block.kind != "key":
            return "signing begins here, without a key block that says so"
        if not self._keys:
            return None
        public = self._keys.get(block.key_id)
        if public is None:
            return f"signed with key {block.key_id}, which is none of the given ones"
        if not is_signed_by(public, header.hash, header.signature):
            return f"the signature is not key {block.key_id}'s for this header"
        return None

    def _succeed(self, block: Block) -> None:
        """A block that is signed as it is due, as far as can be known: which key is due for the next one."""
        due, self._due_key = self._due_key, block.key_id
        if block.kind != "key":
            return
        found = succession_of(block.detail, block.prev_hash)
        if found is None or due not in (found.old, None) or block.key_id != (found.old or found.new):
            self._add(Kind.WRONG_KEY, block.block, block.block, "the succession of keys in it is not right")
        else:
            self._due_key = found.new

    def _note_retention(self, block: Block) -> None:
        """Rows that a ``retention`` block says were taken out, and how many of them a ``purge`` block says are nowhere any more."""
        try:
            if block.kind == "retention":
                self.retirements.append(retired_of(block))
                self.purged_rows += 0 if self.retirements[-1].manifest else self.retirements[-1].rows
            elif block.kind == "purge":
                self.purged_rows += purged_of(block)[1]
        except ValueError:
            self._add(Kind.BROKEN, block.block, block.block, "its detail does not name the rows taken out")

    def _note_erasure(self, block: Block) -> None:
        """Personal values that an ``erasure`` block says were erased."""
        if block.kind != "erasure":
            return
        try:
            self.erasures.append(erasure_of(block))
        except ValueError:
            self._add(Kind.BROKEN, block.block, block.block, "its detail does not name values before it")

    def _check_anchor(self, header: Header) -> None:
        """Rule 8, for blocks that are there."""
        anchored = self._anchors.get(header.number)
        if anchored is None:
            return
        self.anchored += 1
        if anchored not in (header.hash, header.stored_hash):
            self._add(Kind.ALTERED, header.number, header.number, "not the block that was anchored")

    def finish(self, *, wants_anchors: bool) -> list[str]:
        """At the ledger's end: report a tail that is cut off; returns what is missing for a verdict."""
        first = self._first
        missing: list[str] = []
        end = self._last.number if self._last and self.blocks else first - 1
        newest = max(self._anchors, default=-1)
        if newest > end:
            self._add(Kind.CUT_OFF, end + 1, newest, "anchored, but not in the ledger")
        if not self.blocks:
            missing.append(
                "the ledger is empty" if not first else f"the ledger has no block {first} or later"
            )
        if self.signed and not self._keys:
            missing.append("blocks are signed, but no public key was given (--public-key)")
        if self._keys and not self.signed and self.blocks:
            missing.append("a public key was given, but no block is signed")
        elif self._keys and not first and self.blocks:
            missing += [
                f"key {key} was given, but no block is signed with it"
                for key in sorted(self._keys.keys() - self._used_keys - {self._due_key or ""})
            ]
        if wants_anchors and not any(number >= first for number in self._anchors):
            missing.append("anchors were asked for, but there is none for these blocks")
        return missing


def _misfit(before: Block, block: Block) -> str | None:
    """Rules 4 and 5, between two headers that both give their hashes."""
    if block.first_id != before.first_id + before.row_count or block.row_count < 0:
        return "its ids do not go on where the block before ends"
    if block.start_lsn != before.end_lsn or (block.end_lsn < block.start_lsn and block.kind != "divergence"):
        return "its positions do not go on where the block before ends"
    turns = block.kind in {"timeline", "divergence"}
    if block.timeline < before.timeline or (block.timeline != before.timeline and not turns):
        return "the timeline changes without a block that says so"
    if (block.system_identifier, block.slot) != (before.system_identifier, before.slot):
        return "it is about another cluster or slot"
    if block.kind == "genesis":
        return "a trail begins only once"
    return None


def boundaries(headers: Iterable[Header], rows: int, blocks: int) -> Iterable[Header]:
    """The headers at which the rows can be parted into stretches of at least so many rows or blocks.

    Only at headers that are intact and go on where the intact one before ends, so each stretch can be checked by itself.
    """
    at: Header | None = None
    before: Header | None = None
    for header in headers:
        block = header.intact
        if block is not None and before is not None and before.intact is not None and at is not None:
            start = at.intact
            assert start
            enough = block.first_id - start.first_id >= rows or block.block - start.block >= blocks
            if enough and header.number == before.number + 1 and _misfit(before.intact, block) is None:
                yield header
                at = header
        elif at is None and block is not None:
            at = header
        before = header
