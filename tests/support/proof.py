"""What the ledger claims, computed anew: COPY and hashlib, nothing of the product."""

from __future__ import annotations

from hashlib import sha256

import psycopg

_SETTINGS = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex"
_ROW = (
    "id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id,"
    " user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture,"
    " unchanged_toast, partition_name, xid, commit_lsn, seq"
)
_HEADER = (
    "block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn, last_commit_at,"
    " written_at, rows_root, prev_hash, detail, key_id"
)


def check_proof(audit_dsn: str, *, schema: str = "audit") -> int:
    """Assert that every row_hash, rows_root, prev_hash and block_hash follows from what is stored; how many rows that is."""
    with psycopg.connect(audit_dsn, options=f"{_SETTINGS} -c search_path={schema}") as audit:
        lines = _copied(audit, f"select {_ROW} from audit_logs order by id")
        leaves = [sha256(b"\0" + line).digest() for line in lines]
        stored = audit.execute("select id, row_hash from audit_logs order by id").fetchall()
        assert [row[0] for row in stored] == list(range(1, len(lines) + 1))
        for (row_id, row_hash), leaf in zip(stored, leaves, strict=True):
            assert row_hash == leaf, f"row {row_id}: its line is not what was hashed"
        headers = _copied(audit, f"select {_HEADER} from ledger order by block")
        blocks = audit.execute(
            "select block, first_id, row_count, rows_root, prev_hash, block_hash from ledger order by block"
        ).fetchall()
    chained, next_id = bytes(32), 1
    for header, (block, first_id, count, rows_root, prev_hash, block_hash) in zip(
        headers, blocks, strict=True
    ):
        assert (first_id, prev_hash) == (next_id, chained), f"block {block} does not follow its predecessor"
        assert rows_root == _root(leaves[first_id - 1 : first_id - 1 + count]), f"block {block}: rows_root"
        assert block_hash == sha256(b"\2" + header).digest(), f"block {block}: block_hash"
        chained, next_id = block_hash, first_id + count
    assert next_id == len(lines) + 1, "rows that no block covers"
    return len(lines)


def _copied(connection: psycopg.Connection, query: str) -> list[bytes]:
    with connection.cursor().copy(f"copy ({query}) to stdout") as copy:
        return [bytes(line).removesuffix(b"\n") for line in copy]


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + _root(leaves[:split]) + _root(leaves[split:])).digest()
