"""The oracle: what the trail must hold, by triggers and ``test_decoding``. Shares no code with the product.

    oracle = Oracle.install(databases.source_dsn, SCHEMAS)  # after the daemon's slot, before the workload
    ...
    wait_for(databases.audit_dsn, oracle.mark())
    assert oracle.compare(databases.audit_dsn).is_none

The daemon must run with ``exclude = ["oracle.*"]``.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import namedtuple_row
from psycopg.sql import SQL, Identifier

from tests.support.comparison import Content, Difference, Found, Noted, Skeleton, Step, compare_transactions

_ROWS = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
_NAME = r'(?:"(?:[^"]|"")*"|[^".:, ]+)'
_CHANGE = re.compile(rf"table ({_NAME}\.{_NAME}(?:, {_NAME}\.{_NAME})*): ({'|'.join(_ROWS)}):")
_QUALIFIED = re.compile(rf"({_NAME})\.({_NAME})")
_LONG = 2000  # a value longer than this is stored out of line (the workload makes none that is near it)


@dataclass(frozen=True, slots=True)
class Oracle:
    """The oracle of one source database."""

    dsn: str
    slot: str

    @classmethod
    def install(cls, dsn: str, schemas: Sequence[str]) -> Oracle:
        """Watch all tables of these schemas, as they are now."""
        slot = f"oracle_{conninfo_to_dict(dsn)['dbname']}"
        with psycopg.connect(dsn, autocommit=True) as source:
            source.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
            source.execute("call oracle.watch(%s)", (list(schemas),))
            source.execute("select pg_create_logical_replication_slot(%s, 'test_decoding')", (slot,))
        return cls(dsn, slot)

    def mark(self) -> int:
        """Commit a transaction that changes a watched table, and return its id: a place to wait for."""
        with psycopg.connect(self.dsn) as source:
            source.execute("insert into app.mark default values")
            row = source.execute("select pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            return int(row[0])

    def compare(
        self, audit_dsn: str, *, schema: str = "audit", has_root_truncates: bool = True, after_id: int = 0
    ) -> Difference:
        """Everything noted since ``install`` or ``forget`` against the trail's rows after ``after_id``. Drains the oracle's slot.

        Without ``has_root_truncates`` the TRUNCATE of a partitioned table itself, beside those of its partitions, isn't expected:
        pgoutput doesn't send it.
        """
        noted, skeleton = self.evidence(has_root_truncates=has_root_truncates)
        return compare_transactions(noted, found_in(audit_dsn, schema, after_id), skeleton)

    def evidence(self, *, has_root_truncates: bool = True) -> tuple[dict[int, list[Noted]], Skeleton]:
        """What ``compare`` compares the trail with. Drains the oracle's slot."""
        with psycopg.connect(self.dsn) as source:
            relations = {row[0]: _Relation(*row) for row in source.execute("select * from oracle.relation")}
            noted, skeleton = _noted(source, relations), _skeleton(source, self.slot)
        if has_root_truncates:
            return noted, skeleton
        roots = {(r.schema, r.table) for r in relations.values() if r.partition}
        return _without_root_truncates(noted, skeleton, roots)

    def forget(self) -> None:
        """Empty what was noted, once it was compared and while nobody works."""
        with psycopg.connect(self.dsn) as source:
            source.execute("truncate oracle.shadow, oracle.claim, oracle.event")


def found_in(audit_dsn: str, schema: str, after_id: int = 0) -> dict[int, list[Found]]:
    """What a schema's ``audit_logs`` holds, by transaction, in the order of id."""
    with psycopg.connect(audit_dsn) as audit:
        return _found(audit, schema, after_id)


def wait_for(audit_dsn: str, xid: int, *, timeout: float = 60, schema: str = "audit") -> None:
    """Wait until the trail holds a row of this transaction: then it holds all that committed before, too.

    Bad days of the audit database are waited through. Raises TimeoutError.
    """
    deadline = time.monotonic() + timeout
    query = SQL("select 1 from {}.audit_logs where xid = %s limit 1").format(Identifier(schema))
    while True:
        try:
            with psycopg.connect(audit_dsn) as audit:
                if audit.execute(query, (xid,)).fetchone():
                    return
        except psycopg.Error:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"transaction {xid} did not reach the audit database within {timeout} s")
        time.sleep(0.05)


class _Relation(NamedTuple):
    relation: int
    schema: str
    table: str
    partition: str | None
    identity: str
    columns: list[str]
    key: list[str]


def _noted(source: psycopg.Connection, relations: dict[int, _Relation]) -> dict[int, list[Noted]]:
    claims: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    for n, xid, user, trust in source.execute(
        "select n, xid, claimed_user, trust from oracle.claim order by n"
    ):
        claims[xid].append((n, user, trust))
    numbered: dict[int, list[tuple[int, Content]]] = defaultdict(list)
    with source.cursor("shadow") as rows:
        rows.itersize = 500
        rows.execute("select n, xid, op, relation, old::text, new::text from oracle.shadow")
        for n, xid, op, relation, old, new in rows:
            numbered[xid].append((n, _wanted(op, relations[relation], _parsed(old), _parsed(new))))
    for n, xid, action, record_id in source.execute("select n, xid, action, record_id from oracle.event"):
        numbered[xid].append((n, _event(action, record_id)))
    return {
        xid: [_attributed(content, claims.get(xid, ()), n) for n, content in sorted(rows)]
        for xid, rows in numbered.items()
    }


def _attributed(content: Content, claims: Sequence[tuple[int, str, str]], n: int) -> Noted:
    """A context counts from its place on; what stands before the first takes the first."""
    if not claims:
        return Noted(content, "", "none")
    last = [claim for claim in claims if claim[0] < n][-1:] or claims[:1]
    return Noted(content, last[0][1], last[0][2])


def _wanted(op: str, table: _Relation, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Content:
    """What the trail must hold of a change, by its table's replica identity."""
    leaf = (table.schema, table.partition or table.table)
    if table.identity == "none" and op in ("UPDATE", "DELETE"):
        return Content(op, table.table, leaf, "", "", "", (), "suppressed", ())
    image = old or new
    record_id = "" if image is None else _record_id([image[name] for name in table.key])
    if table.identity == "full" or op in ("INSERT", "TRUNCATE"):
        changed = _changed(table.columns, old, new)
        return Content(op, table.table, leaf, record_id, _digest(old), _digest(new), changed, "full", ())
    assert old is not None
    key = {name: old[name] for name in table.key}
    toast = tuple(name for name in table.columns if new and new[name] == old[name] and _is_long(new[name]))
    sent = {name: value for name, value in new.items() if name not in toast} if new else None
    return Content(op, table.table, leaf, record_id, _digest(key), _digest(sent), (), "partial", toast)


def _changed(
    columns: Sequence[str], old: dict[str, Any] | None, new: dict[str, Any] | None
) -> tuple[str, ...]:
    return tuple(name for name in columns if old[name] != new[name]) if old and new else ()


def _found(audit: psycopg.Connection, schema: str, after_id: int) -> dict[int, list[Found]]:
    query = SQL(
        "select id, xid, seq, commit_lsn - '0/0' as lsn, action, schema_name, table_name, partition_name,"
        " record_id, old_data::text as old, new_data::text as new, changed_fields, unchanged_toast, capture,"
        " user_id, context_trust from {}.audit_logs where id > %s order by id"
    ).format(Identifier(schema))
    transactions: dict[int, list[Found]] = defaultdict(list)
    with audit.cursor("trail", row_factory=namedtuple_row) as rows:
        rows.itersize = 500
        rows.execute(query, (after_id,))
        row: Any
        for row in rows:
            user, trust = row.user_id or "", row.context_trust
            transactions[row.xid].append(Found(_present(row), user, trust, row.id, row.seq, int(row.lsn)))
    return transactions


def _present(row: Any) -> Content:
    if row.action not in _ROWS:
        return _event(row.action, row.record_id or "")
    return Content(
        row.action,
        row.table_name,
        (row.schema_name, row.partition_name or row.table_name),
        _normal_record_id(row.record_id or ""),
        _digest(_parsed(row.old)),
        _digest(_parsed(row.new)),
        tuple(row.changed_fields or ()),
        row.capture,
        tuple(row.unchanged_toast or ()),
    )


def _event(action: str, record_id: str) -> Content:
    return Content(action, "", ("", ""), record_id, "", "", (), "event", ())


def _skeleton(source: psycopg.Connection, slot: str) -> Skeleton:
    order: list[int] = []
    steps: dict[int, list[Step]] = defaultdict(list)
    # Only the beginning of a line matters, and of the oracle's own tables nothing does.
    query = (
        "select xid::text::bigint, left(data, 300) from pg_logical_slot_get_changes(%s, null, null)"
        " where data like 'COMMIT%%' or data like 'table %%' and data not like 'table oracle.%%'"
    )
    for xid, data in source.execute(query, (slot,)):
        if data.startswith("COMMIT"):
            order.append(xid)
        elif match := _CHANGE.match(data):
            leaves = [(_plain(schema), _plain(table)) for schema, table in _QUALIFIED.findall(match[1])]
            steps[xid].extend((match[2], leaf) for leaf in leaves)
    return Skeleton(order, steps)


def _without_root_truncates(
    noted: dict[int, list[Noted]], skeleton: Skeleton, roots: set[tuple[str, str]]
) -> tuple[dict[int, list[Noted]], Skeleton]:
    def is_root(action: str, leaf: tuple[str, str]) -> bool:
        return action == "TRUNCATE" and leaf in roots

    kept = {
        xid: [one for one in rows if not is_root(one.content.action, one.content.leaf)]
        for xid, rows in noted.items()
    }
    steps = {xid: [step for step in taken if not is_root(*step)] for xid, taken in skeleton.steps.items()}
    return {xid: rows for xid, rows in kept.items() if rows}, skeleton._replace(steps=steps)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _parsed(text: str | None) -> dict[str, Any] | None:
    """JSON with numbers kept as they are written, so that 1.50 isn't 1.5."""
    if text is None:
        return None
    parsed: dict[str, Any] = json.loads(text, parse_float=_Number, parse_int=_Number)
    return parsed


class _Number(str):
    """A JSON number's text: equal to the same number only, never to a string."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __repr__(self) -> str:
        return "number " + str(self)


def _digest(image: dict[str, Any] | None) -> str:
    if image is None:
        return ""
    return hashlib.sha256(repr(_sorted(image)).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > _LONG


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)


def _record_id(values: Sequence[Any]) -> str:
    if len(values) == 1:
        return _text(values[0])
    return json.dumps([_text(value) for value in values]) if values else ""


def _normal_record_id(text: str) -> str:
    return json.dumps(json.loads(text)) if text.startswith("[") else text
