"""What the loop asks: when to close a block, what to acknowledge, where to resume, retry or stop."""

import pytest

from cdc_audit.config import Batch
from cdc_audit.errors import (
    AnotherDaemonError,
    CdcAuditError,
    LedgerMovedError,
    NotPermittedError,
    PoisonError,
    SettingError,
    StreamError,
    UnavailableError,
)
from cdc_audit.model.ledger import Block
from cdc_audit.pipeline import ack, batch, reconcile, recovery
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH

LAST = Block(9, "data", 1, 5, "77", 2, "s", 50, 100, "", "", EMPTY_ROOT, NO_HASH, "", "")


def source(
    confirmed: int = 100,
    *,
    system: str = "77",
    timeline: int = 2,
    history: str = "",
    plugin: str = "wal2json",
) -> reconcile.SourceState:
    return reconcile.SourceState(system, timeline, history, "s", plugin, confirmed)


def resume(state: reconcile.SourceState, accept_gap: str = "") -> reconcile.Resumption:
    return reconcile.resume(LAST, state, plugin="wal2json", accept_gap=accept_gap)


@pytest.mark.parametrize("confirmed", [0, 99, 100])
def test_a_slot_at_or_behind_the_ledger_resumes_at_the_ledgers_end(confirmed: int) -> None:
    assert resume(source(confirmed)) == reconcile.Resumption(100, ())


def test_a_slot_ahead_of_the_ledger_stops_with_the_command_that_goes_on() -> None:
    with pytest.raises(SettingError, match="slot is ahead") as caught:
        resume(source(101))
    assert "--accept-gap" in str(caught.value)


def test_with_a_reason_the_missing_range_becomes_a_gap_block() -> None:
    resumption = resume(source(164), "disk died")
    assert resumption.lsn == 164
    assert [(b.kind, b.start_lsn, b.end_lsn, b.detail["reason"]) for b in resumption.blocks] == [
        ("gap", 100, 164, "disk died")
    ]


def test_another_cluster_or_plugin_or_a_former_primary_is_refused() -> None:
    for state in (source(system="78"), source(plugin="pgoutput"), source(timeline=1)):
        with pytest.raises(SettingError):
            resume(state)


def test_another_slot_of_the_same_cluster_is_refused_unless_there_is_a_reason() -> None:
    other = source(99)._replace(slot="of_another_database")
    with pytest.raises(SettingError, match="written from slot s"):
        resume(other)
    assert resume(other, "renamed") == reconcile.Resumption(100, ())


def test_after_a_promotion_past_the_ledger_only_the_timeline_is_noted() -> None:
    resumption = resume(source(90, timeline=3, history="1\t0/20\tx\n2\t0/A0\tpromoted\n"))
    assert resumption.lsn == 100
    assert [b.kind for b in resumption.blocks] == ["timeline"]


def test_after_a_promotion_before_the_ledgers_end_the_phantoms_are_named_and_nothing_new_is_skipped() -> None:
    resumption = resume(source(64, timeline=3, history="1\t0/20\tx\n2\t0/50\tpromoted\n"))
    assert resumption.lsn == 0x50
    block = resumption.blocks[0]
    assert (block.kind, block.detail["phantoms_from"], block.detail["phantoms_to"]) == (
        "divergence",
        "0/50",
        "0/64",
    )


def test_a_history_that_does_not_know_the_ledgers_timeline_is_no_successor() -> None:
    with pytest.raises(StreamError):
        resume(source(timeline=3, history="1\t0/20\tx\n"))


def test_a_transaction_that_is_given_up_becomes_a_block_up_to_its_end_that_says_what_is_lost() -> None:
    poison = reconcile.Poison(120, 77, 150, "too large", "ticket 1")
    resumption = reconcile.resume(LAST, source(100), plugin="wal2json", poison=poison)
    assert resumption.lsn == 150
    block = resumption.blocks[0]
    assert (block.kind, block.start_lsn, block.end_lsn) == ("poison", 100, 150)
    assert block.detail["lost"] == "all changes of transaction 77"
    done = reconcile.resume(LAST._replace(end_lsn=150), source(100), plugin="wal2json", poison=poison)
    assert done == reconcile.Resumption(150, ())


def test_a_block_is_closed_when_full_or_old_and_never_when_empty() -> None:
    settings = Batch(max_rows=10, max_bytes=65_536, flush_interval=1)
    assert batch.is_full(settings, rows=10, size=1) and batch.is_full(settings, rows=1, size=65_536)
    assert not batch.is_full(settings, rows=9, size=65_535)
    assert batch.is_due(settings, rows=1, age=1.0, is_dry=False, is_writer_idle=False)
    assert not batch.is_due(settings, rows=1, age=0.9, is_dry=True, is_writer_idle=True)
    assert not batch.is_due(settings, rows=0, age=9, is_dry=True, is_writer_idle=True)


def test_at_interval_zero_a_block_is_closed_as_soon_as_the_input_is_dry_and_the_writer_free() -> None:
    settings = Batch(flush_interval=0)
    assert batch.is_due(settings, rows=1, age=0, is_dry=True, is_writer_idle=True)
    assert not batch.is_due(settings, rows=1, age=0, is_dry=True, is_writer_idle=False)
    assert not batch.is_due(settings, rows=1, age=0, is_dry=False, is_writer_idle=True)


def naps(settings: Batch, sizes: list[int], behind: float = 0.1) -> list[float]:
    """The naps after looks that find so much, each after the nap before."""
    taken = [0.0]
    for size in sizes:
        taken.append(batch.nap(settings, size=size, last=taken[-1], behind=behind))
    return taken[1:]


def test_looks_that_find_little_come_more_seldom_but_a_block_is_not_much_older_for_it() -> None:
    assert naps(Batch(), [500] * 8) == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
    assert naps(Batch(flush_interval=0.1), [500] * 4) == [0.001, 0.002, 0.004, 0.005]
    assert naps(Batch(flush_interval=0.01), [500] * 4) == [0, 0, 0, 0]


def test_at_interval_zero_nothing_waits_for_more_to_come() -> None:
    assert not any(naps(Batch(flush_interval=0), [0, 500, 50_000, 131_072, 500]))


def test_catching_up_goes_on_without_a_nap() -> None:
    """A full socket makes the server wait, however long the naps were while there was little."""
    assert naps(Batch(), [500] * 9 + [131_072] * 7)[-1] == 0
    assert not any(naps(Batch(), [131_072, 40_000, 30_000, 131_072, 20_000]))


def test_naps_settle_where_a_look_finds_what_a_socket_holds_well() -> None:
    rate = 7_000_000  # bytes a second, of transactions as short as pgbench's
    nap, size = 0.0, 0
    for _ in range(20):
        size = int(rate * (nap + 0.001))
        nap = batch.nap(Batch(), size=size, last=nap, behind=0.0)
    assert 40_000 < size < 82_000
    assert batch.nap(Batch(), size=size, last=nap, behind=0.0) == nap


@pytest.mark.parametrize("capacity", [8_000, 20_000, 50_000, 80_000, 1_000_000])
@pytest.mark.parametrize("rate", [100_000, 10_000_000, 30_000_000])
def test_the_trail_keeps_up_however_little_the_connection_holds(rate: int, capacity: int) -> None:
    """The source makes so many bytes a second, and its server waits while the connection holds so many; a look takes a hundredth of
    a millisecond a kilobyte.
    """
    now = taken = nap = 0.0
    while now < 20:
        sent = min(rate * now, taken + capacity)
        found = min(sent - taken, 131_072.0)
        behind = now - (taken + found) / rate
        taken += found
        nap = batch.nap(Batch(), size=int(found), last=nap, behind=behind) if found else 0.0
        now += nap + found / 1e8 + 0.0001
    assert now - taken / rate < 0.5


@pytest.mark.parametrize(
    ("committed_at", "sent_at", "expected"),
    [
        ("2026-11-29 10:12:38.5+00", "2026-11-29 10:12:40+00", 1.5),
        ("2026-11-29 10:12:38.5+00", "", 0),
        ("", "2026-11-29 10:12:40+00", 0),
        ("12026-11-29 10:12:38+00", "12026-11-29 10:12:40+00", 0),
    ],
)
def test_how_late_something_is_sent_is_told_by_the_servers_clock(
    committed_at: str, sent_at: str, expected: float
) -> None:
    assert batch.seconds_behind(committed_at=committed_at, sent_at=sent_at) == expected


def test_the_servers_word_for_what_it_sent_counts_only_outside_of_a_transaction() -> None:
    """Case 81."""
    assert ack.idle_position(committed_lsn=10, wal_end=20, in_transaction=False) == 20
    assert ack.idle_position(committed_lsn=10, wal_end=20, in_transaction=True) == 10
    assert ack.idle_position(committed_lsn=30, wal_end=20, in_transaction=False) == 30


def test_a_heartbeat_is_due_when_wal_moved_or_an_hour_went_by_and_no_rows_wait() -> None:
    def due(since: float, ledger: int, idle: int, rows: bool = False) -> bool:
        return ack.is_heartbeat_due(
            since_last_block=since, interval=30, ledger_lsn=ledger, idle_lsn=idle, has_rows=rows
        )

    assert due(30, 10, 11) and not due(29, 10, 11)
    assert not due(3599, 10, 10) and due(3600, 10, 10)
    assert not due(9999, 10, 11, rows=True)


@pytest.mark.parametrize(
    "error", [SettingError("x"), NotPermittedError("x"), StreamError("x"), CdcAuditError("x")]
)
def test_what_does_not_pass_by_itself_stops(error: CdcAuditError) -> None:
    assert recovery.after(error, attempt=1, jitter=0.5) is None


def test_a_database_that_is_away_is_tried_again_ever_more_slowly_up_to_five_seconds() -> None:
    delays = [recovery.after(UnavailableError("x"), attempt=n, jitter=1.0) for n in range(1, 20)]
    assert [d.delay for d in delays if d][:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert delays[-1] == recovery.Retry(5.0)
    spread = recovery.after(UnavailableError("x"), attempt=20, jitter=0.0)
    assert spread == recovery.Retry(2.5)


def test_after_a_block_of_somebody_elses_the_ledger_is_looked_at_anew_at_once_however_often() -> None:
    for attempt in (1, 50):
        assert recovery.after(LedgerMovedError("x"), attempt=attempt, jitter=0.5) == recovery.Retry(0.05)


def test_a_transaction_that_fails_is_tried_three_times() -> None:
    decisions = [recovery.after(PoisonError("x", lsn=1), attempt=n, jitter=0.5) for n in (1, 2, 3)]
    assert decisions == [recovery.Retry(0.2), recovery.Retry(0.2), None]


def test_a_standby_looks_twice_a_second() -> None:
    assert recovery.after(AnotherDaemonError("x"), attempt=50, jitter=0.1) == recovery.Retry(0.5)
