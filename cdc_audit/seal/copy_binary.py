"""Lines as rows of COPY's binary format: the server then spends no time on finding fields, escapes, dates and hex digits.

https://www.postgresql.org/docs/current/sql-copy.html (Binary Format): a header, for each row the number of its fields and each
field's length and value as its type's receive function takes it, a trailer. Where the hot loops are not compiled, lines are sent
as they are: to make rows of them in Python would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Callable

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

# In the table's column order: t text, j jsonb, a text[], 4 int, 8 bigint, z timestamptz, l pg_lsn, i inet, b bytea. Most lines have
# the same as the line before in what stands in brackets.
_COLUMNS = """
    id:8 ( created_at:z schema_name:t table_name:t ) record_id:t action:t old_data:j new_data:j changed_fields:a
    ( user_id:t user_email:t ip_address:i user_agent:t context:j context_trust:t db_user:t application_name:t
    capture:t unchanged_toast:a partition_name:t xid:8 commit_lsn:l ) seq:4 row_hash:b
"""
_KINDS = "".join(column[-1] for column in _COLUMNS.split()).encode()

_compiled: Callable[[bytes, bytes], bytes] | None = None
try:
    from cdc_audit.seal import _copy_binary
except ImportError:
    pass
else:
    _compiled = _copy_binary.rows

IS_COMPILED = _compiled is not None
"""Whether there is ``rows``."""


def rows(lines: bytes) -> bytes:
    """The rows, between HEADER and TRAILER, of whole lines that ``seal.lines`` has made. Raises ValueError for others."""
    assert _compiled is not None
    return _compiled(lines, _KINDS)
