"""What the pipeline reports, turned into metrics, log lines and health. Never raises, never sees rows."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, cast

import structlog

from cdc_audit.model.alert import AlertKind, DdlAlert, SuspiciousAlert
from cdc_audit.model.ledger import Receipt
from cdc_audit.model.lsn import format_lsn
from cdc_audit.model.observer import BlockCounts, SlotState
from cdc_audit.ops import health, notify
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.throttle import Throttle
from cdc_audit.ops.tiers import Tiers

_Method = TypeVar("_Method", bound=Callable[..., None])

# Each kind of warning that rows can cause by the million: its event and what ends it.
_SUPPRESSED = ("changes_suppressed", "cdc-audit source tables --set-full '{table}'")
_WITHOUT_CONTEXT = ("rows_without_context", "call cdc_audit.set_context in transactions that change {table}")
_FORGED = ("contexts_forged", "find out who sends contexts with a wrong signature: cdc-audit log")
_INVALID = ("contexts_invalid", "correct the application that sends contexts that can't be read")
# What keeps warnings of the same event apart.
_APART = ("table", "side", "target", "rule")
_DDL_REMEDIES = {
    AlertKind.REPLICA_IDENTITY: "cdc-audit source tables --set-full '{table}'",
    AlertKind.UNLOGGED: "alter table {table} set logged;",
    AlertKind.REWRITE: "find out whether it changed values: no row of the trail shows that",
    AlertKind.RENAME_OUT_OF_SCOPE: "add its new name (cdc-audit log --action DDL) to [source] tables",
    AlertKind.DROPPED_TRIGGER: "if it was cdc_audit_context or cdc_audit_session: cdc-audit source install"
    " --guc NAME, or --sessions, --tables '{table}'",
    AlertKind.DROPPED_TABLE: "if it was not meant to be, find out who did it: cdc-audit log --action DDL",
    AlertKind.UNTOLD: "find out what was done; then cdc-audit source install --harden",
    AlertKind.EVENT_TRIGGER: "find out who did it; then cdc-audit source install --harden",
}
_REMEDIES = dict([_SUPPRESSED, _WITHOUT_CONTEXT, _FORGED, _INVALID])


def _unfailing(method: _Method) -> _Method:
    """Watching is never why the trail stops: a full disk under the log, say."""

    @functools.wraps(method)
    def wrapped(self: Watch, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.failure = f"{type(error).__name__} in {method.__name__}"

    return cast("_Method", wrapped)


class Watch:
    """The ``Observer`` of a daemon, called from the loop's thread; ``health`` may be read from any."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        heartbeat_interval: float = 30.0,
        forward: Callable[[SuspiciousAlert], bool] | None = None,
        names_users: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``forward`` takes suspicious alerts on, or says that it has no room; ``names_users``: the log may name users."""
        self._metrics = metrics
        self._forward = forward
        self._names_users = names_users
        self._clock = clock
        self._monotonic = monotonic
        self._floods: Throttle[tuple[str, str]] = Throttle()
        self._warnings: Throttle[tuple[str, ...]] = Throttle()
        self._ddl_alerts: Throttle[DdlAlert] = Throttle()
        self._slot_status = ""
        self.failure: str | None = None  # the last error of watching itself, for tests and debuggers
        now = monotonic()
        stalled_after = max(health.STALLED_SECONDS, 3 * heartbeat_interval)
        self._health = health.State("starting", None, now, now, stalled_after=stalled_after)
        metrics.ready.set_function(lambda: self.not_ready() is None)

    def watch_rules(self, labels: Iterable[str], *, names_users: bool) -> None:
        """Rules of what is suspicious have these names from now on; whether the log may name users."""
        self._metrics.watch_rules(labels)
        self._names_users = names_users

    @property
    def health(self) -> health.State:
        """The present state: a frozen value, replaced as a whole."""
        return self._health

    def not_ready(self) -> str | None:
        """``health.not_ready`` of now."""
        return health.not_ready(self._health, self._monotonic())

    def not_live(self) -> str | None:
        """``health.not_live`` of now."""
        return health.not_live(self._health, self._monotonic())

    @_unfailing
    def state(self, name: str, reason: str | None) -> None:
        """See ``Observer.state``; only a change is logged."""
        before = self._health
        now = self._monotonic()
        # Time spent waiting for a database isn't time without progress.
        progressed_at = now if name != before.name else before.progressed_at
        self._health = replace(before, name=name, reason=reason, ticked_at=now, progressed_at=progressed_at)
        self._metrics.state(name)
        if (name, reason) != (before.name, before.reason):
            notify.status(f"{name}: {reason}" if reason else name)
            log = _log().warning if name == "waiting" else _log().info
            log("state_changed", state=name, **({"reason": reason} if reason else {}))

    @_unfailing
    def ticked(self) -> None:
        """See ``Observer.ticked``."""
        now = self._monotonic()
        self._health = replace(self._health, ticked_at=now)
        for (event, table), count in self._floods.due(now):
            self._log_flood(event, table, count)
        for (event, *about), count in self._warnings.due(now):
            facts = {name: value for name, value in zip(_APART, about, strict=True) if value}
            _log().warning(event, repeated=count, **facts)
        for alert, count in self._ddl_alerts.due(now):
            self._log_ddl_alert(alert, count)

    @_unfailing
    def block_committed(self, receipt: Receipt, counts: BlockCounts, oldest_commit_seconds: float) -> None:
        """See ``Observer.block_committed``."""
        block, metrics, now = receipt.block, self._metrics, self._monotonic()
        self._health = replace(self._health, progressed_at=now)
        metrics.durable(block.end_lsn, _unix_time(block.last_commit_at))
        metrics.last_block.set(block.block)
        metrics.blocks_total.labels(block.kind).inc()
        metrics.block_write_seconds.observe(receipt.write_seconds)
        if counts.transactions:
            metrics.transactions_total.inc(counts.transactions)
            metrics.commit_to_durable_seconds.observe(max(0.0, self._clock() - oldest_commit_seconds))
        metrics.count(metrics.rows_total, counts.rows_by_action)
        metrics.count(metrics.context_rows_total, counts.rows_by_trust)
        metrics.count(metrics.suppressed_changes_total, counts.suppressed_by_table)
        metrics.without_context(counts.missing_rows)
        metrics.redacted_values_total.inc(counts.redacted_values)
        _log().debug(
            "block_committed",
            block=block.block,
            kind=block.kind,
            rows=block.row_count,
            end_lsn=format_lsn(block.end_lsn),
        )
        self._report_floods(counts, now)

    @_unfailing
    def slot_polled(self, slot: SlotState) -> None:
        """See ``Observer.slot_polled``; a change of wal_status is logged."""
        self._metrics.slot(
            active=slot.active,
            wal_status=slot.wal_status,
            lag_bytes=slot.lag_bytes,
            retained_bytes=slot.retained_bytes,
            safe_wal_bytes=slot.safe_wal_bytes,
            confirmed_lsn=slot.settled_lsn,
            tables_without_identity=slot.tables_without_identity,
        )
        now = self._monotonic()
        progressed_at = now if slot.lag_bytes <= 0 else self._health.progressed_at
        self._health = replace(self._health, lag_bytes=slot.lag_bytes, progressed_at=progressed_at)
        if slot.wal_status != self._slot_status:
            endangered = slot.wal_status in {"unreserved", "lost"}
            log = _log().warning if endangered else _log().info
            log("slot_wal_status_changed", wal_status=slot.wal_status, retained_bytes=slot.retained_bytes)
            self._slot_status = slot.wal_status

    @_unfailing
    def anchored(self, kind: str, target: str, reason: str | None) -> None:
        """See ``Observer.anchored``; a failure is a warning."""
        if reason is None:
            self._metrics.last_anchor_timestamp_seconds.labels(kind).set(self._clock())
            return
        self._metrics.anchor_failures_total.labels(kind).inc()
        self._warn("anchor_failed", {"target": target, "kind": kind, "reason": reason})

    @_unfailing
    def reconnected(self, side: str) -> None:
        """See ``Observer.reconnected``; why is told by ``state``."""
        self._metrics.reconnects_total.labels(side).inc()

    @_unfailing
    def ddl_alert(self, alert: DdlAlert) -> None:
        """See ``Observer.ddl_alert``; at most one line a minute for the same alert."""
        self._metrics.ddl_alerts_total.labels(alert.kind.value).inc()
        self._metrics.warnings_total.labels("ddl_alert").inc()
        count = self._ddl_alerts.add(alert, 1, self._monotonic())
        if count:
            self._log_ddl_alert(alert, count)

    @_unfailing
    def suspicious(self, alert: SuspiciousAlert) -> None:
        """See ``Observer.suspicious``; a line a minute for the same rule and table, the webhook gets all."""
        self._metrics.suspicious_total.labels(alert.rule).inc()
        facts = {name: value for name, value in alert._asdict().items() if value != ""}
        if not self._names_users:
            facts.pop("user", None)
            facts.pop("address", None)
        self._warn("suspicious", {**facts, "remedy": "see it, with its user: cdc-audit suspicious"})
        if self._forward is not None and not self._forward(alert):
            self.webhook_failed("too many wait")

    @_unfailing
    def surveyed(self, tiers: Tiers) -> None:
        """What is where, counted just now."""
        self._metrics.tiers(tiers)

    @_unfailing
    def webhook_failed(self, reason: str) -> None:
        """An alert did not reach the webhook."""
        self._metrics.webhook_failures_total.inc()
        self._warn("webhook_failed", {"reason": reason})

    @_unfailing
    def warned(self, event: str, **facts: object) -> None:
        """See ``Observer.warned``; at most one line a minute for the same event, table, side, target and rule."""
        self._warn(event, facts)

    @_unfailing
    def informed(self, event: str, **facts: object) -> None:
        """See ``Observer.informed``."""
        _log().info(event, **facts)

    def _warn(self, event: str, facts: dict[str, object]) -> None:
        self._metrics.warnings_total.labels(event).inc()
        key = event, *(str(facts.get(name, "")) for name in _APART)
        count = self._warnings.add(key, 1, self._monotonic())
        if count:
            _log().warning(event, **facts, **({"repeated": count} if count > 1 else {}))

    def _report_floods(self, counts: BlockCounts, now: float) -> None:
        found = [(_SUPPRESSED[0], table, n) for table, n in counts.suppressed_by_table.items()]
        missing: Counter[str] = Counter()
        for (table, _), n in counts.missing_rows.items():
            missing[table] += n
        found += [(_WITHOUT_CONTEXT[0], table, n) for table, n in missing.items()]
        found.append((_FORGED[0], "", counts.rows_by_trust.get("forged", 0)))
        found.append((_INVALID[0], "", counts.rows_by_trust.get("invalid", 0)))
        for event, table, amount in found:
            if not amount:
                continue
            self._metrics.warnings_total.labels(event).inc()
            count = self._floods.add((event, table), amount, now)
            if count:
                self._log_flood(event, table, count)

    def _log_ddl_alert(self, alert: DdlAlert, count: int) -> None:
        facts: dict[str, object] = {"table": alert.table} if alert.table else {}
        if count > 1:
            facts["repeated"] = count
        remedy = _DDL_REMEDIES[alert.kind].format(table=alert.table)
        _log().warning("ddl_alert", kind=alert.kind.value, what=alert.what, **facts, remedy=remedy)

    def _log_flood(self, event: str, table: str, count: int) -> None:
        facts = {"table": table} if table else {}
        _log().warning(event, rows=count, **facts, remedy=_REMEDIES[event].format(table=table))


def _log() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def _unix_time(timestamp: str) -> float:
    """The unix time of PostgreSQL's text, or 0 for "" and for years that Python doesn't know."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
    except ValueError:
        return 0.0
