"""``cdc-audit suspicious``: what the rules of the configuration find in the stored trail.

The daemon tells of the same runs as they begin (``pipeline.suspicion``): its ``at`` is ``first`` here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection, sql

from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.postgres import named_sql
from cdc_audit.trail.query import Filters, reading, where

_SQL = named_sql("cdc_audit.trail", "sql/suspicious.sql")
# What a rule keeps apart: user, table, action.
_APART = {
    "bulk": (True, True, True),
    "ddl": (True, True, False),
    "no_context": (False, True, False),
}
_BY_USER = (True, False, False)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class Finding(NamedTuple):
    """A run. ``rows``: the most that lay within the window. What the rule does not keep apart is None; so is nobody as ``user``.

    ``first`` and ``last`` are the times between which the limit was exceeded, ``last_id`` is the newest row.
    """

    rule: str
    user: str | None
    address: str | None
    action: str | None
    schema_name: str | None
    table_name: str | None
    rows: int
    first: str
    last: str
    last_id: int


def findings(
    connection: Connection, schema: str, filters: Filters, rules: Iterable[SuspiciousRule]
) -> list[Finding]:
    """What each rule finds in the rows that match, newest first within a rule. Raises as ``query.reading`` does."""
    with reading(connection, schema) as may_open:
        found = []
        for rule in rules:
            query, values = compose(schema, filters, rule, opened=may_open)
            found += [Finding(rule.label, *row) for row in connection.execute(query, values).fetchall()]
    return found


def compose(
    schema: str, filters: Filters, rule: SuspiciousRule, *, opened: bool
) -> tuple[sql.Composed, dict[str, Any]]:
    """The query of one rule, and the values that it binds. Pure."""
    window = timedelta(seconds=rule.span)
    since = filters.since
    if rule.kind == "new_address" and since is not None:  # what was known by then
        filters = replace(filters, since=max(_BEGINNING + window, since) - window)
    conditions, values = where(schema, filters, opened=opened)
    who = sql.SQL(_SQL["who"]).format()
    every = sql.SQL(_SQL["every"]).format(who=who)
    query = sql.SQL(_SQL["addresses" if rule.kind == "new_address" else "runs"]).format(
        schema=sql.Identifier(schema),
        conditions=conditions,
        rule=sql.SQL(_SQL[rule.kind]).format(every=every, who=who),
        who=who,
        iso=sql.SQL(_SQL["iso"]),
    )
    by_user, by_table, by_action = _APART.get(rule.kind, _BY_USER)
    begin, end = rule.hours.split("-")
    schema_like, table_like = map(_like, rule.table.split("."))
    return query, {
        **values,
        "by_user": by_user,
        "by_table": by_table,
        "by_action": by_action,
        "window": window,
        "limit": rule.limit,
        "schema_like": schema_like,
        "table_like": table_like,
        "ignored": list(rule.ignore_users),
        "zone": rule.time_zone,
        "days": list(rule.days),
        "begin": begin,
        "end": end,
        "from": since or _BEGINNING,
    }


def _like(pattern: str) -> str:
    """A pattern of the configuration, in which * stands for anything, as LIKE has it."""
    return pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
