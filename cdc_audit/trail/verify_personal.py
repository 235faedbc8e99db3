r"""The openings of personal values, checked against the ledger's headers and the rows (``cdc_audit.seal.personal``). Pure.

Fed with ``COPY (SELECT id, part, field, commitment, salt, value, what stands at that place in the row ORDER BY id, part, field) TO
STDOUT``. The rules, in their order; where one is broken, rule 3 is left out for the block:

1.  The commitment stands in the row, at the place that part and field name. Of a row that retention took out that can't be seen
    here, and need not: rule 3 pins the commitment, and the archive's rows_root the row.
2.  Salt and value give the commitment; or both are null, and an ``erasure`` block names the row and the part. A value that is there
    although such a block names it was put back: that is an alteration, too.
3.  A block has as many openings as its header says, with the hash that it says, also if retention took its rows out: openings stay.
    Whether a text in a row is a commitment is never guessed: it could be anybody's data.

An ``erasure`` block names rows before it only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

from cdc_audit.seal.copy_text import NULL, unescape
from cdc_audit.seal.personal import Erasure, commitment, said_of, text_of
from cdc_audit.trail.verify_chain import Header
from cdc_audit.trail.verify_findings import Findings, Kind
from cdc_audit.trail.verify_rows import Span


class Ranges:
    """Ids, by inclusive ranges in any order."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(ranges):
            if self._lasts and first <= self._lasts[-1]:
                self._lasts[-1] = max(self._lasts[-1], last)
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def hold(self, row_id: int) -> bool:
        """Whether an id is in one of them."""
        at = bisect_right(self._firsts, row_id) - 1
        return at >= 0 and row_id <= self._lasts[at]


class Erased:
    """Which rows' parts all erasures name, together."""

    def __init__(self, erasures: Iterable[Erasure]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for erasure in erasures:
            for part in erasure.parts:
                ranges.setdefault(part, []).extend(erasure.ids)
        self._ranges = {part: Ranges(found) for part, found in ranges.items()}

    def names(self, row_id: int, part: str) -> bool:
        """Whether one of them names this part of a row."""
        return part in self._ranges and self._ranges[part].hold(row_id)


class Openings:
    """Checks the openings of neighbouring blocks. ``headers`` are those of the spans; ``retired`` as for ``verify_rows.Rows``.

    ``count`` openings were seen, ``erased_values`` of them erased, in ``erased_rows`` rows.
    """

    def __init__(
        self,
        findings: Findings,
        blocks: Iterator[Span],
        headers: Sequence[Header],
        erased: Erased,
        retired: Sequence[tuple[int, int]],
    ) -> None:
        self._findings = findings
        self._spans = blocks
        self._details: Mapping[int, str] = {
            header.number: header.intact.detail
            for header in headers
            if header.intact and header.intact.kind in {"data", "snapshot"}
        }
        self._erased = erased
        self._retired = Ranges(retired)
        self.count = self.erased_values = self.erased_rows = 0
        self._erased_row = 0
        self._open(next(self._spans, None))

    def _open(self, span: Span | None) -> None:
        self._span = span
        self._found = 0
        self._hash = sha256()
        self._is_sound = True

    def check(self, rows: Iterable[bytes]) -> None:
        """The next openings, each with its line end."""
        for row in rows:
            self.count += 1
            fields = row.rstrip(b"\n").split(b"\t")
            row_id = int(fields[0])
            while self._span is not None and row_id >= self._span.end:
                self._close()
            if self._span is None or row_id < self._span.first:
                self._add(Kind.INSERTED, row_id, "an opening that no block holds")
                continue
            self._found += 1
            self._hash.update(b"\t".join([*fields[:3], fields[3][3:]]) + b"\n")
            if (harm := self._harm(row_id, fields)) is not None:
                self._is_sound = False
                self._add(harm[0], row_id, harm[1])

    def finish(self) -> None:
        """After the last opening: what is still due is missing."""
        while self._span is not None:
            self._close()

    def _harm(self, row_id: int, fields: list[bytes]) -> tuple[Kind, str] | None:
        """Rules 1 and 2."""
        part = fields[1].decode()
        committed = bytes.fromhex(fields[3][3:].decode())
        is_archived = fields[6] == NULL and self._retired.hold(row_id)
        if unescape(fields[6]) != text_of(committed).encode() and not is_archived:
            return Kind.ALTERED, f"a commitment of its {part} does not stand in the row"
        is_named = self._erased.names(row_id, part)
        if fields[4] == fields[5] == NULL:
            if not is_named:
                return Kind.REMOVED, f"a personal value of its {part} is gone without an erasure block"
            self.erased_values += 1
            self.erased_rows += row_id != self._erased_row
            self._erased_row = row_id
            return None
        salt = bytes.fromhex(fields[4][3:].decode()) if fields[4] != NULL else b""
        if commitment(salt, unescape(fields[5])) != committed:
            return Kind.ALTERED, f"a personal value of its {part} does not give its commitment"
        if is_named:
            return (
                Kind.ALTERED,
                f"a personal value of its {part} is there, although an erasure block names it",
            )
        return None

    def _close(self) -> None:
        """The open block's end: rule 3."""
        span = self._span
        assert span
        try:
            self._judge(span, *said_of(self._details.get(span.block, "")))
        except ValueError:
            self._findings.add(Kind.BROKEN, "block", span.block, span.block, "its detail can't be read")
        self._open(next(self._spans, None))

    def _judge(self, span: Span, count: int, hash_: str) -> None:
        if not self._is_sound or span.root is None:
            return
        if self._found == count and (not count or self._hash.hexdigest() == hash_):
            return
        kind = Kind.ALTERED
        if self._found != count:
            kind = Kind.REMOVED if self._found < count else Kind.INSERTED
        what = f"openings of personal values are not what its header says: {self._found:,}, it says {count:,}"
        self._findings.add(kind, "block", span.block, span.block, what)

    def _add(self, kind: Kind, row_id: int, what: str) -> None:
        self._findings.add(kind, "row", row_id, row_id, what)
