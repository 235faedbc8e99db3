"""Which built-in types never are TOASTed: a column of theirs that is missing from an UPDATE is not an unchanged one."""

from __future__ import annotations

# bool, "char", int8, int2, int4, oid, float4, float8, date, time, timestamp, timestamptz, interval, timetz, uuid,
# money, macaddr, macaddr8, pg_lsn, point, line, lseg, box, circle, xid, xid8, cid, tid, name and the reg* types
_FIXED_LENGTH = frozenset(
    {16, 18, 20, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 2950, 790, 829, 774, 3220}
    | {600, 628, 601, 603, 718, 28, 5069, 29, 27, 19}
    | {24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191}
)


def may_be_toasted(type_oid: int) -> bool:
    """Whether a value of this type may be stored out of line (pg_type.typlen is -1)."""
    return type_oid not in _FIXED_LENGTH
