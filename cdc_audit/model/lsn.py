"""Log sequence numbers: plain integers inside the program, ``X/Y`` in hexadecimal outside.

Compare LSNs as integers only: their text has a variable width.
See https://www.postgresql.org/docs/current/datatype-pg-lsn.html.
"""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """The integer of ``X/Y``; raises ValueError for anything else."""
    high, slash, low = text.partition("/")
    if not slash or not 0 < len(high) <= 8 or not 0 < len(low) <= 8:
        raise ValueError(f"not an LSN: {text[:40]!r}")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """``X/Y`` as PostgreSQL 14 to 18 print it: upper case, no padding."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
