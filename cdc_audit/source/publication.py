"""The publications that pgoutput reads: which tables are in them, so that no statement of the application ever fails.

PostgreSQL refuses UPDATE and DELETE on a table without a usable replica identity as soon as a publication publishes them.
So there are two: ``<name>`` publishes all changes of the tables whose identity is usable, ``<name>_inserts`` only INSERT and
TRUNCATE of the others. A table that loses its identity while it is in the former (ALTER TABLE ... REPLICA IDENTITY NOTHING, a
dropped primary key) can't be updated until ``keep_in_step`` has moved it; nothing can prevent that, ``state`` finds it.

Partitions are published under their own names. A root in ``<name>`` takes all of its partitions along, also those to come: so it
is there only if it has a primary key, which each partition takes over, and no partition lacks an identity now. Otherwise it is
in ``<name>_inserts``, so that new partitions aren't missed wholly, and each partition with an identity is in ``<name>`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import class_row, scalar_row

from cdc_audit.errors import NotPermittedError, SettingError
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import explained
from cdc_audit.source.tables import SQL as TABLES_SQL
from cdc_audit.source.tables import TableRow, TableState, alter, in_scope

_SQL = named_sql("cdc_audit.source", "sql/publication.sql")
_ALL = ["insert", "update", "delete", "truncate"]
_INSERTS = ["insert", "truncate"]
_GENERATED_SINCE = 180_000
_VIRTUAL = "REPLICA IDENTITY FULL with a virtual generated column"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PublicationReport:
    """What ``keep_in_step`` did, by ``schema.table``, and what it could not do.

    ``made`` are publications created or set right; ``moved`` went from one to the other. ``inserts_only`` are tables in scope with
    the reason why their UPDATE and DELETE aren't sent, ``unpublishable`` those of which nothing is.
    """

    made: tuple[str, ...]
    added: tuple[str, ...]
    moved: tuple[str, ...]
    removed: tuple[str, ...]
    inserts_only: tuple[tuple[str, str], ...]
    unpublishable: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PublicationState:
    """How far the publications are out of step, by ``schema.table``; whatever isn't empty is mended by ``keep_in_step``.

    ``absent`` are publications that don't exist. ``missing`` are tables in scope of which nothing is sent, ``movable`` those whose
    UPDATE and DELETE aren't, though they could be. ``refusing``, in scope or not, are tables whose UPDATE and DELETE the server
    refuses now: urgent.
    """

    absent: tuple[str, ...]
    missing: tuple[str, ...]
    movable: tuple[str, ...]
    refusing: tuple[str, ...]


class _Publication(NamedTuple):
    """A row of ``publications`` in sql/publication.sql."""

    name: str
    is_for_all: bool
    is_own: bool
    operations: list[str]
    is_via_root: bool
    has_generated: bool


class _Facts(NamedTuple):
    """A row of ``facts`` in sql/publication.sql."""

    schema: str
    table: str
    is_own: bool
    has_key: bool
    is_refused: bool
    direct: list[str]
    partial: list[str]
    published_by: list[str]


class _View(NamedTuple):
    """All tables of the database, those in scope, and the facts of each."""

    everything: list[TableState]
    scope: list[TableState]
    facts: dict[Key, _Facts]

    def lacks(self, state: TableState) -> str | None:
        """Why the server would refuse to update a table if its updates were published; None if it would not."""
        if state.kind == "partitioned" or state.persistence != "permanent":
            return None  # the former has no rows itself, the latter nothing in the WAL
        if not state.can_capture_changes:
            return state.reason
        return _VIRTUAL if self.facts[state.schema, state.table].is_refused else None


def names(name: str) -> tuple[str, str]:
    """Both publications: of all changes, and of inserts and truncates only."""
    return name, f"{name[:55]}_inserts"  # a name holds 63 bytes


def keep_in_step(
    connection: Connection, name: str, include: Sequence[str], exclude: Sequence[str] = ()
) -> PublicationReport:
    """Make both publications and bring them in step with the tables in scope and their identities. Can be repeated.

    Changes of a table are sent from when it was added; so call it before the slot is made. Raises NotPermittedError, before any
    table is touched, if the role doesn't own them; UnavailableError if a table was locked by others for 5 s (what was done
    before stays); SettingError if a publication is one FOR ALL TABLES or for a schema.
    """
    with explained():
        made = _make(connection, name)
        view = _view(connection, name, include, exclude)
        wanted = _wanted(view, name)
        _check(view, wanted)
        is_read = connection.cursor(row_factory=scalar_row).execute(_SQL["is_read"]).fetchone()
    did: dict[str, list[str]] = {"add": [], "move": [], "remove": []}
    done: list[str] = []
    for kind, key in _changes(view, wanted):
        facts, target = view.facts[key], wanted.get(key)
        statements = [_for_table("lock", key)] if is_read and target else []
        leave = [*facts.partial, *(other for other in facts.direct if other != target)]
        statements += [_for_table("remove", key, other) for other in leave]
        if target and target not in facts.direct:
            statements.append(_for_table("add", key, target))
        alter(connection, _text(key), sql.SQL("\n").join(statements), done)
        done.append(_text(key))
        did[kind].append(_text(key))
    permanent = [state for state in view.scope if state.persistence == "permanent"]
    return PublicationReport(
        made,
        tuple(did["add"]),
        tuple(did["move"]),
        tuple(did["remove"]),
        tuple((state.name, reason) for state in permanent if (reason := view.lacks(state))),
        tuple((s.name, s.reason or "") for s in view.scope if s.persistence != "permanent"),
    )


def state(
    connection: Connection, name: str, include: Sequence[str], exclude: Sequence[str] = ()
) -> PublicationState:
    """How far the publications are out of step. Any role may ask."""
    with explained():
        found = [publication.name for publication in _publications(connection, name)]
        return _state(_view(connection, name, include, exclude), name, found)


async def state_async(
    connection: AsyncConnection, name: str, include: Sequence[str], exclude: Sequence[str] = ()
) -> PublicationState:
    """The same as ``state``, for the daemon."""
    both = {"names": list(names(name))}
    with explained():
        async with connection.cursor(row_factory=class_row(_Publication)) as cursor:
            found = await (await cursor.execute(_SQL["publications"], both)).fetchall()
        async with connection.cursor(row_factory=class_row(TableRow)) as tables:
            rows = await (await tables.execute(TABLES_SQL["tables"])).fetchall()
        async with connection.cursor(row_factory=class_row(_Facts)) as facts:
            known = await (await facts.execute(_SQL["facts"], both)).fetchall()
    view = _joined(rows, known, include, exclude)
    return _state(view, name, [publication.name for publication in found])


def missing(
    connection: Connection, name: str, include: Sequence[str], exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """The tables in scope of which nothing is sent: new ones, mostly."""
    return state(connection, name, include, exclude).missing


def drop(connection: Connection, name: str) -> list[str]:
    """Drop both publications; returns those that there were. A stream that reads them ends with an error, or without changes."""
    dropped = []
    with explained():
        for publication in _publications(connection, name):
            connection.execute(_template("drop", name=sql.Identifier(publication.name)))
            dropped.append(publication.name)
    return dropped


def _publications(connection: Connection, name: str) -> list[_Publication]:
    with connection.cursor(row_factory=class_row(_Publication)) as cursor:
        return cursor.execute(_SQL["publications"], {"names": list(names(name))}).fetchall()


def _make(connection: Connection, name: str) -> tuple[str, ...]:
    """Create what isn't there, set right what is there otherwise; which."""
    made = []
    there = {publication.name: publication for publication in _publications(connection, name)}
    for which, operations in zip(names(name), (_ALL, _INSERTS), strict=True):
        found = there.get(which)
        if found is not None and not found.is_own:
            raise NotPermittedError(
                f"source database: publication {which} belongs to another role",
                remedy="let [source] admin_dsn connect as its owner or as a superuser",
            )
        if found is not None and found.is_for_all:
            raise _made_otherwise(which)
        if found and found.operations == operations and not found.is_via_root and found.has_generated:
            continue
        is_since_18 = connection.info.server_version >= _GENERATED_SINCE
        options = _template(
            "options_since_18" if is_since_18 else "options", operations=sql.Literal(", ".join(operations))
        )
        statement = _template("set" if found else "create", name=sql.Identifier(which), options=options)
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            database, role = sql.Identifier(connection.info.dbname), sql.Identifier(connection.info.user)
            raise NotPermittedError(
                f"source database: the role may not make publications ({error.sqlstate})",
                remedy=_template("grant", database=database, role=role).as_string(None),
            ) from error
        made.append(which)
    return tuple(made)


def _made_otherwise(which: str) -> SettingError:
    return SettingError(
        f"source database: publication {which} is one FOR ALL TABLES or for a schema: with it, UPDATE and DELETE fail on"
        " tables without a replica identity",
        remedy=f"drop publication {sql.Identifier(which).as_string(None)}; and repeat the command",
    )


def _view(connection: Connection, name: str, include: Sequence[str], exclude: Sequence[str]) -> _View:
    with connection.cursor(row_factory=class_row(TableRow)) as tables:
        rows = tables.execute(TABLES_SQL["tables"]).fetchall()
    with connection.cursor(row_factory=class_row(_Facts)) as cursor:
        facts = cursor.execute(_SQL["facts"], {"names": list(names(name))}).fetchall()
    return _joined(rows, facts, include, exclude)


def _joined(
    rows: list[TableRow], facts: list[_Facts], include: Sequence[str], exclude: Sequence[str]
) -> _View:
    by_key = {(fact.schema, fact.table): fact for fact in facts}
    known = [row for row in rows if (row.schema, row.table) in by_key]  # else made or dropped in between
    return _View(in_scope(known, ["*.*"], []), in_scope(known, include, exclude), by_key)


def _wanted(view: _View, name: str) -> dict[Key, str]:
    """Which publication each table is to be a member of, in its own name."""
    all_changes, inserts = names(name)
    broken = {s.root for s in view.everything if s.root and view.lacks(s)}
    roots = {
        (s.schema, s.table): (s.schema, s.table) not in broken and view.facts[s.schema, s.table].has_key
        for s in view.scope
        if s.kind == "partitioned" and s.root is None
    }
    wanted = {key: all_changes if takes_all else inserts for key, takes_all in roots.items()}
    for table in view.scope:
        if table.kind == "partitioned" or table.persistence != "permanent":
            continue
        is_usable = view.lacks(table) is None
        root_takes = roots.get(table.root) if table.root else None
        if root_takes is None:
            wanted[table.schema, table.table] = all_changes if is_usable else inserts
        elif not root_takes and is_usable:
            wanted[table.schema, table.table] = all_changes
    return wanted


def _changes(view: _View, wanted: dict[Key, str]) -> list[tuple[str, Key]]:
    """What to do with which table, in an order in which no partition is unpublished on the way: add, move, remove."""
    changes = []
    for key, facts in view.facts.items():
        target = wanted.get(key)
        if target is None and (facts.direct or facts.partial):
            changes.append(("remove", key))
        elif target and (facts.direct != [target] or facts.partial):
            changes.append(("move" if facts.direct or facts.partial else "add", key))
    return sorted(changes)


def _check(view: _View, wanted: dict[Key, str]) -> None:
    """Raise what would come up half-way."""
    foreign = [
        _text(key) for kind, key in _changes(view, wanted) if kind != "remove" and not view.facts[key].is_own
    ]
    if foreign:
        raise NotPermittedError(
            f"source database: the role does not own {_some(foreign)}: only an owner may publish a table",
            remedy="let [source] admin_dsn connect as a superuser, or as a role that is a member of the tables' owners",
        )
    members = {key for key, facts in view.facts.items() if facts.direct or facts.partial}
    for table in view.everything:
        facts = view.facts[table.schema, table.table]
        is_member = (table.schema, table.table) in members
        if facts.published_by and not is_member and not (table.root and _has_member(view, table, members)):
            raise _made_otherwise(facts.published_by[0])


def _has_member(view: _View, partition: TableState, members: set[Key]) -> bool:
    """Whether a partition may be published through another member of its tree: its root, or a level between."""
    tree = {
        (s.schema, s.table) for s in view.everything if s.kind == "partitioned" and s.root == partition.root
    }
    return bool(members & {*tree, partition.root})


def _state(view: _View, name: str, found: list[str]) -> PublicationState:
    all_changes, _ = names(name)
    unsent, movable, refusing = [], [], []
    for table in view.everything:
        published_by = view.facts[table.schema, table.table].published_by
        if all_changes in published_by and view.lacks(table):
            refusing.append(table.name)
    for table in view.scope:
        if table.kind == "partitioned" or table.persistence != "permanent":
            continue
        published_by = view.facts[table.schema, table.table].published_by
        if not published_by:
            unsent.append(table.name)
        elif all_changes not in published_by and view.lacks(table) is None:
            movable.append(table.name)
    absent = tuple(which for which in names(name) if which not in found)
    return PublicationState(absent, tuple(unsent), tuple(movable), tuple(refusing))


def _for_table(statement: str, key: Key, publication: str = "") -> sql.Composed:
    return _template(statement, table=sql.Identifier(*key), name=sql.Identifier(publication))


def _template(statement: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(_SQL[statement]).format(**parts)


def _text(key: Key) -> str:
    return ".".join(key)


def _some(tables: list[str]) -> str:
    return ", ".join(tables[:5]) + (f" and {len(tables) - 5} more" if len(tables) > 5 else "")
