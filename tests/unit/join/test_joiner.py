"""Which context counts for which change."""

import json

import pytest

from cdc_audit.errors import StreamError
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.context import NO_CONTEXT, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Commit, Event, Message, Row, Shape, Stretch

SHAPE = Shape("INSERT", "public", "t", "", ("id",), (), False, ("id",), ())
AT = "2026-11-22 19:19:02+00"


def change(number: int) -> Row:
    return (SHAPE, [str(number).encode()], [])


def says(user: str) -> Message:
    return Message(True, "cdc_audit.context", f'{{"user_id":"{user}"}}', 1)


def transaction(*events: Event, xid: int = 5) -> list[Event]:
    return [Begin(xid, xid * 100, AT), *events, Commit(xid * 100)]


def summary(stretches: list[Stretch]) -> list[tuple[str, list[str]]]:
    def name(one: object) -> str:
        return one.action if isinstance(one, ApplicationEvent) else one[1][0].decode()  # type: ignore[index]

    return [(stretch.context.user_id, [name(one) for one in stretch.changes]) for stretch in stretches]


def joined(joiner: Joiner, events: list[Event], size: int = 100) -> list[tuple[str, list[str]]]:
    return summary(joiner.join(events, size, AT))


def test_a_context_counts_until_the_next_one_and_the_first_one_also_for_what_came_before() -> None:
    events = transaction(change(1), says("a"), change(2), says("b"), change(3))
    assert joined(Joiner(), events) == [("a", ["1", "2"]), ("b", ["3"])]


def test_a_context_never_reaches_the_next_transaction() -> None:
    events = transaction(says("a"), change(1)) + transaction(change(2), xid=6)
    stretches = Joiner().join(events, 100, AT)
    assert summary(stretches) == [("a", ["1"]), ("", ["2"])]
    assert stretches[1].context.trust is Trust.NONE


def test_a_transaction_comes_whole_even_when_it_arrives_in_pieces() -> None:
    joiner = Joiner()
    events = transaction(change(1), change(2), says("a"), change(3))
    out: list[Stretch] = []
    for event in events:
        out += joiner.join([event], 10, AT)
    assert summary(out) == [("a", ["1", "2", "3"])]
    assert (out[0].starts, out[0].ends, out[0].is_whole) == (True, True, True)


def test_a_transaction_past_the_hold_flows_and_its_late_context_is_an_event_of_its_own() -> None:
    joiner = Joiner(hold_rows=2)
    events = transaction(change(1), change(2), change(3), says("late"), change(4))
    out = joiner.join(events[:4], 10, AT)
    assert summary(out) == [("", ["1", "2", "3"])]
    assert (out[0].starts, out[0].ends, out[0].is_whole) == (True, False, False)
    rest = joiner.join(events[4:], 10, AT)
    assert summary(rest) == [("late", ["CONTEXT"]), ("late", ["4"])]
    assert (rest[-1].starts, rest[-1].ends) == (False, True)


def test_the_hold_is_bounded_in_bytes_too() -> None:
    joiner = Joiner(hold_bytes=50)
    assert joiner.join(transaction(change(1))[:2], 51, AT) != []


def test_a_transaction_without_changes_is_one_empty_stretch_so_that_its_position_is_known() -> None:
    stretches = Joiner().join(transaction(), 10, AT)
    assert [(s.transaction.end_lsn, s.changes, s.starts, s.ends) for s in stretches] == [
        (500, [], True, True)
    ]


def test_a_non_transactional_context_is_never_a_context() -> None:
    """Case 68."""
    events = [Message(False, "cdc_audit.context", '{"user_id":"x"}', 1), *transaction(change(1))]
    assert joined(Joiner(), events) == [("", ["1"])]


def test_messages_of_other_names_are_nobodys_context() -> None:
    assert joined(Joiner(prefix="mine"), transaction(says("a"), change(1))) == [("", ["1"])]


def test_an_event_takes_its_transactions_context_and_is_believed_no_further_than_itself() -> None:
    event = Message(True, "cdc_audit.event", '{"action":"READ","table":"patients","record_id":"7"}', 1)
    stretches = Joiner().join(transaction(says("a"), event, change(1)), 10, AT)
    assert summary(stretches) == [("a", ["READ"]), ("a", ["1"])]
    assert stretches[0].context.trust is Trust.ASSERTED


def test_an_event_outside_of_a_transaction_brings_its_own_context() -> None:
    content = '{"action":"EXPORT","table":"t","data":{"context":{"user_id":"u9"},"rows":3}}'
    stretches = Joiner().join([Message(False, "cdc_audit.event", content, 77)], 10, AT)
    assert summary(stretches) == [("u9", ["EXPORT"])]
    assert stretches[0].transaction == Begin(0, 77, AT)
    assert stretches[0].changes == [ApplicationEvent("EXPORT", "t", "", b'{"rows": 3}')]


@pytest.mark.parametrize("action", ["INSERT", "DELETE", "DDL", "lower", "", 7])
def test_an_event_can_not_pass_for_what_the_database_reports(action: object) -> None:
    content = f'{{"action":{action!r}}}'.replace("'", '"')
    stretches = Joiner().join([Message(False, "cdc_audit.event", content, 77)], 10, AT)
    assert summary(stretches) == [("", ["EVENT"])]
    assert stretches[0].context.trust is Trust.INVALID


@pytest.mark.parametrize(
    "events",
    [
        [change(1)],
        [Commit(500)],
        [Begin(5, 500, AT), Begin(6, 600, AT)],
        [Begin(5, 500, AT), Commit(600)],
        [says("a")],
    ],
)
def test_a_stream_that_breaks_the_transactions_order_is_refused(events: list[Event]) -> None:
    with pytest.raises(StreamError):
        Joiner().join(events, 10, AT)


def test_keys_that_are_not_known_are_named_so_that_they_can_be_read_again() -> None:
    events: list[Event] = [Message(True, "cdc_audit.context", "v1:k9:00:{}", 1), says("a")]
    assert Joiner().unknown_keys(events) == {"k9"}


def session(user: str = "dba", xid: int = 5) -> Message:
    body = f'{{"kind":"session","xid":"{xid}","session_user":"{user}","application_name":"psql","client_addr":"10.0.0.7"}}'
    return Message(True, "cdc_audit.session", f"v1:k:00:{body}", 1)


def test_without_any_context_changes_are_the_session_s_wherever_in_the_transaction_that_was_said() -> None:
    orders: list[list[Event]] = [
        [session(), change(1), change(2)],
        [change(1), session(), change(2)],
        [change(1), change(2), session()],
    ]
    for events in orders:
        (stretch,) = Joiner().join(transaction(*events), 100, AT)
        assert len(stretch.changes) == 2
        context = stretch.context
        assert (context.trust, context.user_id, context.db_user) == (Trust.NONE, "", "dba")
        assert (context.application_name, json.loads(context.rest)) == (
            "psql",
            {"session": {"trust": "asserted", "client_addr": "10.0.0.7"}},
        )


def test_a_context_wins_over_the_session_before_and_after_it() -> None:
    orders: list[list[Event]] = [
        [session(), change(1), says("a"), change(2)],
        [says("a"), change(1), session(), change(2)],
        [change(1), change(2), says("a"), session()],
    ]
    for events in orders:
        (stretch,) = Joiner().join(transaction(*events), 100, AT)
        assert (stretch.context.trust, stretch.context.user_id) == (Trust.ASSERTED, "a")
        assert (stretch.context.db_user, len(stretch.changes)) == ("", 2)


def test_a_session_never_reaches_the_next_transaction() -> None:
    stretches = Joiner().join(transaction(session(), change(1)) + transaction(change(2), xid=6), 100, AT)
    assert [stretch.context.db_user for stretch in stretches] == ["dba", ""]


def test_of_a_transaction_that_flows_what_came_before_a_late_context_is_the_session_s() -> None:
    joiner = Joiner(hold_rows=1)
    out: list[Stretch] = []
    for event in transaction(session(), change(1), change(2), change(3), says("a"), change(4)):
        out += joiner.join([event], 10, AT)
    said = [(s.context.db_user, s.context.user_id, len(s.changes)) for s in out if s.changes]
    assert said[0][:2] == ("dba", "")
    assert said[-1][:2] == ("", "a")
    assert sum(count for db_user, _, count in said if db_user == "dba") == 3


def test_what_another_package_leaves_without_a_context_is_the_session_s() -> None:
    said = Message(True, "sequin:transaction_annotations.set", '{"user_id":"a"}', 1)
    clear = Message(True, "sequin:transaction_annotations.clear", "", 1)
    events = transaction(session(), change(1), said, change(2), clear, change(3))
    stretches = Joiner(accept=["sequin"]).join(events, 100, AT)
    assert [(s.context.db_user, s.context.user_id) for s in stretches] == [
        ("dba", ""),
        ("", "a"),
        ("dba", ""),
    ]


def test_a_session_s_message_outside_of_a_transaction_says_nothing() -> None:
    lone = session()._replace(transactional=False)
    (stretch,) = Joiner().join([lone, *transaction(change(1))], 100, AT)
    assert stretch.context == NO_CONTEXT
