"""One block after another: stretches go in, lines and headers come out. Pure: the clock's time is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cdc_audit.model.alert import DdlAlert, Fact
from cdc_audit.model.context import Trust
from cdc_audit.model.event import Stretch
from cdc_audit.model.ledger import Block
from cdc_audit.seal.block import block_hash
from cdc_audit.seal.lines import LineWriter
from cdc_audit.seal.merkle import MerkleTree
from cdc_audit.seal.personal import Random
from cdc_audit.seal.redact import NO_RULES, Redaction

_NO_FACTS: Mapping[Fact, int] = MappingProxyType({})
_SECOND = len("2026-11-22 19:19:02")


class Sealed(NamedTuple):
    """A closed block, its hash, and what it holds, counted for whoever watches.

    ``oldest_commit_at`` is the commit time of its first transaction as PostgreSQL prints it, "" without one. ``facts``: how many
    rows each is true of, in the order of their first ones; nothing, if nobody asks.
    """

    block: Block
    block_hash: bytes
    transactions: int
    oldest_commit_at: str
    rows_by_action: Counter[str]
    rows_by_trust: Counter[str]
    suppressed_by_table: Counter[str]
    missing_rows: Counter[tuple[str, str]]
    redacted_values: int
    alerts: tuple[DdlAlert, ...] = ()
    facts: Mapping[Fact, int] = _NO_FACTS


class BlockBuilder:
    """The open block on top of the ledger's last one.

    ``key_id`` names the key that its blocks are going to be signed with, "" if none. ``rows``, ``size`` (bytes of lines and
    openings) and ``transactions`` tell how full it is. Lines can be taken before it is closed. ``random`` gives random bytes;
    it is needed where ``redaction`` says that values are personal. ``keeps_facts``: rules are going to ask about its blocks.
    """

    def __init__(
        self,
        previous: Block,
        previous_hash: bytes,
        *,
        timeline: int,
        redaction: Redaction = NO_RULES,
        random: Random | None = None,
        key_id: str = "",
        keeps_facts: bool = False,
    ) -> None:
        self._previous = previous
        self._previous_hash = previous_hash
        self._timeline = timeline
        self._key_id = key_id
        self._lines = LineWriter(redaction, random)
        self._facts: dict[Fact, int] | None = None
        self._names_by_email = "user_email" not in redaction.personal_context
        self._next_id = previous.first_id + previous.row_count
        self._end_lsn = previous.end_lsn
        self._last_commit_at = previous.last_commit_at
        self._next_seq = 1
        self._open()
        self.keep_facts(keeps_facts)

    def _open(self) -> None:
        self.rows = 0
        self.size = 0
        self.transactions = 0
        self.is_mid_transaction = False
        self._tree = MerkleTree()
        self._taken: list[bytes] = []
        self._month = ""
        self._oldest_commit_at = ""
        self._by_trust: Counter[str] = Counter()
        self._facts = None if self._facts is None else {}

    @property
    def end_lsn(self) -> int:
        """The position through which everything is in this block or an earlier one."""
        return self._end_lsn

    @property
    def last_commit_at(self) -> str:
        """The commit time of the last transaction in this block or an earlier one, as PostgreSQL prints it; "" without one."""
        return self._last_commit_at

    def set_redaction(self, redaction: Redaction) -> None:
        """Redact by other rules from here on."""
        self._lines.set_redaction(redaction)
        self._names_by_email = "user_email" not in redaction.personal_context

    def keep_facts(self, keeps: bool) -> None:
        """Whether rules are going to ask about the rows from here on."""
        if keeps != (self._facts is not None):
            self._facts = {} if keeps else None
            self._lines.kinds = Counter() if keeps else None

    def fits(self, stretch: Stretch) -> bool:
        """Whether a stretch may go into this block: its rows lie in one month's partition, and a transaction that flows in
        parts has a block of its own, so that none before it waits for its end.
        """
        if not self.rows or not stretch.starts:
            return True
        return stretch.is_whole and stretch.transaction.committed_at[:7] == self._month

    def add(self, stretch: Stretch) -> None:
        """Write the stretch's changes into the block."""
        transaction = stretch.transaction
        if stretch.starts:
            self._next_seq = 1
            self.is_mid_transaction = True
        count = len(stretch.changes)
        if count:
            self._write(stretch, count)
        if stretch.ends:
            self.is_mid_transaction = False
            self._end_lsn = transaction.end_lsn
            self._last_commit_at = transaction.committed_at
            self.transactions += 1

    def _write(self, stretch: Stretch, count: int) -> None:
        lines: list[bytes] = []
        leaves: list[bytes] = []
        self._lines.write(
            stretch.transaction,
            stretch.context,
            stretch.changes,
            first_id=self._next_id,
            first_seq=self._next_seq,
            lines=lines,
            leaves=leaves,
        )
        self._tree.extend(leaves)
        self._taken += lines
        self.size += sum(map(len, lines)) + self._lines.openings.take_size()
        self.rows += count
        self._next_id += count
        self._next_seq += count
        self._by_trust[stretch.context.trust] += count
        self._month = stretch.transaction.committed_at[:7]
        self._oldest_commit_at = self._oldest_commit_at or stretch.transaction.committed_at
        if self._facts is not None and self._lines.kinds is not None:
            self._keep(self._facts, self._lines.kinds, stretch)

    def _keep(self, facts: dict[Fact, int], kinds: Counter[tuple[str, str]], stretch: Stretch) -> None:
        """Count the stretch's rows among the facts: a few for each transaction, however many rows it has."""
        context = stretch.context
        at = stretch.transaction.committed_at[:_SECOND]
        user = context.user_id or (context.user_email if self._names_by_email else "")
        has_context = context.trust is not Trust.NONE
        for (table, action), rows in kinds.items():
            fact = (at, user, context.ip_address, has_context, table, action)
            facts[fact] = facts.get(fact, 0) + rows
        kinds.clear()

    def take(self) -> bytes:
        """The lines added since the last call, in order."""
        data = b"".join(self._taken)
        self._taken.clear()
        return data

    def take_openings(self) -> bytes:
        """Their personal values' openings, in order; b"" if they have none."""
        return self._lines.openings.take()

    def close(self, *, kind: str, written_at: str, end_lsn: int = 0, detail: str = "") -> Sealed:
        """The block's header, and an empty block on top of it. ``end_lsn`` moves the position of a block without rows."""
        assert not self.is_mid_transaction, "a block ends at a commit"
        self._end_lsn = max(self._end_lsn, end_lsn)
        block = Block(
            self._previous.block + 1,
            kind,
            self._next_id - self.rows,
            self.rows,
            self._previous.system_identifier,
            self._timeline,
            self._previous.slot,
            self._previous.end_lsn,
            self._end_lsn,
            self._last_commit_at,
            written_at,
            self._tree.root(),
            self._previous_hash,
            self._lines.openings.detail(detail),
            self._key_id,
        )
        lines = self._lines
        sealed = Sealed(
            block,
            block_hash(block),
            self.transactions,
            self._oldest_commit_at,
            lines.rows_by_action,
            self._by_trust,
            lines.suppressed_by_table,
            lines.missing_rows,
            lines.redacted_values,
            facts=self._facts or _NO_FACTS,
        )
        lines.start_counting()
        self._previous, self._previous_hash = block, sealed.block_hash
        self._open()
        return sealed
