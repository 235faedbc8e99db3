"""A read has the context of its own transaction, or none; what a message claims without a signature counts for no more."""

from __future__ import annotations

import json
from typing import Any

from cdc_audit.join.joiner import Joiner
from cdc_audit.model.context import Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Commit, Message, Stretch

READ = {
    "at": "2026-11-28 12:49:00.508+00",
    "user": "nurse",
    "application": "ward",
    "address": "10.0.0.9",
    "xid": 700,
    "schema": "shop",
    "table": "a.b",
    "command": "SELECT",
    "rows": 3,
}


def transaction(
    xid: int, *messages: tuple[str, dict[str, Any]], at: str = "2026-11-28 12:49:00.6+00"
) -> list[Any]:
    sent = [Message(True, f"cdc_audit.{kind}", json.dumps(said), xid) for kind, said in messages]
    return [Begin(xid, xid * 10, at), *sent, Commit(xid * 10)]


def last(joiner: Joiner, *transactions: list[Any]) -> tuple[ApplicationEvent, Stretch]:
    stretches: list[Stretch] = []
    for events in transactions:
        stretches += joiner.join(events, 10, "2026-11-28 12:50:00+00")
    (event,) = stretches[-1].changes
    assert isinstance(event, ApplicationEvent)
    return event, stretches[-1]


def context(**said: str) -> tuple[str, dict[str, Any]]:
    return "context", said


def test_a_read_without_context_names_the_database_user_and_says_that_it_is_best_effort() -> None:
    event, stretch = last(Joiner(), transaction(900, ("read", {"read": READ})))
    assert (event.action, event.schema, event.table) == ("SELECT", "shop", "a.b")
    assert json.loads(event.data) == {
        "source": "pgaudit",
        "guarantee": "best effort",
        "rolled_back": "unknown",
        **{key: READ[key] for key in ("at", "address", "xid", "command", "rows")},
    }
    assert stretch.context.user_id == ""
    assert (stretch.context.db_user, stretch.context.application_name) == ("nurse", "ward")
    assert stretch.context.ip_address == "10.0.0.9"
    assert stretch.context.trust is Trust.ASSERTED


def test_a_read_takes_the_one_context_of_its_transaction() -> None:
    said = transaction(700, context(user_id="u1", ip_address="1.2.3.4"))
    _, stretch = last(Joiner(), said, transaction(900, ("read", {"read": READ})))
    assert (stretch.context.user_id, stretch.context.ip_address) == ("u1", "1.2.3.4")
    assert stretch.context.db_user == "nurse"


def test_a_read_takes_no_context_that_may_be_anothers() -> None:
    two = transaction(700, context(user_id="u1"), ("event", {"action": "LOGIN"}), context(user_id="u2"))
    before = transaction(
        700, context(user_id="u1"), at="2026-11-28 12:49:00.5+00"
    )  # ended before: ids came round
    other = transaction(701, context(user_id="u1"))
    for said in (two, before, other, transaction(700)):
        _, stretch = last(Joiner(), said, transaction(900, ("read", {"read": READ})))
        assert stretch.context.user_id == ""
    _, stretch = last(
        Joiner(),
        transaction(700, context(user_id="u1")),
        transaction(900, ("read", {"read": {**READ, "at": ""}})),
    )
    assert stretch.context.user_id == ""


def test_contexts_are_remembered_of_many_transactions_and_not_for_ever() -> None:
    joiner = Joiner()
    for xid in range(700, 700 + 10_000):
        joiner.join(transaction(xid, context(user_id=f"u{xid}")), 10, "")
    _, stretch = last(joiner, transaction(90_000, ("read", {"read": READ})))
    assert stretch.context.user_id == "u700"
    for xid in range(20_000, 20_000 + 20_000):
        joiner.join(transaction(xid, context(user_id=f"u{xid}")), 10, "")
    _, stretch = last(joiner, transaction(90_000, ("read", {"read": READ})))
    assert stretch.context.user_id == ""


def test_missing_lines_are_a_row_of_their_own() -> None:
    said = {"gap": "file cut off", "file": "pg.json", "from": 5, "to": 9}
    event, _ = last(Joiner(), transaction(900, ("read", {"read": said})))
    assert event.action == "READ_GAP"
    assert json.loads(event.data) == {"source": "pgaudit", "guarantee": "best effort", **said}


def test_what_cannot_be_read_is_kept_as_an_invalid_context() -> None:
    for content in ("{", '{"read": 1}', '{"read": {"table": "\\u0000"}}'):
        events = [
            Begin(9, 90, "2026-11-28 12:49:00+00"),
            Message(True, "cdc_audit.read", content, 1),
            Commit(90),
        ]
        event, stretch = last(Joiner(), events)
        assert (event.action, event.data) == ("SELECT", b"")
        assert stretch.context.trust is Trust.INVALID


def test_an_application_cannot_log_reads_that_look_like_the_logs() -> None:
    for action in ("SELECT", "READ_GAP"):
        event, stretch = last(Joiner(), transaction(900, ("event", {"action": action})))
        assert event.action == "EVENT"
        assert stretch.context.trust is Trust.INVALID
