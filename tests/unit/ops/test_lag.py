"""The lag in seconds: what is complete, and until when."""

from __future__ import annotations

from cdc_audit.ops.lag import Lag


def test_a_caught_up_slot_has_no_lag_however_long_ago_the_last_commit_was() -> None:
    lag = Lag(started_at=1000.0)
    lag.made_durable(50, 1000.0)
    lag.saw_source(90_000.0, insert_lsn=50, confirmed_lsn=50)
    assert lag.seconds(90_000.0) == 0.0


def test_a_slot_that_nobody_could_look_at_since_it_was_caught_up_may_be_behind_by_all_that_time() -> None:
    lag = Lag(started_at=0.0)
    lag.saw_source(1000.0, insert_lsn=50, confirmed_lsn=50)
    assert [lag.seconds(now) for now in (1010.0, 1011.0, 1600.0)] == [0.0, 11.0, 600.0]


def test_a_daemon_that_waits_for_a_database_is_not_caught_up_for_a_second() -> None:
    lag = Lag(started_at=0.0)
    lag.saw_source(1000.0, insert_lsn=50, confirmed_lsn=50)
    assert [lag.seconds(now, is_streaming=False) for now in (1001.0, 1002.0)] == [1.0, 2.0]


def test_a_daemon_that_has_never_reached_its_source_lags_from_its_start() -> None:
    assert Lag(started_at=100.0).seconds(400.0) == 300.0


def test_the_lag_rises_with_the_clock_while_nothing_becomes_durable() -> None:
    lag = Lag(started_at=1000.0)
    lag.made_durable(50, 1010.0)
    lag.saw_source(1020.0, insert_lsn=80, confirmed_lsn=50)
    assert [lag.seconds(now) for now in (1020.0, 1030.0, 1500.0)] == [10.0, 20.0, 490.0]


def test_the_lag_falls_to_the_age_of_the_last_durable_commit() -> None:
    lag = Lag(started_at=1000.0)
    lag.saw_source(1100.0, insert_lsn=900, confirmed_lsn=50)
    lag.made_durable(800, 1090.0)
    assert lag.seconds(1100.0) == 10.0


def test_a_neighbours_wal_is_no_lag_of_a_day_on_a_quiet_database() -> None:
    lag = Lag(started_at=0.0)
    lag.made_durable(50, 1.0)
    lag.saw_source(86_400.0, insert_lsn=60, confirmed_lsn=50)
    lag.saw_source(86_410.0, insert_lsn=70, confirmed_lsn=60)  # a heartbeat acknowledged what was seen before
    assert lag.seconds(86_412.0) == 12.0


def test_hours_of_samples_stay_bounded_and_the_lag_stays_true() -> None:
    lag = Lag(started_at=0.0)
    for second in range(50_000):
        lag.saw_source(float(second), insert_lsn=100 + second, confirmed_lsn=10)
    assert lag.seconds(50_000.0) == 50_000.0
    assert len(lag._samples) <= 1024


def test_a_source_clock_ahead_of_ours_never_makes_a_negative_lag() -> None:
    lag = Lag(started_at=0.0)
    lag.saw_source(10.0, insert_lsn=100, confirmed_lsn=50)
    lag.made_durable(60, 99.0)
    assert lag.seconds(10.0) == 0.0


def test_a_new_primary_with_lower_positions_does_not_look_caught_up() -> None:
    lag = Lag(started_at=0.0)
    lag.saw_source(10.0, insert_lsn=9000, confirmed_lsn=9000)
    lag.saw_source(20.0, insert_lsn=8000, confirmed_lsn=7000)
    assert lag.seconds(50.0) == 40.0
    lag.made_durable(8000, 0.0)
    lag.saw_source(60.0, insert_lsn=8100, confirmed_lsn=8000)
    assert lag.seconds(60.0) == 40.0
