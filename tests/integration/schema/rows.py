"""Rows for ``audit_logs`` and ``ledger`` that differ from a plain one only where a test says so."""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

PLAIN: dict[str, Any] = {
    "id": 1,
    "created_at": "2026-11-22 19:19:02.555107+00",
    "schema_name": "public",
    "table_name": "orders",
    "record_id": "42",
    "action": "UPDATE",
    "context_trust": "signed",
    "capture": "full",
    "xid": 738,
    "commit_lsn": "0/1562688",
    "seq": 1,
    "row_hash": b"\x00" * 32,
}
BLOCK: dict[str, Any] = {
    "block": 0,
    "kind": "genesis",
    "first_id": 1,
    "row_count": 0,
    "system_identifier": "1",
    "timeline": 1,
    "slot": "s",
    "start_lsn": "0/0",
    "end_lsn": "0/0",
    "written_at": "2026-11-22 19:19:02+00",
    "rows_root": b"",
    "prev_hash": b"",
    "block_hash": b"",
}


def insert(
    connection: Connection, table: str = "audit_logs", *, schema: str = "audit", **columns: Any
) -> None:
    """Insert one row: PLAIN or BLOCK with ``columns`` over it."""
    values = {**(BLOCK if table == "ledger" else PLAIN), **columns}
    connection.execute(
        sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier(schema, table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        ),
        list(values.values()),
    )
