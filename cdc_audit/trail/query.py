"""The question behind ``cdc-audit log``: which rows, newest first. How they look is ``trail.render``.

A page is filled from the newest rows of all, by their time, as far as they go: what is frequent is there. The rest is rare, and
rare things are found by the look-up indexes, month by month, newest first, until the page is full. Which of the two it is, is seen,
not estimated: of values in images, networks and Bloom filters the planner knows too little, and would read months for a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from ipaddress import ip_network
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError, SettingError, UsageError
from cdc_audit.postgres import explain, named_sql
from cdc_audit.trail import digests
from cdc_audit.trail.spans import Span, spans

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_IDENTIFIER = r'(?:"(?P<{0}_quoted>(?:[^"]|"")+)"|(?P<{0}>[^".]+))'
_TABLE = re.compile(rf"(?:{_IDENTIFIER.format('schema')}\.)?{_IDENTIFIER.format('table')}", re.DOTALL)
_NUMBER_OR_TRUTH = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?|true|false")
_BATCH_ROWS = 500
_NEWEST_ROWS = 10_000
_UNSERVED = {"schema_name", "field", "before", "after", "text"}  # by the indexes of the month that is written
_PAGING = {"limit", "oldest_first", "before_at", "before_id"}
_FREQUENT = 50  # among those; more of a month are read faster in their order than by an index
_IMAGES = {"before": "old_data", "after": "new_data"}


class LogRow(NamedTuple):
    """One row of ``audit_logs``, all its columns in table order; personal values are shown, or ``[erased]``, where they may be.

    ``created_at`` is ISO 8601 in UTC with microseconds; jsonb columns are the text that PostgreSQL prints;
    ``row_hash`` is hexadecimal, as PostgreSQL prints bytea.
    """

    id: int
    created_at: str
    schema_name: str
    table_name: str
    record_id: str | None
    action: str
    old_data: str | None
    new_data: str | None
    changed_fields: list[str] | None
    user_id: str | None
    user_email: str | None
    ip_address: str | None
    user_agent: str | None
    context: str | None
    context_trust: str
    db_user: str | None
    application_name: str | None
    capture: str
    unchanged_toast: list[str] | None
    partition_name: str | None
    xid: int | None
    commit_lsn: str
    seq: int
    row_hash: str


@dataclass(frozen=True, slots=True)
class Filters:
    """What is asked for; None: anything. All that are given must hold.

    ``user`` is a user id or an e-mail address, ``field`` a changed column; ``until`` is exclusive. ``before`` and ``after`` are
    (column, text of its value) in the old and the new image. ``text`` stands in the context or the user agent, in either case of
    letters. ``removals``: DELETE and TRUNCATE. ``within``: one of these ranges of ids, each from its first to before its end.
    ``before_at`` and ``before_id``, together, are the row that a page follows.
    """

    schema_name: str | None = None
    table_name: str | None = None
    record: str | None = None
    user: str | None = None
    action: str | None = None
    field: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    xid: int | None = None
    limit: int | None = 50
    before: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, str], ...] = ()
    email: str | None = None
    ip: str | None = None
    application: str | None = None
    trust: str | None = None
    text: str | None = None
    removals: bool = False
    id: int | None = None
    above_id: int | None = None
    up_to_id: int | None = None
    commit_lsn: str | None = None
    before_at: datetime | None = None
    before_id: int | None = None
    oldest_first: bool = False
    within: tuple[tuple[int, int], ...] = ()


Reader = Callable[[Filters], Iterator[LogRow]]  # what gives the rows that match, as ``read_log`` does


def parse_time(text: str, now: datetime) -> datetime:
    """A moment, in UTC, from what people type: ISO 8601, ``24h``, ``7d`` (ago), ``today``, ``yesterday``.

    Without an offset, times are UTC. A date, ``today`` and ``yesterday`` mean their first moment. ``now`` is
    aware. Raises UsageError for anything else.
    """
    word = text.strip().lower()
    midnight = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    named = {"now": now.astimezone(UTC), "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if word in named:
        return named[word]
    try:
        if ago := _AGO.fullmatch(word):
            return now.astimezone(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"not a time: {text[:40]!r}",
            remedy="say 2026-11-22, 2026-11-22T19:00, 2026-11-22T19:00+01:00, 24h, 7d, or yesterday",
        ) from None


def parse_table(text: str) -> tuple[str | None, str]:
    """Schema (None: any) and table of ``table`` or ``schema.table``; names with a dot are in double quotes.

    Names are taken as they are: nothing is folded to lower case. Raises UsageError for anything else.
    """
    found = _TABLE.fullmatch(text)
    if not found:
        raise UsageError(f"not a table: {text[:80]!r}", remedy='say orders, shop.orders, or shop."a.table"')
    schema, table = (_unquoted(found, part) for part in ("schema", "table"))
    assert table is not None
    return schema, table


def parse_value(text: str) -> tuple[str, str]:
    """Column and text of ``COLUMN=VALUE``. Raises UsageError for anything else."""
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise UsageError("not a column and its value", remedy="say COLUMN=VALUE, as in status=paid")
    return column, value


def parse_network(text: str) -> str:
    """An IP address or network as PostgreSQL reads it. Raises UsageError for anything else."""
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        raise UsageError(
            f"not an IP address or network: {text[:60]!r}",
            remedy="say 10.0.0.9, 10.0.0.0/8, or 2001:db8::/32",
        ) from None


@contextmanager
def reading(connection: Connection, schema: str) -> Iterator[bool]:
    """A transaction that reads the trail; whether there are personal values that may be seen in it.

    Raises NotPermittedError if the role may not read the trail, SettingError if there is none.
    """
    try:
        with connection.transaction():
            may_open = connection.execute(_SQL["may_open"], {"schema": schema}).fetchone() == (True,)
            may_open = may_open and connection.execute(_named("are_any_personal", schema)).fetchone() == (
                True,
            )
            connection.execute(_SQL["prefer_indexes"])
            yield may_open
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user.replace('"', '""')
        raise NotPermittedError(
            explain(error, side="audit").message,
            remedy=f'grant audit_admin to "{role}"; or give --dsn of a role that has it',
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SettingError(
            f"audit database: there is no trail in schema {schema}",
            remedy="correct [audit] dsn and schema, or: cdc-audit init",
        ) from error
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def read_log(connection: Connection, schema: str, filters: Filters) -> Generator[LogRow, None, None]:
    """The rows that match, at most ``filters.limit``. They are fetched as they are consumed. Raises as ``reading`` does."""
    with reading(connection, schema) as may_open:
        if filters.limit is None or filters.oldest_first:
            yield from _rows(connection, schema, filters, may_open)
        else:
            yield from _newest_first(connection, schema, filters, filters.limit, may_open)


def _newest_first(
    connection: Connection, schema: str, filters: Filters, limit: int, may_open: bool
) -> Iterator[LogRow]:
    begin = _time_of_newest(connection, schema, filters)
    found = 0
    for row in _rows(connection, schema, replace(filters, since=begin or filters.since), may_open):
        found += 1
        yield row
    if begin is None or found == limit:
        return
    is_frequent, taken, terms = found >= _FREQUENT, "", _terms(filters, may_open)
    for span in _older(connection, schema, filters, begin):
        is_indexed, within = span.is_over or _has_open_index(filters), None
        if terms and not is_frequent and not is_indexed:
            within = digests.ranges(connection, schema, span.partition, terms)
            if within == ():
                continue
        way = "indexscan" if is_frequent else "bitmapscan" if is_indexed or within else "seqscan"
        if way != taken:
            connection.execute(_SQL["one_way"], {"way": way})
            taken = way
        page = replace(filters, since=span.since, until=span.until, limit=limit - found, within=within or ())
        for row in _rows(connection, schema, page, may_open):
            found += 1
            yield row
        if found == limit:
            return


def _older(connection: Connection, schema: str, filters: Filters, begin: datetime) -> Iterator[Span]:
    """The months before; of newest ids all at once, since those are few, and the index of ids serves them everywhere."""
    if filters.above_id is not None:
        return iter([Span(filters.since, begin, is_over=True)])
    partitions = connection.execute(_SQL["partitions"], {"schema": schema}).fetchall()
    return spans(list(map(Span._make, partitions)), filters.since, begin)


def _has_open_index(filters: Filters) -> bool:
    """Whether an index of the month that is written serves one of them."""
    return any(name not in _UNSERVED | _PAGING for name, _ in given(filters))


def _terms(filters: Filters, may_open: bool) -> list[str]:
    """What digests are asked of: personal values are in none."""
    values = () if may_open else (*filters.before, *filters.after)
    fields = () if filters.field is None else (filters.field,)
    return [*fields, *("=".join(value) for value in values)]


def given(filters: Filters) -> Iterator[tuple[str, Any]]:
    """Name and value of all that was said, how the page is cut included."""
    for name in Filters.__slots__:
        value = getattr(filters, name)
        if value is not None and value is not False and value != ():
            yield name, value


def _time_of_newest(connection: Connection, schema: str, filters: Filters) -> datetime | None:
    """When the newest rows of the time that is asked for began; None: there are no more than those."""
    time = Filters(
        since=filters.since, until=filters.until, before_at=filters.before_at, before_id=filters.before_id
    )
    conditions, values = where(schema, time, opened=False)
    query = sql.SQL(_SQL["time_of_newest"]).format(schema=sql.Identifier(schema), conditions=conditions)
    found = connection.execute(query, {**values, "newest": _NEWEST_ROWS}).fetchone()
    return found[0] if found else None


def _rows(connection: Connection, schema: str, filters: Filters, may_open: bool) -> Iterator[LogRow]:
    """The answer to one query."""
    query, values = compose(schema, filters, opened=may_open)
    if filters.limit is not None and filters.limit <= _BATCH_ROWS:
        # Not prepared, however often: a plan for any values would not know which months and which rare values they are.
        yield from map(LogRow._make, connection.execute(query, values, prepare=False))
        return
    with connection.cursor(name="cdc_audit_log") as cursor:
        cursor.itersize = _BATCH_ROWS
        cursor.execute(query, values)
        yield from map(LogRow._make, cursor)


def one_row(connection: Connection, schema: str, row_id: int) -> LogRow:
    """The row of that id. Raises UsageError if there is none, and as ``reading`` does."""
    found = list(read_log(connection, schema, Filters(id=row_id, limit=None)))
    if not found:
        raise UsageError(f"the trail has no row {row_id}", remedy="see which there are: cdc-audit log")
    return found[0]


def time_of(connection: Connection, schema: str, row_id: int) -> datetime:
    """``created_at`` of a row. Raises UsageError if there is none, and as ``reading`` does."""
    with reading(connection, schema):
        found = connection.execute(_named("time_of", schema), {"id": row_id}).fetchone()
    if found is None:
        raise UsageError(f"the trail has no row {row_id}", remedy="give the id of the last row of a page")
    moment: datetime = found[0]
    return moment


def last_id(connection: Connection, schema: str) -> int:
    """The id of the newest row that the ledger holds; 0: none. Raises as ``reading`` does."""
    with reading(connection, schema):
        found = connection.execute(_named("last_id", schema)).fetchone()
    return int(found[0]) if found else 0


def compose(
    schema: str, filters: Filters, *, opened: bool = True, archived: bool = False
) -> tuple[sql.Composed, dict[str, Any]]:
    """The query for these filters, and the values that it binds. ``opened``: with personal values. Pure.

    ``archived``: of rows that aren't stored here, which are to be bound as ``archived``, a JSON array of objects.
    """
    place = sql.SQL(_SQL["archived" if archived else "stored"]).format(schema=sql.Identifier(schema))
    conditions, values = where(schema, filters, opened=opened)
    order = sql.SQL(_SQL["oldest_first" if filters.oldest_first else "newest_first"])
    rows = sql.SQL(_SQL["rows"]).format(place=place, conditions=conditions, order=order)
    if opened:
        rows = sql.SQL(_SQL["opened_rows"]).format(schema=sql.Identifier(schema), rows=rows)
    return sql.SQL(_SQL["select"]).format(rows=rows, order=order), {**values, "limit": filters.limit}


def where(schema: str, filters: Filters, *, opened: bool) -> tuple[sql.Composed, dict[str, Any]]:
    """The conditions on ``audit_logs`` alone, and the values that they bind. Pure."""
    # Letters of ASCII need no locale, in which to fold those of a context takes longer than all else.
    folding = sql.Identifier("pg_catalog", "C" if (filters.text or "").isascii() else "default")
    names = {"schema": sql.Identifier(schema), "folding": folding}
    conditions: list[sql.Composed] = []
    values: dict[str, Any] = {}
    for name, value in given(filters):
        if name in {"limit", "oldest_first"}:
            continue
        if name in _IMAGES:
            for number, (column, text) in enumerate(value):
                condition, bound = _value(name, f"{name}_{number}", column, text, names, opened=opened)
                conditions.append(condition)
                values |= bound
        elif name == "within":
            conditions.append(_within(value))
        else:
            kind = "address" if name == "ip" and not opened and ip_network(value).num_addresses == 1 else name
            conditions.append(sql.SQL(_condition(kind, opened)).format(**names))
            values[name] = value
    if not conditions:
        conditions.append(sql.SQL(_SQL["all"]).format())
    return sql.SQL("\n   and ").join(conditions), values


def _within(ranges: tuple[tuple[int, int], ...]) -> sql.Composed:
    either = [
        sql.SQL(_SQL["range"]).format(first=sql.Literal(first), end=sql.Literal(end)) for first, end in ranges
    ]
    return sql.SQL("({})").format(sql.SQL("\n    or ").join(either))


def _value(
    part: str, prefix: str, column: str, text: str, names: dict[str, sql.Identifier], *, opened: bool
) -> tuple[sql.Composed, dict[str, Any]]:
    """The condition that a column of an image has this text, and the values that it binds, whose names begin with ``prefix``."""
    bound = {"field": column, "value": text}
    name = "nested_value"
    if text[:1] not in {"{", "["}:
        name = "value"
        field = json.dumps(column, ensure_ascii=False)
        quoted = json.dumps(text, ensure_ascii=False)
        bound["as_text"] = f"{{{field}: {quoted}}}"
        bound["as_is"] = f"{{{field}: {text if _NUMBER_OR_TRUTH.fullmatch(text) else quoted}}}"
    condition = sql.SQL(_condition(name, opened)).format(
        part=sql.Identifier(_IMAGES[part]),
        part_name=sql.Literal(_IMAGES[part]),
        **names,
        **{key: sql.Placeholder(f"{prefix}_{key}") for key in bound},
    )
    return condition, {f"{prefix}_{key}": value for key, value in bound.items()}


def _condition(name: str, opened: bool) -> LiteralString:
    return _SQL.get(f"{name}_opened", _SQL[name]) if opened else _SQL[name]


def _named(name: str, schema: str) -> sql.Composed:
    return sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema))


def _unquoted(found: re.Match[str], part: str) -> str | None:
    quoted: str | None = found[f"{part}_quoted"]
    return found[part] if quoted is None else quoted.replace('""', '"')


_SQL = named_sql("cdc_audit.trail", "sql/log.sql")
