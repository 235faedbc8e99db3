"""Rows of the trail for tests."""

from __future__ import annotations

from typing import Any

from cdc_audit.trail.query import LogRow

_UPDATE = LogRow(
    id=7,
    created_at="2026-11-22T19:19:02.555107Z",
    schema_name="public",
    table_name="orders",
    record_id="42",
    action="UPDATE",
    old_data='{"id": 42, "note": null, "price": 12345678901234567890.60}',
    new_data='{"id": 42, "note": "paid", "price": 1.10}',
    changed_fields=["note", "price"],
    user_id="u42",
    user_email="a@b.c",
    ip_address="10.0.0.9",
    user_agent="curl",
    context='{"request_id": "r1"}',
    context_trust="signed",
    db_user="shop",
    application_name="web",
    capture="full",
    unchanged_toast=None,
    partition_name=None,
    xid=738,
    commit_lsn="0/1562688",
    seq=1,
    row_hash="\\x00ff",
)


def row(**columns: Any) -> LogRow:
    """An UPDATE of an order, with ``columns`` over it."""
    return _UPDATE._replace(**columns)
