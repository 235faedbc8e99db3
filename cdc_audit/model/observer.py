"""What the pipeline tells whoever watches; ``ops`` implements it, the tests record it. Never given row values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from cdc_audit.model.alert import DdlAlert, SuspiciousAlert
from cdc_audit.model.ledger import Receipt


class SlotState(NamedTuple):
    """The slot as pg_replication_slots shows it, polled by the sidecar. Sizes in bytes, None where the server has none.

    ``settled_lsn`` is the position through which everything is durable or had nothing to store; ``lag_bytes`` is the
    source's insert position minus it; ``retained_bytes`` is the WAL that the server keeps for the slot.
    ``tables_without_identity`` counts tables in scope whose UPDATE or DELETE can't be captured.
    """

    active: bool
    wal_status: str
    lag_bytes: int
    retained_bytes: int
    safe_wal_bytes: int | None
    settled_lsn: int
    tables_without_identity: int


class BlockCounts(NamedTuple):
    """What one committed block held: rows by action, by trust of their context, suppressed changes by ``schema.table``."""

    transactions: int
    rows_by_action: Mapping[str, int]
    rows_by_trust: Mapping[str, int]
    suppressed_by_table: Mapping[str, int]
    # Without any context, by schema.table and application ("": unknown).
    missing_rows: Mapping[tuple[str, str], int]
    redacted_values: int


class Observer(Protocol):
    """Told of each thing that happened, in order. Must not block and must not raise."""

    def state(self, name: str, reason: str | None) -> None:
        """The daemon is now ``starting``, ``standby``, ``streaming``, ``waiting`` or ``stopped``; why, unless it is well."""

    def ticked(self) -> None:
        """The loop went round (liveness)."""

    def block_committed(self, receipt: Receipt, counts: BlockCounts, oldest_commit_seconds: float) -> None:
        """A block is durable; its oldest source commit was ``oldest_commit_seconds`` before (unix time of that commit)."""

    def slot_polled(self, slot: SlotState) -> None:
        """The sidecar looked at the slot."""

    def anchored(self, kind: str, target: str, reason: str | None) -> None:
        """An anchor (``kind``: file, https or s3) has taken the newest block, or not, and why; no secrets in ``target``."""

    def reconnected(self, side: str) -> None:
        """A connection to ``source`` or ``audit`` was lost and is being made again."""

    def ddl_alert(self, alert: DdlAlert) -> None:
        """DDL hides changes from the trail; its row, where it has one, is durable."""

    def suspicious(self, alert: SuspiciousAlert) -> None:
        """A rule of the configuration has found something; its row is durable."""

    def warned(self, event: str, **facts: object) -> None:
        """Something an operator should know: ``event`` in snake_case, facts without row values."""

    def informed(self, event: str, **facts: object) -> None:
        """Something worth a line in the log."""
