"""A measurement's figures are what its values say."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime

import pytest

from cdc_audit.seal.block import NO_HASH
from cdc_audit.sink import ledger
from tests.bench import trail_rows
from tests.bench.figures import Report, percentile, ratios
from tests.bench.latency import Heard, latencies
from tests.bench.workloads import WORKLOADS, Workload


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = [float(n) for n in range(200, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (100, 198, 200)
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([10.0, 30.0], [20.0, 10.0]) == (0.5, 3.0)


def test_a_row_is_durable_when_the_first_block_that_holds_it_is_heard_of() -> None:
    heard = [Heard(10.0, 2), Heard(11.0, 2), Heard(12.0, 5)]  # the second block is a heartbeat
    assert latencies([9.0, 9.5, 9.5, 10.0], heard) == [1.0, 0.5, 2.5, 2.0]


def test_a_row_that_nobody_heard_of_is_an_error_and_no_latency() -> None:
    with pytest.raises(ValueError, match="row 2"):
        latencies([1.0, 1.0], [Heard(2.0, 1)])


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one.name)
@pytest.mark.parametrize("budget", [1, 2_000, 200_000])
def test_a_workload_is_whole_blocks(workload: Workload, budget: int) -> None:
    rows = workload.rows(budget)
    assert rows > 0
    assert rows % workload.per_block == 0


def test_a_report_has_the_median_between_the_lowest_and_the_highest() -> None:
    report = Report("title")
    report.add("speed", "rows/s", [3.0, 1.0, 2.0])
    report.add("never measured", "s", [])
    assert report.as_text().split() == ["title", "speed", "2.00", "rows/s", "(1.00", "to", "3.00)"]
    assert report.as_dict()["series"][0]["median"] == 2.0


def test_a_trail_whose_builder_dies_is_given_up() -> None:
    """Not waited for."""
    begin = ledger.before_genesis("7000000000000000000", "generated", 0)
    pieces = trail_rows.built(10_000_000, datetime(2026, 11, 1, tzinfo=UTC), begin, NO_HASH)
    assert next(pieces)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(RuntimeError, match="exit code -9"):
        list(pieces)
