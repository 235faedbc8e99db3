"""What DDL messages become, and which of them an operator is told of."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from cdc_audit.decode.scope import Scope
from cdc_audit.join.ddl import alerts, read_ddl
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.alert import AlertKind, DdlAlert
from cdc_audit.model.context import ContextKey, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Commit, Message, Stretch

AT = "2026-11-22 19:19:02+00"
KEYS = {"k1": ContextKey("k1", b"\x36" * 64, b"\x5c" * 64)}
FACTS = {"persistence": "permanent", "replica_identity": "full", "has_identity": True}
SCOPE = Scope(("shop.*",), ("shop.scratch",))


def body(**more: Any) -> dict[str, Any]:
    altered = {
        "event": "ddl_command_end",
        "tag": "ALTER TABLE",
        "object_type": "table",
        "identity": "shop.orders",
    }
    return {**altered, "schema": "shop", "table": "orders", **FACTS, **more}


def signed(fields: dict[str, Any], xid: int = 5, kind: str = "ddl") -> str:
    envelope = {"v": 1, "kind": kind, "xid": str(xid), "session_user": "dba", "application_name": "psql"}
    text = json.dumps({**envelope, **fields})
    key = KEYS["k1"]
    inner = sha256(key.inner_pad + text.encode()).digest()
    return f"v1:k1:{sha256(key.outer_pad + inner).hexdigest()}:{text}"


def joined(*contents: str, context: str = "") -> list[Stretch]:
    joiner = Joiner()
    joiner.learn(KEYS)
    said = [Message(True, "cdc_audit.context", context, 1)] if context else []
    told = [Message(True, "cdc_audit.ddl", content, 2) for content in contents]
    return joiner.join([Begin(5, 500, AT), *said, *told, Commit(500)], 10, AT)


def event(**more: Any) -> ApplicationEvent:
    return read_ddl(json.dumps(body(**more)), xid=5, keys=KEYS).event


def kinds(**more: Any) -> list[AlertKind]:
    return [alert.kind for alert in alerts(event(**more), SCOPE.covers)]


def test_a_signed_message_is_a_row_under_the_name_of_its_database_user() -> None:
    (stretch,) = joined(signed(body(root=None, client_addr="10.0.0.9")))
    (row,) = stretch.changes
    assert isinstance(row, ApplicationEvent)
    assert (row.action, row.schema, row.table, row.record_id) == ("DDL", "shop", "orders", "")
    assert json.loads(row.data) == {
        "event": "ddl_command_end",
        "tag": "ALTER TABLE",
        "object_type": "table",
        "identity": "shop.orders",
        "client_addr": "10.0.0.9",
        "trust": "signed",
        **FACTS,
    }
    assert (stretch.context.trust, stretch.context.db_user, stretch.context.user_id) == (
        Trust.SIGNED,
        "dba",
        "",
    )


@pytest.mark.parametrize(
    ("content", "trust", "claimed"),
    [
        (signed(body(), xid=6), "forged", True),  # of another transaction
        (signed(body(), kind="event"), "forged", True),  # an event's signature
        (signed(body())[:-9] + '"x": "y"}', "invalid", False),
        (signed(body()).replace("orders", "others"), "forged", True),
        (json.dumps(body(trust="signed")), "asserted", False),
        ("[]", "invalid", False),
        ("x" * 20_000, "invalid", False),
    ],
)
@pytest.mark.parametrize("context", ["", '{"user_id":"u1"}'])
def test_what_is_not_genuine_is_kept_and_never_looks_genuine(
    content: str, trust: str, claimed: bool, context: str
) -> None:
    (stretch,) = joined(content, context=context)
    (row,) = stretch.changes
    assert isinstance(row, ApplicationEvent)
    assert row.action == "DDL"
    assert stretch.context.trust == trust
    assert stretch.context.db_user == ""
    if trust == "invalid":
        assert (row.table, row.data) == ("", b"")
        assert json.loads(stretch.context.rest)["raw"] == content[:1024]
    else:
        data = json.loads(row.data)
        assert data["trust"] == trust
        assert ("claimed" in data) is claimed
        assert (row.table == "") is claimed


def test_the_transaction_s_context_counts_for_its_ddl() -> None:
    (stretch,) = joined(signed(body()), context='{"user_id":"u1"}')
    assert (stretch.context.user_id, stretch.context.trust) == ("u1", Trust.ASSERTED)
    (row,) = stretch.changes
    assert isinstance(row, ApplicationEvent)
    assert json.loads(row.data)["trust"] == "signed"


def test_an_object_that_is_no_table_is_named_as_its_identity_spells_it() -> None:
    def names(**fields: Any) -> tuple[str | None, str]:
        found = read_ddl(json.dumps(fields), xid=5, keys={}).event
        return found.schema, found.table

    assert names(schema="shop", identity="shop.total(integer)") == ("shop", "total(integer)")
    assert names(schema="My. Shop", identity='"My. Shop".f()') == ("My. Shop", "f()")
    assert names(identity="hstore") == ("", "hstore")
    assert names(tag="GRANT", object_type="TABLE") == ("", "")


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        ([], {}),
        ([], {"was": {"replica_identity": "default"}}),  # FULL now
        ([], {"replica_identity": "default"}),  # as it was
        (["replica_identity"], {"replica_identity": "default", "was": {"replica_identity": "full"}}),
        (["replica_identity"], {"has_identity": False, "was": {"has_identity": True}}),
        (["unlogged"], {"persistence": "unlogged", "was": {"persistence": "permanent"}}),
        ([], {"was": {"persistence": "unlogged"}}),
        ([], {"was": {"table": "others"}}),
        (["rename_out_of_scope"], {"table": "scratch", "was": {"table": "orders"}}),
        (["rename_out_of_scope"], {"schema": "attic", "was": {"schema": "shop"}}),
        ([], {"schema": "attic", "was": {"schema": "cellar"}}),
        ([], {"schema": "attic", "root": ["shop", "orders"]}),
        (["rename_out_of_scope"], {"schema": "attic", "was": {"root": ["shop", "orders"]}}),
        ([], {"schema": "attic", "persistence": "unlogged", "was": {"persistence": "permanent"}}),
        (["rewrite"], {"event": "table_rewrite", "reason": ["column type", "persistence"]}),
        ([], {"event": "table_rewrite", "reason": ["persistence"]}),
        ([], {"event": "table_rewrite", "reason": ["default"], "schema": "attic"}),
        (["dropped_trigger"], {"event": "sql_drop", "object_type": "trigger", "persistence": None}),
        (["dropped_trigger"], {"was": {"context_trigger": True}}),  # disabled
        (["dropped_trigger"], {"was": {"session_trigger": True}}),
        ([], {"context_trigger": True, "was": {"context_trigger": None}}),
        ([], {"schema": "attic", "was": {"context_trigger": True}}),
        (["dropped_table"], {"event": "sql_drop", "persistence": None, "was": FACTS}),
        (
            ["dropped_table"],
            {"event": "sql_drop", "schema": "attic", "persistence": None, "was": {"root": ["shop", "o"]}},
        ),
        (["replica_identity"], {"event": "sql_drop", "has_identity": False, "was": {"has_identity": True}}),
        ([], {"event": "sql_drop", "object_type": "table column", "persistence": None}),
        (["untold"], {"untold": "42P01", "object_type": None}),
        (["untold"], {"omitted": 6, "object_type": None}),
    ],
)
def test_what_hides_changes_of_audited_tables_is_told_and_nothing_else(
    expected: list[str], fields: dict[str, Any]
) -> None:
    assert kinds(**fields) == expected


def test_an_alert_names_the_table_as_it_was_called_before() -> None:
    renamed = event(table="scratch", was={"table": "orders"})
    assert alerts(renamed, SCOPE.covers) == [
        DdlAlert(AlertKind.RENAME_OUT_OF_SCOPE, "shop.orders", "ALTER TABLE")
    ]


@pytest.mark.parametrize(
    "content",
    [
        '{"a":1e999,"b":' + "9" * 5000 + "}",
        '{"tag":5,"root":[1,2],"was":[],"event":{}}',
        "{}",
        '{"was":{"root":{}}}',
        "v1:k1:x:{}",
    ],
)
def test_anybody_s_message_raises_nothing(content: str) -> None:
    assert alerts(read_ddl(content, xid=5, keys=KEYS).event, SCOPE.covers) == []
