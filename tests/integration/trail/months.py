"""A trail of several months, and what the planner did for each query of a connection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, sql

from cdc_audit.schema.migrate import migrate
from cdc_audit.schema.partitions import build_indexes, digest_rows

MONTHS = ("2026-06", "2026-07", "2026-08", "2026-09")
ROWS_A_MONTH = 3_000
# Of each month one row in 1,000 is rare in every respect. Rows lie 10 minutes apart, some have the same time.
_FILL = """
insert into audit.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields,
                              user_id, user_email, ip_address, user_agent, context, context_trust, application_name, capture, xid,
                              commit_lsn, seq, row_hash)
select id, %(month)s::timestamptz + (i / 2) * interval '20 minutes', 'public',
       case when rare then 'settings' else 'table_' || i %% 3 end,
       (id %% 700)::text, case when rare then 'READ' when i %% 5 = 0 then 'DELETE' else 'UPDATE' end,
       jsonb_build_object('id', id %% 700, 'total', id - 1), jsonb_build_object('id', id %% 700, 'total', id),
       case when rare then array['note', 'total'] else array['total'] end, 'u' || id %% 300, 'u' || id %% 300 || '@example.org',
       case when rare then '192.0.2.7' else '10.0.0.' || i %% 200 end::inet, case when rare then 'Rare/1' else 'Shop/1' end,
       jsonb_build_object('request', id), case when rare then 'forged' else 'signed' end,
       case when rare then 'psql' else 'shop' end, 'full', id / 3, '0/0'::pg_lsn + id / 3 * 8, id %% 3 + 1, ''
  from generate_series(1, %(rows)s) as i
 cross join lateral (select %(first)s + i - 1 as id, i %% 1000 = 500 as rare) as n
"""


def make_months(connection: Connection, *, build: bool = True) -> None:
    """A migrated trail with ROWS_A_MONTH rows in each of MONTHS, of which all but the last are over and have their
    indexes; of the last, rows are digested as far as they fill 256 ids.
    """
    migrate(connection, "audit", None)
    for number, month in enumerate(MONTHS):
        connection.execute("select audit.ensure_partition(%s)", (f"{month}-01",))
        first = number * ROWS_A_MONTH + 1
        connection.execute(_FILL, {"month": f"{month}-01 00:00:00+00", "rows": ROWS_A_MONTH, "first": first})
        connection.execute(
            "insert into audit.ledger values (%s, 'data', %s, %s, '1', 1, 's', '0/0', '0/0', %s, %s, '', '', null, null, '')",
            (number, first, ROWS_A_MONTH, f"{month}-20 00:00:00+00", f"{month}-01 00:00:00+00"),
        )
    if build:
        assert len(list(build_indexes(connection, "audit"))) == 6 * (len(MONTHS) - 1)
        list(digest_rows(connection, "audit"))
    connection.execute("vacuum analyze audit.audit_logs")


@contextmanager
def plans(connection: Connection) -> Iterator[list[str]]:
    """The plan of each query on audit_logs while it is open, as it is planned for these values and under these settings."""
    found: list[str] = []

    def note(cursor: psycopg.Cursor[Any], query: Any, values: Any) -> None:
        text = query.as_string(connection) if isinstance(query, sql.Composable) else query
        if "audit_logs" in text and "pg_" not in text.split("audit_logs")[0].rsplit("from", 1)[-1]:
            with psycopg.Cursor(connection) as other:
                lines = other.execute(sql.SQL("explain ") + sql.SQL(text), values, prepare=False).fetchall()
            found.append("\n".join(line for (line,) in lines))

    class Plain(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            note(self, query, params)
            return super().execute(query, params, **options)

    class Server(psycopg.ServerCursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            note(self, query, params)
            return super().execute(query, params, **options)

    connection.cursor_factory, connection.server_cursor_factory = Plain, Server
    try:
        yield found
    finally:
        connection.cursor_factory, connection.server_cursor_factory = psycopg.Cursor, psycopg.ServerCursor


_OVER = "|".join(f"audit_logs_{month.replace('-', '_')}" for month in MONTHS[:-1])
_SCAN = re.compile(
    rf"(Seq Scan|Index Scan(?: Backward)?|Index Only Scan(?! Backward)|Bitmap Heap Scan).* on ({_OVER})\b"
)


def whole_months(plan: str) -> list[str]:
    """The scans that read all of a month that is over: sequential ones, and those of an index without a condition.

    Not the question when the newest so many rows began, which goes backward over times alone, and so many steps.
    """
    lines = plan.splitlines()
    found = []
    for number, line in enumerate(lines):
        scan = _SCAN.search(line)
        if scan is None:
            continue
        indent = len(line) - len(line.lstrip())
        below = []
        for after in lines[number + 1 :]:
            if len(after) - len(after.lstrip()) <= indent:
                break
            below.append(after)
        if scan[1] == "Seq Scan" or not any("Index Cond" in one for one in below):
            found.append("\n".join([line, *below]))
    return found


def indexes(plans_: list[str]) -> set[str]:
    """The kinds of look-up indexes that they use of months that are over."""
    scans = rf"Index Scan (?:using|on) (?:{_OVER})_(record|user|terms|images|address|transaction)\b"
    return set(re.findall(scans, "\n".join(plans_)))
