"""What the pipeline reports, as metrics, log lines and health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from cdc_audit.model.alert import AlertKind, DdlAlert, SuspiciousAlert
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.model.observer import BlockCounts, Observer, SlotState
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.watch import Watch

NOW = 1_795_375_150.0  # 2026-11-22 19:19:10 UTC


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(version="1", psycopg_implementation="binary", source="shop", clock=clock)


@pytest.fixture
def watch(metrics: Metrics, clock: Clock) -> Watch:
    return Watch(metrics, clock=clock, monotonic=clock)


def value(metrics: Metrics, name: str, *labels: str) -> float:
    text = metrics.exposition("text/plain")[1].decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"cdc_audit_{name}" and tuple(sample.labels.values()) == labels:
                return sample.value
    raise AssertionError(f"{name}{labels} isn't exposed")


def receipt(kind: str = "data", committed_at: str = "2026-11-22 19:19:08.5+00") -> Receipt:
    block = Block(
        block=41,
        kind=kind,
        first_id=1,
        row_count=3,
        system_identifier="7",
        timeline=1,
        slot="s",
        start_lsn=100,
        end_lsn=200,
        last_commit_at=committed_at,
        written_at="2026-11-22 19:19:10+00",
        rows_root=b"",
        prev_hash=b"",
        detail="",
        key_id="",
    )
    return Receipt(block, b"", 0.004)


def counts(
    transactions: int = 1, **more: Mapping[str, int] | Mapping[tuple[str, str], int] | int
) -> BlockCounts:
    given: dict[str, Any] = {
        "rows_by_action": {},
        "rows_by_trust": {},
        "suppressed_by_table": {},
        "missing_rows": {},
        "redacted_values": 0,
        **more,
    }
    return BlockCounts(transactions, **given)


def slot(lag: int = 0, wal_status: str = "reserved") -> SlotState:
    return SlotState(True, wal_status, lag, lag, None, 200, 0)


def test_a_watch_is_an_observer(watch: Watch) -> None:
    observer: Observer = watch
    assert observer is watch


def test_a_committed_block_is_counted_once_with_everything_it_held(watch: Watch, metrics: Metrics) -> None:
    watch.block_committed(
        receipt(),
        counts(
            transactions=2,
            rows_by_action={"INSERT": 2, "READ": 1},
            rows_by_trust={"signed": 2, "none": 1},
            suppressed_by_table={"public.t": 4},
            missing_rows={("public.u", "psql"): 1, ("public.u", ""): 2},
            redacted_values=5,
        ),
        NOW - 1.5,
    )
    assert watch.failure is None
    assert value(metrics, "transactions_total") == 2
    assert value(metrics, "rows_total", "INSERT") == 2
    assert value(metrics, "rows_total", "READ") == 1
    assert value(metrics, "context_rows_total", "signed") == 2
    assert value(metrics, "suppressed_changes_total", "public.t") == 4
    assert value(metrics, "rows_without_context_total", "psql", "public.u") == 1
    assert value(metrics, "rows_without_context_total", "unknown", "public.u") == 2
    assert value(metrics, "redacted_values_total") == 5
    assert value(metrics, "blocks_total", "data") == 1
    assert value(metrics, "last_block") == 41
    assert value(metrics, "last_commit_timestamp_seconds") == NOW - 1.5
    assert value(metrics, "commit_to_durable_seconds_sum") == 1.5
    assert value(metrics, "block_write_seconds_sum") == 0.004


def test_of_any_number_of_applications_only_so_many_are_told_apart(watch: Watch, metrics: Metrics) -> None:
    for number in range(200):
        watch.block_committed(receipt(), counts(missing_rows={("public.u", f"job-{number}"): 1}), NOW)
    watch.block_committed(receipt(), counts(missing_rows={("public.u", "job-3"): 4}), NOW)
    assert watch.failure is None
    assert value(metrics, "rows_without_context_total", "job-3", "public.u") == 5
    assert value(metrics, "rows_without_context_total", "other", "public.u") == 150
    assert metrics.exposition("text/plain")[1].count(b'application="') == 51


def test_a_heartbeat_is_no_observation_of_latency_and_moves_no_commit_time(
    watch: Watch, metrics: Metrics
) -> None:
    watch.block_committed(receipt("heartbeat", ""), counts(transactions=0), 0.0)
    assert watch.failure is None
    assert value(metrics, "commit_to_durable_seconds_count") == 0
    assert value(metrics, "last_commit_timestamp_seconds") == 0
    assert value(metrics, "blocks_total", "heartbeat") == 1


def test_suppressed_changes_are_logged_at_once_and_then_once_a_minute_with_their_sum(
    watch: Watch, clock: Clock
) -> None:
    with capture_logs() as logs:
        for _ in range(100):
            watch.block_committed(receipt(), counts(suppressed_by_table={"public.t": 2}), clock.now)
        clock.now += 61
        watch.ticked()
        watch.ticked()
    said = [entry for entry in logs if entry["event"] == "changes_suppressed"]
    assert [entry["rows"] for entry in said] == [2, 198]
    assert {entry["table"] for entry in said} == {"public.t"}
    assert said[0]["remedy"] == "cdc-audit source tables --set-full 'public.t'"
    assert said[0]["log_level"] == "warning"


def test_forged_contexts_and_rows_without_context_are_kinds_of_their_own(watch: Watch, clock: Clock) -> None:
    with capture_logs() as logs:
        watch.block_committed(
            receipt(),
            counts(
                rows_by_trust={"forged": 3, "invalid": 1, "none": 2},
                missing_rows={("public.t", "psql"): 1, ("public.t", "cron"): 1},
            ),
            clock.now,
        )
    warned = {entry["event"]: entry["rows"] for entry in logs if entry["log_level"] == "warning"}
    assert warned == {"contexts_forged": 3, "contexts_invalid": 1, "rows_without_context": 2}


def test_a_repeated_warning_is_one_line_a_minute_for_each_table_and_side(
    watch: Watch, metrics: Metrics, clock: Clock
) -> None:
    with capture_logs() as logs:
        for _ in range(10):
            watch.warned("context_too_late", table="public.a")
            watch.warned("context_too_late", table="public.b")
            watch.warned("connection_lost", side="source")
            watch.warned("connection_lost", side="audit")
            watch.reconnected("source")
        clock.now += 61
        watch.ticked()
    said = [
        (entry["event"], entry.get("table") or entry.get("side"), entry.get("repeated")) for entry in logs
    ]
    keys = [("context_too_late", "public.a"), ("context_too_late", "public.b")]
    keys += [("connection_lost", "source"), ("connection_lost", "audit")]
    assert said == [(*key, None) for key in keys] + [(*key, 9) for key in keys]
    assert value(metrics, "reconnects_total", "source") == 10
    assert value(metrics, "warnings_total", "context_too_late") == 20


def test_a_change_of_state_is_logged_once_and_decides_readiness(watch: Watch) -> None:
    assert watch.not_ready() == "starting"
    with capture_logs() as logs:
        watch.state("streaming", None)
        watch.state("streaming", None)
        assert watch.not_ready() is None
        watch.state("waiting", "audit database: connection refused")
    assert watch.not_ready() == "waiting: audit database: connection refused"
    assert [(entry["state"], entry["log_level"]) for entry in logs] == [
        ("streaming", "info"),
        ("waiting", "warning"),
    ]


def test_a_streaming_daemon_that_is_behind_and_writes_nothing_stops_being_ready(
    watch: Watch, clock: Clock
) -> None:
    watch.state("streaming", None)
    watch.slot_polled(slot(lag=100))
    clock.now += 301
    watch.ticked()
    assert watch.not_ready() == "not progressing: no block for 301 s, 100 bytes behind"
    assert watch.not_live() is None
    watch.block_committed(receipt(), counts(), clock.now)
    assert watch.not_ready() is None


def test_time_spent_waiting_for_a_database_is_not_time_without_progress(watch: Watch, clock: Clock) -> None:
    watch.state("waiting", "source database: away")
    watch.slot_polled(slot(lag=100))
    clock.now += 4000
    watch.state("streaming", None)
    watch.ticked()
    assert watch.not_ready() is None


def test_a_slow_heartbeat_makes_a_patient_watch(metrics: Metrics, clock: Clock) -> None:
    watch = Watch(metrics, heartbeat_interval=3600.0, clock=clock, monotonic=clock)
    watch.state("streaming", None)
    watch.slot_polled(slot(lag=100))
    clock.now += 3700
    watch.ticked()
    assert watch.not_ready() is None


def test_a_loop_without_ticks_is_not_alive(watch: Watch, clock: Clock) -> None:
    clock.now += 61
    assert watch.not_live() == "the loop has not gone round for 61 s"
    watch.ticked()
    assert watch.not_live() is None


def test_whether_it_is_ready_is_a_metric_too(watch: Watch, metrics: Metrics, clock: Clock) -> None:
    assert value(metrics, "ready") == 0
    watch.state("streaming", None)
    assert value(metrics, "ready") == 1
    clock.now += 61
    assert value(metrics, "ready") == 0, "a loop without ticks"
    watch.ticked()
    watch.state("waiting", "audit database: connection refused")
    assert value(metrics, "ready") == 0


def test_a_slot_in_danger_is_a_warning_when_it_gets_there_and_not_at_every_poll(watch: Watch) -> None:
    with capture_logs() as logs:
        for status in ("reserved", "reserved", "unreserved", "unreserved", "lost"):
            watch.slot_polled(slot(lag=1, wal_status=status))
    assert [(entry["wal_status"], entry["log_level"]) for entry in logs] == [
        ("reserved", "info"),
        ("unreserved", "warning"),
        ("lost", "warning"),
    ]


def test_watching_never_raises_even_when_the_log_cannot_be_written(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    structlog.configure(processors=[full_disk])  # type: ignore[list-item]
    watch.state("streaming", None)
    watch.warned("something", table="t")
    watch.informed("something")
    watch.block_committed(receipt(), counts(suppressed_by_table={"t": 1}), NOW)
    assert watch.failure == "OSError in block_committed"
    assert watch.not_ready() is None


def test_a_commit_time_that_python_cannot_read_is_no_reason_to_fail(watch: Watch, metrics: Metrics) -> None:
    watch.block_committed(receipt(committed_at="20026-01-01 00:00:00+00"), counts(), NOW)
    assert watch.failure is None
    assert value(metrics, "last_block") == 41


def test_each_anchor_that_fails_is_counted_and_told_apart_and_one_that_does_not_has_its_time(
    watch: Watch, metrics: Metrics, clock: Clock
) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            watch.anchored("s3", "s3://bucket/p", "PutObject was refused: AccessDenied")
            watch.anchored("s3", "s3://other/p", "PutObject was refused: NoSuchBucket")
        watch.anchored("file", "file:/anchors", None)
        clock.now += 61
        watch.ticked()
    assert watch.failure is None
    assert value(metrics, "anchor_failures_total", "s3") == 6
    assert value(metrics, "anchor_failures_total", "https") == 0
    assert value(metrics, "last_anchor_timestamp_seconds", "file") == NOW
    said = [(entry["event"], entry["target"], entry.get("repeated", 1)) for entry in logs]
    assert said == [
        ("anchor_failed", "s3://bucket/p", 1),
        ("anchor_failed", "s3://other/p", 1),
        ("anchor_failed", "s3://bucket/p", 2),
        ("anchor_failed", "s3://other/p", 2),
    ]
    assert logs[0]["reason"] == "PutObject was refused: AccessDenied"


def test_ddl_alerts_are_counted_by_kind_and_logged_once_a_minute_for_each_table_with_a_remedy(
    watch: Watch, metrics: Metrics, clock: Clock
) -> None:
    alerts = [
        DdlAlert(AlertKind.REPLICA_IDENTITY, "public.t", "ALTER TABLE"),
        DdlAlert(AlertKind.UNLOGGED, "public.t", "ALTER TABLE"),
        DdlAlert(AlertKind.EVENT_TRIGGER, "", "altered"),
    ]
    with capture_logs() as logs:
        for _ in range(3):
            for alert in alerts:
                watch.ddl_alert(alert)
        for kind in AlertKind:
            watch.ddl_alert(DdlAlert(kind, "public.u", "DROP TABLE"))
        clock.now += 61
        watch.ticked()
    assert watch.failure is None
    assert value(metrics, "ddl_alerts_total", "unlogged") == 4
    said = [
        (entry["kind"], entry.get("table"), entry.get("repeated"))
        for entry in logs
        if entry.get("table") != "public.u"
    ]
    first = [("replica_identity", "public.t"), ("unlogged", "public.t"), ("event_trigger", None)]
    assert said == [(*key, None) for key in first] + [(*key, 2) for key in first]
    assert logs[0]["remedy"] == "cdc-audit source tables --set-full 'public.t'"
    assert {entry["event"] for entry in logs} == {"ddl_alert"}


ALERT = SuspiciousAlert("many", "bulk", "u42", "", "shop.orders", "UPDATE", 101, "2026-11-28 12:00:00", 7)


def test_a_suspicious_alert_is_counted_logged_without_its_user_and_forwarded(
    metrics: Metrics, clock: Clock
) -> None:
    forwarded: list[SuspiciousAlert] = []

    def forward(alert: SuspiciousAlert) -> bool:
        forwarded.append(alert)
        return len(forwarded) < 2

    watch = Watch(metrics, forward=forward, clock=clock, monotonic=clock)
    with capture_logs() as logs:
        watch.suspicious(ALERT)
        watch.suspicious(ALERT)
        clock.now += 61
        watch.ticked()
    assert watch.failure is None
    assert value(metrics, "suspicious_total", "many") == 2
    assert value(metrics, "webhook_failures_total") == 1
    assert len(forwarded) == 2
    said = [line for line in logs if line["event"] == "suspicious"]
    assert said[0]["rows"] == 101
    assert (said[1]["repeated"], said[1]["rule"], said[1]["table"]) == (1, "many", "shop.orders")
    assert "u42" not in str(logs)
    with capture_logs() as logs:
        Watch(metrics, names_users=True, clock=clock, monotonic=clock).suspicious(ALERT)
    assert logs[0]["user"] == "u42"
