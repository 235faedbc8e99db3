"""``cdc-audit undo``: SQL that takes changes back, newest first, and refuses where a row has changed since.

It is printed for somebody to read and run on the source. Everything that comes from the trail stands in literals of printable
characters only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from psycopg import sql

from cdc_audit.errors import CheckFailedError
from cdc_audit.postgres import named_sql
from cdc_audit.trail.image import printable
from cdc_audit.trail.query import LogRow

_SQL = named_sql("cdc_audit.trail", "sql/undo.sql")
_CHANGES = {"INSERT", "UPDATE", "DELETE"}
_FINAL = {"TRUNCATE", "DDL"}
_NO_VALUE = re.compile(r'"(\[redacted\]|\[erased\]|(hmac|personal):[0-9a-f]{16,64}")')


def script(rows: Sequence[LogRow], *, context: dict[str, str]) -> Iterator[str]:
    """The script that takes these rows back; ``context`` says who does it and why. Rows that change nothing are left out.

    Raises CheckFailedError that names the first row which can't be taken back.
    """
    changes = [row for row in sorted(rows, key=lambda row: -row.id) if row.action in _CHANGES | _FINAL]
    for row in changes:
        if why := _hindrance(row):
            raise CheckFailedError(
                f"row {row.id} of the trail can't be taken back: {why}",
                remedy=f"see it: cdc-audit show {row.id}; take back the others one by one: cdc-audit undo --id ID",
            )
    yield _SQL["head"]
    yield _filled("context", context=printable(json.dumps(context, ensure_ascii=False)))
    for row in changes:
        said = {"id": row.id, "schema": row.schema_name, "table": row.table_name}
        images = f', "present": {row.new_data or "null"}, "past": {row.old_data or "null"}}}'
        yield _filled("change", change=printable(json.dumps(said, ensure_ascii=False)[:-1] + images))
    yield _SQL["tail"]


def _hindrance(row: LogRow) -> str | None:
    if row.action in _FINAL:
        return f"{row.action} leaves no images"
    if row.capture != "full" or (row.action == "DELETE" and row.old_data is None):
        return f"it has no whole images (capture {row.capture}); REPLICA IDENTITY FULL gives them"
    if row.action == "UPDATE" and (row.old_data is None or row.changed_fields is None):
        return "it has no old image"
    if any(_NO_VALUE.search(image) for image in (row.old_data, row.new_data) if image is not None):
        return "values in it were redacted or erased"
    return None


def _filled(name: str, **values: str) -> str:
    literals = {key: sql.Literal(value) for key, value in values.items()}
    return sql.SQL(_SQL[name]).format(**literals).as_string()
