r"""The rows, checked against the ledger's headers. Pure.

Fed with rows as ``COPY (SELECT all columns, row_hash last, ORDER BY id) TO STDOUT`` prints them in UTC. A row's line is all of it
but the last field, the tab before that, and the line end (``cdc_audit.seal.lines``). The rules, in their order:

1.  A block holds the ids from its ``first_id`` on, ``row_count`` of them. An id that no block holds was inserted, one that is there
    twice too, one that is missing was removed; unless a ``retention`` block names it, and its whole block is gone.
2.  SHA-256(0x00 || line) is the row's ``row_hash``. Else the row was altered; or reordered, if it gives its row_hash under the id
    of another such row of its block.
3.  The RFC 6962 root over the rows' hashes is the block's ``rows_root``. Where rule 2 is broken, the root over the stored
    row_hashes tells that only those rows were altered, and the root over the recomputed ones that only their row_hash was.
    Else a row and its row_hash were altered together: then the block is named.

Of a header that doesn't give its block_hash, neither ids nor root are believed: its rows are those between its neighbours'.
"""

from __future__ import annotations

import copy
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from cdc_audit.seal.merkle import MerkleTree
from cdc_audit.trail.verify_chain import Header
from cdc_audit.trail.verify_findings import Findings, Kind

_HASH_FIELD = 69  # bytes of the last field of a sound row: tab, two backslashes, x, 64 digits, line end
_BATCH = 1024
_FAR = 1 << 63
_MOST_KEPT = 50  # altered rows of a block that are compared with each other
_MOST_KEPT_BYTES = 1 << 22


class Span(NamedTuple):
    """The ids that a block holds: ``first`` to ``end`` - 1. ``root`` is None where the header is not believed.

    Of the last block's header, if it is not believed, nobody knows the end: then it is far away.
    """

    block: int
    first: int
    end: int
    root: bytes | None
    follows: bool  # whether the block before is there


def spans(headers: Sequence[Header], *, block: int, first: int, end_block: int | None) -> Iterator[Span]:
    """What the blocks before ``end_block`` hold, never overlapping. ``block`` is the first one, ``first`` its first id."""
    at, wanted = first, block
    for number, header in enumerate(headers):
        if header.number == end_block:
            return
        intact = header.intact
        following = headers[number + 1].intact if number + 1 < len(headers) else None
        begin = max(at, intact.first_id) if intact else at
        if intact is not None:
            end = max(begin, intact.first_id + max(intact.row_count, 0))
        elif following is not None:
            end = max(begin, following.first_id)
        else:
            end = _FAR
        root = intact.rows_root if intact is not None and begin == intact.first_id else None
        yield Span(header.number, begin, end, root, header.number == wanted)
        at, wanted = end, header.number + 1


class Altered(NamedTuple):
    """A row that doesn't give its row_hash."""

    id: int
    rest: bytes | None  # its line after the id, where it was kept
    stored: bytes


class Rows:
    """Checks the rows of neighbouring blocks. ``retired`` are ranges of ids (first, last) that retention took out."""

    def __init__(
        self, findings: Findings, blocks: Iterator[Span], retired: Sequence[tuple[int, int]]
    ) -> None:
        self._findings = findings
        self._spans = blocks
        self._retired = retired
        self.rows = 0
        self._open(next(self._spans, None))

    def _open(self, span: Span | None) -> None:
        self._span = span
        self._next = span.first if span else 0
        self._leaves: list[bytes] = []
        self._tree = MerkleTree()
        self._stored: MerkleTree | None = None  # with stored hashes where they differ
        self._altered: list[Altered] = []
        self._kept_bytes = 0
        self._is_whole = True

    def check(self, rows: Iterable[bytes]) -> None:
        """The next rows, each with its line end. The hot path: what is as it should be takes one comparison a row."""
        for row in rows:
            line = row[:-_HASH_FIELD]
            leaf = sha256(b"\0%b" % line).digest()
            if (
                self._stored is None
                and row[-_HASH_FIELD:] == b"\t\\\\x%b\n" % hexlify(leaf)
                and (span := self._span) is not None
                and self._next < span.end
                and line.startswith(b"%d\t" % self._next)
            ):
                self._leaves.append(leaf)
                self._next += 1
                if len(self._leaves) >= _BATCH:
                    self._grow()
            else:
                self._check_odd(row)
            self.rows += 1

    def finish(self) -> None:
        """After the last row: what is still due is missing."""
        while self._span is not None:
            self._close()

    def _grow(self) -> None:
        self._tree.extend(self._leaves)
        self._leaves = []

    def _check_odd(self, row: bytes) -> None:
        """A row that isn't simply the next one of the open block."""
        line, _, field = row.rstrip(b"\n").rpartition(b"\t")
        row_id = int(line[: line.index(b"\t")])
        while self._span is not None and row_id >= self._span.end:
            self._close()
        span = self._span
        if span is None or row_id < span.first:
            self._check_outside(row_id)
            return
        if row_id < self._next:
            self._add(Kind.INSERTED, row_id, row_id, "its id is there twice")
            self._is_whole = False
            return
        if row_id > self._next:
            self._miss(self._next, row_id - 1)
        leaf = sha256(b"\0" + line).digest()
        stored = _hash(field)
        if stored != leaf:
            self._note_altered(row_id, line, stored)
        if self._stored is None:
            self._leaves.append(leaf)
        else:
            self._tree.extend([leaf])
            self._stored.extend([stored])
        self._next = row_id + 1

    def _check_outside(self, row_id: int) -> None:
        """A row between two blocks, or beyond the last one. One whose block is gone is found with that block."""
        if self._span is None or self._span.follows:
            self._add(Kind.INSERTED, row_id, row_id, "no block holds it")

    def _note_altered(self, row_id: int, line: bytes, stored: bytes) -> None:
        self._grow()
        if self._stored is None:
            self._stored = copy.deepcopy(self._tree)
        rest = line[line.index(b"\t") :]
        keep = len(self._altered) < _MOST_KEPT and self._kept_bytes < _MOST_KEPT_BYTES
        if keep:
            self._kept_bytes += len(rest)
        if len(self._altered) < 100 * _MOST_KEPT:
            self._altered.append(Altered(row_id, rest if keep else None, stored))
        else:
            self._findings.uncounted += 1

    def _miss(self, first: int, last: int) -> None:
        self._add(Kind.REMOVED, first, last, "missing from its block")
        self._is_whole = False

    def _close(self) -> None:
        """The open block's end."""
        span = self._span
        assert span
        if self._next == span.first < span.end and self._is_retired(span):
            self._open(next(self._spans, None))
            return
        if self._next < span.end < _FAR:
            self._miss(self._next, span.end - 1)
        self._grow()
        if self._altered:
            self._name_altered(span)
        elif self._is_whole and span.root is not None and self._tree.root() != span.root:
            held = f"its rows {span.first} to {span.end - 1} do not give its rows_root"
            what = f"{held}: a row and its row_hash were altered together"
            self._findings.add(Kind.ALTERED, "block", span.block, span.block, what)
        self._open(next(self._spans, None))

    def _is_retired(self, span: Span) -> bool:
        return any(first <= span.first and span.end - 1 <= last for first, last in self._retired)

    def _name_altered(self, span: Span) -> None:
        assert self._stored
        if self._is_whole and self._tree.root() == span.root:
            for one in self._altered:
                self._add(Kind.ALTERED, one.id, one.id, "its row_hash was altered, the row itself was not")
            return
        reordered = _reordered(self._altered)
        for one in self._altered:
            if one.id in reordered:
                self._add(Kind.REORDERED, one.id, one.id, f"it was row {reordered[one.id]}")
            else:
                self._add(Kind.ALTERED, one.id, one.id, _NO_HASH)
        if self._is_whole and span.root is not None and self._stored.root() != span.root:
            what = "its rows do not give its rows_root: others than those named may have been altered"
            self._findings.add(Kind.ALTERED, "block", span.block, span.block, what)

    def _add(self, kind: Kind, first: int, last: int, what: str) -> None:
        self._findings.add(kind, "row", first, last, what)


_NO_HASH = "the row does not give its row_hash"


def _hash(field: bytes) -> bytes:
    """The stored row_hash, whatever it is by now."""
    return bytes.fromhex(field[3:].decode()) if field.startswith(b"\\\\x") else b""


def _reordered(altered: Sequence[Altered]) -> dict[int, int]:
    """Rows that give their row_hash under another one's id: that id by theirs."""
    kept = [(one.id, one.rest, one.stored) for one in altered if one.rest is not None]
    return {
        row_id: other
        for row_id, rest, stored in kept
        for other, _, _ in kept
        if sha256(b"\0%d%b" % (other, rest)).digest() == stored
    }
