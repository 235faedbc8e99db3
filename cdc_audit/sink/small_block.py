"""A block of few rows as one statement, which is a transaction by itself: one round trip, where BEGIN, COPY, its end and COMMIT
take four.
"""

from __future__ import annotations

from functools import cache

from psycopg import sql

from cdc_audit.postgres import named_sql
from cdc_audit.seal import copy_text

_MOST_ROWS = 16
_MOST_BYTES = 16_384
_COLUMNS = 24  # of audit_logs
_HEADER = 17  # of ledger: their values come first


def fits(lines: bytes) -> bool:
    """Whether these lines are few enough, if they are all that a block has."""
    return len(lines) <= _MOST_BYTES and lines.count(b"\n") <= _MOST_ROWS


@cache
def statement(schema: str, rows: int) -> bytes:
    """What stores so many rows and their header: numbered parameters, the header's before the rows'."""
    numbers = iter(range(_HEADER + 1, _HEADER + 1 + rows * _COLUMNS))
    places = ["(" + ", ".join(f"${next(numbers)}" for _ in range(_COLUMNS)) + ")" for _ in range(rows)]
    store = sql.SQL(named_sql("cdc_audit.sink", "sql/ledger.sql")["store"])
    return store.format(schema=sql.Identifier(schema), rows=sql.SQL(", ".join(places))).as_bytes()


def values(lines: bytes) -> list[list[str | None]]:
    """Each line's values as text, which the server reads as it reads COPY's. Raises ValueError for what is not UTF-8."""
    return [
        [
            None if field == copy_text.NULL else copy_text.unescape(field).decode()
            for field in line.split(b"\t")
        ]
        for line in lines.split(b"\n")[:-1]
    ]
