"""What a transaction must still be told, without any database."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from cdc_audit.client import ContextUnavailableError, audit_context, configure, identify
from cdc_audit.client.conversation import Conversation

WRITE = "insert into t values (1)"


@pytest.fixture
def talk() -> Iterator[Conversation]:
    made = Conversation()
    assert made.must_ask
    assert made.learn("ready")
    yield made
    configure()


def due(
    talk: Conversation, statement: str = WRITE, *, is_open: bool = True, is_alone: bool = False
) -> str | None:
    """What is due before a statement; it is then said."""
    text = talk.due(statement, in_transaction=is_open, is_alone=is_alone)
    if text is not None:
        talk.told(text)
    return text


def test_it_is_said_once_a_transaction_before_the_first_write(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        assert [due(talk, s) for s in ("select 1", WRITE, WRITE, "select 1", "commit", WRITE)] == [
            None,
            '{"user_id": "u1"}',
            None,
            None,
            None,
            '{"user_id": "u1"}',
        ]


def test_a_statement_that_begins_a_transaction_is_the_first_of_it(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        assert due(talk, is_open=False)
        assert due(talk, is_open=False)


def test_a_read_that_begins_a_transaction_begins_one(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        for _ in range(2):
            assert due(talk, "select 1", is_open=False) is None
            assert due(talk) == '{"user_id": "u1"}'


def test_what_may_not_stand_in_a_transaction_is_left_alone_outside_of_one(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        assert due(talk, "call p()", is_open=False, is_alone=True) is None
        assert due(talk, "call p()", is_open=True) is not None


def test_another_context_is_said_and_the_end_of_one_too(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        assert due(talk) == '{"user_id": "u1"}'
        with audit_context(user_id="u2"):
            assert due(talk) == '{"user_id": "u2"}'
        assert due(talk) == '{"user_id": "u1"}'
        with audit_context(user_id="u1"):
            assert due(talk) is None
        identify(email="a@b.c")
        assert due(talk) == '{"user_id": "u1", "email": "a@b.c"}'
    assert due(talk) == "{}"
    assert due(talk) is None


def test_who_says_nothing_costs_nothing(talk: Conversation) -> None:
    assert due(talk) is None
    assert due(talk, "rollback to s") is None
    assert due(talk) is None


def test_after_a_rollback_to_a_savepoint_it_is_said_again(talk: Conversation) -> None:
    with audit_context(user_id="u1"):
        assert due(talk)
        assert due(talk, "rollback to s") is None
        assert due(talk)
        assert due(talk, "rollback to s") is None
    assert due(talk) == "{}"


def test_a_source_that_does_not_listen_is_asked_again_later_and_the_writes_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    talk = Conversation()
    with audit_context(user_id="u1"), caplog.at_level(logging.WARNING, "cdc_audit.client"):
        assert talk.due(WRITE, in_transaction=True) is not None
        assert not talk.learn("missing")
        assert talk.due(WRITE, in_transaction=True) is None
    assert "cdc-audit source install" in caplog.text
    assert "u1" not in caplog.text


def test_strict_makes_it_an_error() -> None:
    configure(strict=True)
    try:
        talk = Conversation()
        with audit_context(user_id=lambda: 1 / 0):
            with pytest.raises(ContextUnavailableError, match="source install"):
                talk.learn("missing")
            with pytest.raises(ContextUnavailableError, match="ZeroDivisionError"):
                talk.due(WRITE, in_transaction=True)
    finally:
        configure()
