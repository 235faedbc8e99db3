"""The exposition: every promised name, true values, nothing that a linter of metrics complains about."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_audit.ops.metrics import Metrics

PROMISED = {  # design section 11: name without prefix -> kind
    "replication_lag_bytes": "gauge",
    "replication_lag_seconds": "gauge",
    "slot_retained_bytes": "gauge",
    "slot_safe_wal_bytes": "gauge",
    "slot_active": "gauge",
    "slot_wal_status": "gauge",
    "rows_total": "counter",
    "transactions_total": "counter",
    "blocks_total": "counter",
    "commit_to_durable_seconds": "histogram",
    "block_write_seconds": "histogram",
    "context_rows_total": "counter",
    "suppressed_changes_total": "counter",
    "redacted_values_total": "counter",
    "tables_without_identity": "gauge",
    "reconnects_total": "counter",
    "last_commit_timestamp_seconds": "gauge",
    "last_block": "gauge",
    "build_info": "gauge",
}


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None) -> Metrics:
    return Metrics(
        version="1.2.3", psycopg_implementation="binary", source="shop", clock=clock or Clock(1_000_000.0)
    )


def exposition(metrics: Metrics) -> str:
    return metrics.exposition("text/plain")[1].decode()


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label value, ...) -> value, as a scraper reads them."""
    return {
        (sample.name.removeprefix("cdc_audit_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(metrics))
        for sample in family.samples
    }


def poll(metrics: Metrics, *, lag: int = 0, wal_status: str = "reserved", safe: int | None = None) -> None:
    metrics.slot(
        active=True,
        wal_status=wal_status,
        lag_bytes=lag,
        retained_bytes=lag + 100,
        safe_wal_bytes=safe,
        confirmed_lsn=5000,
        tables_without_identity=2,
    )


def test_every_promised_name_is_exposed_with_its_kind_and_a_help_text_from_the_start() -> None:
    families = {family.name: family for family in text_string_to_metric_families(exposition(make()))}
    for name, kind in PROMISED.items():
        family = families[f"cdc_audit_{name}".removesuffix("_total" if kind == "counter" else "")]
        assert family.type == kind, name
        assert family.documentation, name


def test_nothing_is_exposed_besides_the_programs_own_names_and_its_process() -> None:
    names = [family.name for family in text_string_to_metric_families(exposition(make()))]
    assert [name for name in names if not name.startswith(("cdc_audit_", "process_"))] == []
    assert [name for name in names if name.endswith("_created")] == []


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed; the parser test stays"
)
def test_promtool_has_no_complaint() -> None:
    metrics = make()
    poll(metrics, lag=7)
    metrics.count(metrics.suppressed_changes_total, {'odd "schema".t': 3})
    metrics.commit_to_durable_seconds.observe(0.2)
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(metrics),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    content_type, body = make().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_build_says_version_driver_and_source() -> None:
    assert samples(make())["build_info", "binary", "shop", "1.2.3"] == 1.0


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    first, second = make(), make()
    first.transactions_total.inc()
    assert samples(second)["transactions_total",] == 0.0


def test_the_slot_shows_as_it_was_polled() -> None:
    metrics = make()
    poll(metrics, lag=4096, wal_status="extended", safe=123)
    found = samples(metrics)
    assert found["replication_lag_bytes",] == 4096
    assert found["slot_retained_bytes",] == 4196
    assert found["slot_safe_wal_bytes",] == 123
    assert found["slot_active",] == 1
    assert found["tables_without_identity",] == 2
    statuses = {key[1]: value for key, value in found.items() if key[0] == "slot_wal_status"}
    assert statuses == {"reserved": 0, "extended": 1, "unreserved": 0, "lost": 0}


@pytest.mark.parametrize(("wal_status", "expected"), [("reserved", math.inf), ("lost", 0.0)])
def test_a_slot_without_a_limit_is_safe_and_a_lost_one_is_not(wal_status: str, expected: float) -> None:
    metrics = make()
    poll(metrics, wal_status=wal_status, safe=None)
    assert samples(metrics)["slot_safe_wal_bytes",] == expected


def test_the_lag_in_seconds_goes_on_rising_between_polls_and_ends_when_caught_up() -> None:
    clock = Clock(1_000_000.0)
    metrics = make(clock)
    metrics.state("streaming")
    metrics.durable(5000, 999_990.0)
    poll(metrics, lag=10)
    rising = []
    for clock.now in (1_000_000.0, 1_000_060.0, 1_003_600.0):
        rising.append(samples(metrics)["replication_lag_seconds",])
    assert rising == [0.0, 60.0, 3600.0]
    poll(metrics, lag=0)
    assert samples(metrics)["replication_lag_seconds",] == 0.0


def test_a_standby_does_not_know_the_lag() -> None:
    metrics = make()
    poll(metrics, lag=10)
    metrics.state("standby")
    assert math.isnan(samples(metrics)["replication_lag_seconds",])
    metrics.state("streaming")
    assert samples(metrics)["replication_lag_seconds",] == 0.0


def test_the_commit_times_histogram_reaches_from_a_millisecond_to_ten_minutes() -> None:
    found = samples(make())
    bounds = [float(key[1]) for key in found if key[0] == "commit_to_durable_seconds_bucket"]
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.001, 600.0, math.inf)
