"""Contexts in the messages of other packages, for those who come from them."""

from __future__ import annotations

import json

from cdc_audit.join import foreign
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import Message
from tests.unit.join.test_joiner import AT, change, joined, says, transaction

SET, CLEAR = "sequin:transaction_annotations.set", "sequin:transaction_annotations.clear"


def bemi(user: str) -> Message:
    content = json.dumps({"context": {"userId": user}, "SQL": "insert into t values ('secret')"})
    return Message(True, "_bemi", f" {content} ", 1)


def sequin(user: str) -> Message:
    return Message(True, SET, json.dumps({"user_id": user}), 1)


def test_unless_accepted_they_are_not_heard() -> None:
    assert joined(Joiner(), transaction(bemi("a"), change(1), sequin("b"), change(2))) == [("", ["1", "2"])]


def test_bemi_s_context_comes_before_each_row_and_its_statement_is_dropped() -> None:
    events = transaction(bemi("a"), change(1), bemi("a"), change(2), bemi("b"), change(3))
    stretches = Joiner(accept=["bemi"]).join(events, 100, AT)
    assert [(s.context.user_id, len(s.changes)) for s in stretches] == [("a", 2), ("b", 1)]
    assert stretches[0].context == Context(Trust.ASSERTED, "a")


def test_sequin_s_annotations_count_for_what_follows_until_they_are_cleared() -> None:
    clear = Message(True, CLEAR, "", 1)
    events = transaction(
        change(1), sequin("a"), change(2), sequin("b"), change(3), clear, change(4), says("c"), change(5)
    )
    expected = [("", ["1"]), ("a", ["2"]), ("b", ["3"]), ("", ["4"]), ("c", ["5"])]
    assert joined(Joiner(accept=["sequin"]), events) == expected


def test_in_a_transaction_that_flows_they_count_from_their_place() -> None:
    joiner = Joiner(accept=["sequin"], hold_rows=0)
    out = [joined(joiner, [event], 10) for event in transaction(change(1), change(2), sequin("a"), change(3))]
    assert [part for parts in out for part in parts if part[1]] == [("", ["1"]), ("", ["2"]), ("a", ["3"])]


def test_what_can_t_be_read_is_invalid_and_no_statement_is_kept() -> None:
    for content in ("{", "[]", "null", '{"SQL": "secret"}', '{"context": 1, "SQL": "secret"}'):
        assert foreign.read("_bemi", content) == Context(Trust.INVALID)
    assert foreign.read(SET, "{").trust is Trust.INVALID
    assert foreign.read(CLEAR, "anything") == NO_CONTEXT


def test_a_signature_in_them_counts_for_nothing() -> None:
    assert foreign.read(SET, 'v1:k:00:{"context":{"user_id":"a"}}').trust is Trust.ASSERTED


def test_our_own_names_win_over_theirs() -> None:
    said = foreign.read(SET, '{"userId": "x", "user_id": "y", "userEmail": "a@b.c"}')
    assert (said.user_id, said.user_email, said.rest) == ("y", "a@b.c", '{"userId": "x"}')
