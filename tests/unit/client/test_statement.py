"""What a statement is taken for: in doubt, for one that writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_audit.client.statement import Kind, count_as_writing, kind_of

CASES = {
    Kind.READ: [
        "",
        "select 1",
        "  (select 1) union (select 2)",
        "SELECT * FROM updates WHERE deleted_at IS NULL",
        "select * from t for share",
        "values (1)",
        "with a as (select 1) select * from a",
        "copy t to stdout",
        "copy (select a from t) to stdout",
        "explain update t set a = 1",
        "explain analyze select 1",
        "set local app.who = 'insert'",
        "savepoint s",
        "release savepoint s",
        "prepare p as insert into t values ($1)",
        "declare c cursor for select 1",
        "fetch 10 from c",
        "-- delete from t\nselect 1",
        "select 1;",
        "select place_order(1)",
    ],
    Kind.WRITE: [
        "insert into t values (1)",
        "/* a comment */ -- another\n  UPDATE t SET a = 1",
        "delete from t",
        "merge into t using u on true when matched then delete",
        "truncate t",
        "with a as (delete from t returning *) select * from a",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "copy t (a, b) from stdin",
        "COPY t FROM '/file' csv",
        "copy (delete from t returning *) to stdout",
        "explain (analyze, buffers) delete from t",
        "select 1; insert into t values (1)",
        "set local x.y = '1'; update t set a = 1",
        "select * into u from t",
        "select 1, '" + "x" * 30_000 + "'; delete from t",
        "with a as (select '" + "x" * 30_000 + "') delete from t",
    ],
    Kind.MAYBE: [
        "call p()",
        "do $$ begin delete from t; end $$",
        "execute p(1)",
        "create table u as select 1",
        "alter table t add c int",
        "vacuumx",
    ],
    Kind.BOUND: [
        "begin",
        "START TRANSACTION READ ONLY",
        "commit",
        "end",
        "rollback",
        "abort",
        "prepare transaction 'x'",
        "COMMIT AND CHAIN",
    ],
    Kind.ROLLBACK_TO: ["rollback to s", 'ROLLBACK TO SAVEPOINT "s"', "rollback work to savepoint s"],
}


@pytest.mark.parametrize(
    ("kind", "statement"), [(kind, text) for kind, texts in CASES.items() for text in texts]
)
def test_a_statement_is_told_by_its_words(kind: Kind, statement: str) -> None:
    assert kind_of(statement) is kind


@pytest.fixture
def _named() -> Iterator[None]:
    count_as_writing(("place_order", "close_month"))
    yield
    count_as_writing(())


@pytest.mark.usefixtures("_named")
def test_a_select_of_a_function_that_was_named_counts_as_a_write() -> None:
    assert kind_of("select shop.place_order(1)") is Kind.WRITE
    assert kind_of('select "close_month" ()') is Kind.WRITE
    assert kind_of("with a as (select PLACE_ORDER(1)) select * from a") is Kind.WRITE
    assert kind_of("select * from place_order_log") is Kind.READ


def test_an_endless_comment_takes_no_endless_time() -> None:
    assert kind_of("/*" * 5_000) is Kind.READ
    assert kind_of("(" * 10_000 + "select 1") is Kind.READ
