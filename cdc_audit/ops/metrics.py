"""Every metric of the daemon, by name; those of `cdc-audit reads follow`, another process, are in ops/reads_watch.py.

Names, labels and units are a public interface (README). Labels are bounded: tables, actions, never users
or records, rules of the configuration, and no metric ever holds a row value. Of applications' names only the first 50 are
told apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from cdc_audit.model.alert import AlertKind
from cdc_audit.ops.lag import Lag
from cdc_audit.ops.tiers import Tiers

_PREFIX = "cdc_audit"
_MAX_APPLICATIONS = 50
# pg_replication_slots.wal_status; all are always exported, so that an alerting rule can name one.
WAL_STATUSES = ("reserved", "extended", "unreserved", "lost")
_COMMIT_TO_DURABLE = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0),
)
_BLOCK_WRITE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """All metrics of one daemon in a registry of their own."""

    def __init__(
        self,
        *,
        version: str,
        psycopg_implementation: str,
        source: str,
        rules: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        # A *_created series beside each counter would double the output and has the wrong suffix for linters.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._clock = clock
        self._rules = tuple(rules)
        self._lag = Lag(clock())
        self._state = "starting"
        self._applications: set[str] = set()
        ProcessCollector(registry=self._registry)
        Info(
            f"{_PREFIX}_build",
            "The program, its driver, and the name of its source.",
            registry=self._registry,
        ).info({"version": version, "psycopg": psycopg_implementation, "source": source})
        self._make_slot_metrics()
        self._make_row_metrics()
        self._make_block_metrics()
        self._make_tier_metrics()

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and body of ``/metrics`` for a request's Accept header."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def slot(
        self,
        *,
        active: bool,
        wal_status: str,
        lag_bytes: int,
        retained_bytes: int,
        safe_wal_bytes: int | None,
        confirmed_lsn: int,
        tables_without_identity: int,
    ) -> None:
        """What the slot looked like just now."""
        self._lag.saw_source(self._clock(), confirmed_lsn + lag_bytes, confirmed_lsn)
        self.replication_lag_bytes.set(lag_bytes)
        self.slot_retained_bytes.set(retained_bytes)
        unknown = 0.0 if wal_status == "lost" else math.inf
        self.slot_safe_wal_bytes.set(unknown if safe_wal_bytes is None else safe_wal_bytes)
        self.slot_active.set(active)
        for status in {*WAL_STATUSES, wal_status}:
            self.slot_wal_status.labels(status).set(status == wal_status)
        self.tables_without_identity.set(tables_without_identity)

    def durable(self, lsn: int, committed_at: float) -> None:
        """Everything up to ``lsn`` is durable; the unix time of its last commit, or 0 where none is known."""
        self._lag.made_durable(lsn, committed_at)
        if committed_at:
            self.last_commit_timestamp_seconds.set(committed_at)

    def state(self, name: str) -> None:
        """The state as in ``Observer.state``: a standby doesn't know the lag, who waits isn't caught up."""
        self._state = name

    def tiers(self, found: Tiers) -> None:
        """What is where, counted just now."""
        for tier, rows, size in (
            ("hot", found.hot_rows, found.hot_bytes),
            ("archive", found.archive_rows, found.archive_bytes),
        ):
            self.tier_rows.labels(tier).set(rows)
            self.tier_bytes.labels(tier).set(size)
        self.default_partition_rows.set(found.default_rows)
        self.oldest_hot_month_timestamp_seconds.set(found.oldest_hot_month)
        self.retention_due_months.set(found.due_months)
        self.last_archive_timestamp_seconds.set(found.last_archive)
        self.legal_holds.set(found.holds)

    def count(self, counter: Counter, amounts: Mapping[str, int]) -> None:
        """Add amounts by the value of the counter's one label."""
        for label, amount in amounts.items():
            counter.labels(label).inc(amount)

    def without_context(self, amounts: Mapping[tuple[str, str], int]) -> None:
        """Add rows by table and application; the names of applications are anybody's, so only so many are told apart."""
        for (table, application), amount in amounts.items():
            if len(self._applications) < _MAX_APPLICATIONS:
                self._applications.add(application)
            known = application if application in self._applications else "other"
            self.rows_without_context_total.labels(table, known or "unknown").inc(amount)

    def _make_slot_metrics(self) -> None:
        self.ready = self._gauge("ready", "1 while the trail is being written; 0: /readyz says why it isn't.")
        self.replication_lag_bytes = self._gauge(
            "replication_lag_bytes", "WAL of the source that isn't yet durable in the trail and acknowledged."
        )
        self.replication_lag_seconds = self._gauge(
            "replication_lag_seconds",
            "How long ago the last moment is up to which the trail is complete; 0: caught up, NaN: standby.",
        )
        self.replication_lag_seconds.set_function(self._lag_seconds)
        self.slot_retained_bytes = self._gauge(
            "slot_retained_bytes", "WAL that the source keeps because of the slot."
        )
        self.slot_safe_wal_bytes = self._gauge(
            "slot_safe_wal_bytes",
            "WAL that may still be written before the slot can be lost; +Inf without a limit.",
        )
        self.slot_active = self._gauge("slot_active", "1 while a process is reading the slot.")
        self.slot_wal_status = self._gauge(
            "slot_wal_status", "1 for the slot's present wal_status, 0 for the others.", "wal_status"
        )
        for status in WAL_STATUSES:
            self.slot_wal_status.labels(status)
        self.tables_without_identity = self._gauge(
            "tables_without_identity", "Tables in scope whose UPDATE or DELETE can't be captured."
        )
        self.reconnects_total = self._counter(
            "reconnects_total", "Connections lost and made again, by side.", "side"
        )
        for side in ("source", "audit"):
            self.reconnects_total.labels(side)

    def _make_row_metrics(self) -> None:
        self.rows_total = self._counter("rows_total", "Audit rows made durable, by action.", "action")
        for action in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "DDL"):
            self.rows_total.labels(action)
        self.context_rows_total = self._counter(
            "context_rows_total", "Audit rows made durable, by how far their context can be trusted.", "trust"
        )
        for trust in ("none", "asserted", "signed", "forged", "invalid"):
            self.context_rows_total.labels(trust)
        self.rows_without_context_total = self._counter(
            "rows_without_context_total",
            f"Audit rows of which nobody said who acted, by table and application (of {_MAX_APPLICATIONS} names).",
            "table",
            "application",
        )
        self.suppressed_changes_total = self._counter(
            "suppressed_changes_total",
            "Changes without images, for want of a replica identity, by table.",
            "table",
        )
        self.redacted_values_total = self._counter(
            "redacted_values_total", "Values that redaction has hidden."
        )

    def _make_block_metrics(self) -> None:
        self.transactions_total = self._counter("transactions_total", "Source transactions made durable.")
        self.blocks_total = self._counter("blocks_total", "Blocks appended to the ledger, by kind.", "kind")
        for kind in ("data", "heartbeat", "gap", "divergence", "poison"):
            self.blocks_total.labels(kind)
        self.last_block = self._gauge("last_block", "Number of the ledger's last block.")
        self.last_commit_timestamp_seconds = self._gauge(
            "last_commit_timestamp_seconds", "Commit time, on the source, of the last durable transaction."
        )
        self.commit_to_durable_seconds = self._histogram(
            "commit_to_durable_seconds",
            "From a block's oldest commit on the source until it is durable.",
            _COMMIT_TO_DURABLE,
        )
        self.block_write_seconds = self._histogram(
            "block_write_seconds", "Writing a block, with its COMMIT.", _BLOCK_WRITE
        )
        self.anchor_failures_total = self._counter(
            "anchor_failures_total", "Anchors that could not be written, by kind of target.", "kind"
        )
        for kind in ("file", "https", "s3"):
            self.anchor_failures_total.labels(kind)
        self.last_anchor_timestamp_seconds = self._gauge(
            "last_anchor_timestamp_seconds", "When a target of this kind last took an anchor.", "kind"
        )
        self.ddl_alerts_total = self._counter(
            "ddl_alerts_total",
            "DDL that hides changes of audited tables or takes them away, by kind (needs a hardened source).",
            "kind",
        )
        for alert in AlertKind:
            self.ddl_alerts_total.labels(alert.value)
        self.suspicious_total = self._counter(
            "suspicious_total", "Findings of the rules of [suspicious], by rule.", "rule"
        )
        self.watch_rules(self._rules)
        self.webhook_failures_total = self._counter(
            "webhook_failures_total", "Alerts that did not reach the webhook."
        )
        self.warnings_total = self._counter(
            "warnings_total", "Warnings, logged or held back, by event.", "event"
        )

    def watch_rules(self, labels: Iterable[str]) -> None:
        """Let the rules of these names begin at 0, so that the first finding is an increase; those of others stay."""
        for label in labels:
            self.suspicious_total.labels(label)

    def _make_tier_metrics(self) -> None:
        """Counted every ten minutes, first a minute after the start; until then NaN."""
        self.tier_rows = self._gauge(
            "tier_rows", "Rows in the audit database (hot, estimated) and in archives.", "tier"
        )
        self.tier_bytes = self._gauge(
            "tier_bytes",
            "Bytes of the audit database's partitions with indexes (hot), and of archives.",
            "tier",
        )
        for tier in ("hot", "archive"):
            self.tier_rows.labels(tier).set(math.nan)
            self.tier_bytes.labels(tier).set(math.nan)
        self.default_partition_rows = self._gauge(
            "default_partition_rows",
            "Rows of the default partition, which no month's archive takes (estimated).",
        )
        self.oldest_hot_month_timestamp_seconds = self._gauge(
            "oldest_hot_month_timestamp_seconds",
            "Begin of the oldest month with rows in the audit database; 0: none.",
        )
        self.retention_due_months = self._gauge(
            "retention_due_months",
            "Months in the audit database that ended [retention] hot ago, also those under a hold.",
        )
        self.last_archive_timestamp_seconds = self._gauge(
            "last_archive_timestamp_seconds", "When a month last left for an archive; 0: never."
        )
        self.legal_holds = self._gauge("legal_holds", "Legal holds in force.")
        for gauge in (
            self.default_partition_rows,
            self.oldest_hot_month_timestamp_seconds,
            self.retention_due_months,
            self.last_archive_timestamp_seconds,
            self.legal_holds,
        ):
            gauge.set(math.nan)

    def _lag_seconds(self) -> float:
        if self._state == "standby":
            return math.nan
        return self._lag.seconds(self._clock(), is_streaming=self._state == "streaming")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, registry=self._registry, buckets=buckets)
