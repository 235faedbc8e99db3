"""SQLAlchemy's transactions, with its autocommit and its two-phase ones."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from cdc_audit.client import audit_context
from cdc_audit.client.sqlalchemy import audited, log_event, send_context
from tests.integration.client.conftest import transactions
from tests.integration.source.conftest import Database
from tests.integration.source.stream_look import Look

INSERT = sa.text("insert into t (v) values (:v)")
U1 = {"user_id": "u1"}


@pytest.fixture
def engine(shop: psycopg.Connection, database: Database) -> Iterator[sa.Engine]:
    made = audited(
        sa.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(database.dsn()), pool_size=1
        )
    )
    with audit_context(user_id="u1"):
        yield made
    made.dispose()


def test_autocommit_puts_context_and_statement_into_one_transaction_and_errors_end_it(
    engine: sa.Engine, look: Look
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(INSERT, {"v": "a"})
        with pytest.raises(sa.exc.DataError):
            db.execute(sa.text("insert into t (v) select (1 / 0)::text"))
        assert db.scalar(sa.text("insert into t (v) values ('b') returning v")) == "b"
        db.execute(INSERT, [{"v": "c"}, {"v": "d"}])
        db.execute(sa.text("vacuum t"))
    with engine.begin() as db:
        db.execute(INSERT, {"v": "e"})
    assert transactions(look) == [[U1, "INSERT"]] * 2 + [[U1, "INSERT", "INSERT"], [U1, "INSERT"]]


def test_a_transaction_that_was_rolled_back_leaves_nothing_for_the_next(
    engine: sa.Engine, look: Look
) -> None:
    with engine.connect() as db:
        for _ in range(2):
            db.execute(INSERT, {"v": "a"})
            db.rollback()
            db.execute(INSERT, {"v": "b"})
            db.commit()
    assert transactions(look) == [[U1, "INSERT"]] * 2


def test_events_and_contexts_can_be_sent_by_hand(engine: sa.Engine, look: Look) -> None:
    with engine.begin() as db:
        send_context(db)
        log_event(db, "READ", "patients", 7, {"why": "treatment"})
        db.execute(INSERT, {"v": "a"})
    said, event = (sent.body for sent in look.messages())
    assert said["context"] == U1
    assert event["data"] == {"why": "treatment", "context": U1}
