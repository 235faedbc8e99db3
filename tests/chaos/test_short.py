"""A chaos run that is short enough for every day; the long ones are ``make chaos``."""

from __future__ import annotations

from itertools import pairwise

from tests.chaos.plan import WEIGHTS, plan
from tests.chaos.report import PART, RETAINED_LIMIT, Report
from tests.chaos.run import Run


def test_a_seed_repeats_its_faults_and_another_one_has_others() -> None:
    assert plan(1, 300) == plan(1, 300) != plan(2, 300)


def test_faults_come_in_their_shares_and_a_kind_that_is_left_out_is_shared_out() -> None:
    faults = plan(1, 100_000)
    for kind, share in WEIGHTS.items():
        assert abs(sum(fault.kind == kind for fault in faults) / len(faults) - share / 100) < 0.02
    gaps = [after.at - before.at for before, after in pairwise(faults)]
    assert min(gaps) >= 1 and max(gaps) <= 4
    others = plan(1, 100_000, without=["full disk"])
    assert {fault.kind for fault in others} == WEIGHTS.keys() - {"full disk"}


def test_a_run_fails_that_recovers_slowly_keeps_wal_or_grows() -> None:
    def report() -> Report:
        return Report(1, seconds=1800, is_verified=True)

    assert report().failures == []
    slow = report()
    slow.recoveries = [("kill", 0.5)] * 90 + [("kill", 6.0)] * 10
    assert slow.failures == ["the trail takes 6.0 s to go on"]
    slow.recoveries = [("kill", 0.5)] * 96 + [("kill", 60.0)] * 4
    assert slow.failures == []
    kept = report()
    for second in range(62):
        kept.retention.note(float(second), RETAINED_LIMIT)
    kept.retention.note(62.0, 0)
    assert kept.failures == ["the source keeps too much WAL for the slot"]
    growing = report()
    growing.memory_floors = [65, 70, 75, *(80 + n * 1.1 * PART / 3600 for n in range(60))]
    assert growing.failures == []
    growing.left_out = ("kill",)
    assert growing.failures == ["the daemon's memory grows by 1.1 MB an hour (standard error 0.0)"]
    growing.memory_floors = [65, 70, 75, *(80 + n * 0.9 * PART / 3600 for n in range(60))]
    assert growing.failures == []


def test_half_a_minute_of_chaos_with_every_kind_of_fault_loses_and_repeats_nothing() -> None:
    report = Run(seed=13, seconds=30, rate=300, say=print).run()
    print(report.as_text())
    assert not report.failures, report.as_text()
    assert report.left_out or report.done.keys() == WEIGHTS.keys(), "a seed whose faults are of every kind"
    assert report.seen.total() >= 5, report.as_text()
