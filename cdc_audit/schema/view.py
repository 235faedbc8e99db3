"""``cdc-audit schema view``: one view over the trails of several slots of one source.

Each slot has its daemon, its schema and its ledger, and so its own ids. What all have in common is the source's: ``commit_lsn``,
the order of commits, and ``xid``. The view is nobody's evidence: ``verify`` is each ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import NotPermittedError, SettingError, UsageError
from cdc_audit.postgres import explain, named_sql

_SQL = named_sql("cdc_audit.schema", "sql/view.sql")
_ROLES = named_sql("cdc_audit.schema", "sql/roles.sql")


def make(connection: Connection, view: str, schemas: Sequence[str]) -> None:
    """Make ``view``.audit_logs over the trails in ``schemas``, or make it anew; audit_admin may read it.

    Raises SettingError if one of them has no trail, UsageError if they are not of one database, or two of one slot, or if ``view``
    is somebody else's schema; NotPermittedError.
    """
    try:
        with connection.transaction():
            connection.execute(_SQL["lock"])
            _check(connection, view, schemas)
            connection.execute(_ROLES["join_owner"])
            connection.execute(_named("create_schema", view))
            connection.execute(_ROLES["become_owner"])
            parts = [
                sql.SQL(_SQL["part"]).format(schema=sql.Identifier(one), schema_name=sql.Literal(one))
                for one in schemas
            ]
            all_parts = sql.SQL(f"\n{_SQL['and_all']}\n").join(parts)
            connection.execute(_named("drop_view", view))
            connection.execute(sql.SQL(_SQL["view"]).format(view=sql.Identifier(view), parts=all_parts))
            for name in ("readers", "read"):
                connection.execute(_named(name, view))
            connection.execute(_ROLES["become_self"])
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermittedError(
            explain(error, side="audit").message,
            remedy="let [audit] admin_dsn name a superuser, or who ran cdc-audit schema migrate",
        ) from error
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def _check(connection: Connection, view: str, schemas: Sequence[str]) -> None:
    if len(set(schemas)) < len(schemas):
        raise UsageError("a schema is named twice", remedy="name each once")
    is_trail, _, is_taken = _state(connection, view)
    if is_trail or is_taken:
        raise UsageError(f"schema {view} holds something else", remedy="name one that is not there yet")
    slots: dict[tuple[str, str, str], str] = {}
    for schema in schemas:
        if not _state(connection, schema)[0]:
            raise SettingError(
                f"audit database: there is no trail in schema {schema}",
                remedy="correct the name, or with [audit] schema set to it: cdc-audit init",
            )
        first = connection.execute(_named("ledgers", schema, "schema")).fetchone()
        if first is None:
            raise SettingError(
                f"audit database: the ledger in schema {schema} is empty", remedy="first let its daemon run"
            )
        slots[first] = schema
    if len({slot[:2] for slot in slots}) > 1:
        raise UsageError(
            "the trails are of different databases, whose transactions have nothing in common",
            remedy="name trails of one source",
        )
    if len(slots) < len(schemas):
        raise UsageError("two of the trails are of one slot", remedy="name one of each slot")


def _state(connection: Connection, schema: str) -> tuple[bool, bool, bool]:
    row = connection.execute(_SQL["state"], {"schema": schema}).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1]), bool(row[2])


def _named(name: str, schema: str, placeholder: str = "view") -> sql.Composed:
    return sql.SQL(_SQL[name]).format(**{placeholder: sql.Identifier(schema)})
