"""``cdc-audit log --follow``: rows as they are committed, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from psycopg import Connection

from cdc_audit.trail.query import Filters, LogRow, last_id, read_log


def follow(
    connection: Connection, schema: str, filters: Filters, wait: Callable[[], None]
) -> Iterator[LogRow]:
    """The newest ``filters.limit`` rows that match, then all that come, oldest first. Ends only with an error.

    Ids are dense in commit order, and a block's rows come in one transaction with its header: the rows up to the last header's
    end are all there, and none comes later. ``wait`` is called whenever nothing new is there.
    """
    seen = last_id(connection, schema)
    yield from reversed(list(read_log(connection, schema, replace(filters, up_to_id=seen))))
    while True:
        wait()
        end = last_id(connection, schema)
        if end > seen:
            page = replace(filters, limit=None, above_id=seen, up_to_id=end, oldest_first=True)
            yield from read_log(connection, schema, page)
            seen = end
