"""Which ids of a month without look-up indexes may hold a value or a changed column (``schema/migrations/0006_digests.sql``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import Connection, sql

from cdc_audit.postgres import named_sql

_MOST_RANGES = 200  # to read more of them takes longer than to read all
_FAR = 1 << 62
_SQL = named_sql("cdc_audit.trail", "sql/digests.sql")

Ranges = tuple[tuple[int, int], ...]


def ranges(connection: Connection, schema: str, partition: str, terms: Sequence[str]) -> Ranges | None:
    """Ids from first to before end, outside of which no row of the partition has all terms; None: all have to be read.

    A term is the name of a changed column, or ``column=text`` of a value in an image.
    """
    if connection.execute(_SQL["may_read"], {"schema": schema}).fetchone() != (True,):
        return None
    names = {"schema": sql.Identifier(schema)}
    holds = [sql.SQL(_SQL["holds"]).format(term=sql.Placeholder(f"term_{i}")) for i in range(len(terms))]
    query = sql.SQL(_SQL["ranges"]).format(holds=sql.SQL(" and ").join(holds), **names)
    values = {f"term_{number}": term for number, term in enumerate(terms)}
    found = connection.execute(query, {**values, "partition": partition}, prepare=False).fetchall()
    if found[-1][0] == 0:  # nothing is digested yet
        return None
    joined = _joined([(first, _FAR if end is None else end) for first, end in found])
    return joined if len(joined) <= _MOST_RANGES else None


def _joined(found: Iterable[tuple[int, int]]) -> Ranges:
    """Neighbours as one. In order of first."""
    joined: list[tuple[int, int]] = []
    for first, end in found:
        begin = joined.pop()[0] if joined and joined[-1][1] == first else first
        joined.append((begin, end))
    return tuple(joined)
