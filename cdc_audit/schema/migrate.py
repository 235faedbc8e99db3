"""Migrations of the audit database: numbered, forward only, all in one transaction.

They run as ``audit_owner``, which owns everything. Doesn't touch rows, and never goes back to an older
version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, pq, sql

from cdc_audit import failpoint
from cdc_audit.errors import CdcAuditError, NotPermittedError, SettingError
from cdc_audit.postgres import explain, load_sql, named_sql

_MIGRATIONS = ("0001_trail", "0002_personal", "0003_retention", "0004_reads", "0005_lookup", "0006_digests")
LATEST: int = len(_MIGRATIONS)
"""The version that this program needs."""

_OLDEST_SERVER = 140000
_AHEAD = 3  # months
_REMEDY = "let [audit] admin_dsn name a superuser, or a role with CREATEROLE that may create schemas there"


def migrate(connection: Connection, schema: str, writer_login: str | None) -> list[str]:
    """Bring the schema to ``LATEST``, from nothing or any older version; returns the names of the applied.

    Repeating it is safe, also while another run is at work or the daemon writes: it applies nothing, repairs
    refusing triggers that were switched off, and makes partitions for this month and the next three.
    ``writer_login`` is the role of the daemon's DSN: it becomes a member of ``audit_writer`` unless it is a
    superuser or that role itself. The connection's role becomes a member of ``audit_owner`` unless it is a
    superuser.

    Raises SettingError (server too old, schema newer or not ours) and NotPermittedError, with remedies.
    """
    if connection.info.server_version < _OLDEST_SERVER:
        raise SettingError(
            f"audit database: PostgreSQL {connection.info.server_version // 10000} is too old",
            remedy="let [audit] dsn name a server of PostgreSQL 14 or newer",
        )
    with _explained(), connection.transaction():
        return _migrate(connection, schema, writer_login)


def script(connection: Connection, schema: str, writer_login: str | None) -> str:
    """What ``migrate`` would run on this database, for an administrator who reads it first and runs it with ``psql -1 -f``.

    Changes nothing. Leaves out what ``migrate`` would refuse: it does not look for unsafe roles or somebody else's schema.
    """
    with _explained():
        installed = installed_version(connection, schema)
        there = _one(connection, _SCHEMA["schema_state"], (schema,))[0]
        cursor = psycopg.ClientCursor(connection)
        parts = [_ROLES["lock"], _ROLES["create_roles"], _ROLES["join_owner"]]
        if installed is None:
            parts.append(_composed("take_schema" if there else "create_schema", schema).as_string(connection))
        parts.append(_ROLES["become_owner"])
        for version, name in enumerate(pending(installed), start=(installed or 0) + 1):
            parts.append(_migration(name, schema).as_string(connection))
            parts.append(cursor.mogrify(_composed("record", schema), (version, name)))
        parts.append(_composed("protect_all", schema).as_string(connection))
        parts.append(cursor.mogrify(_composed("ensure_ahead", schema), (_AHEAD,)))
        parts.append(_ROLES["become_self"])
        if writer_login is not None and _needs_membership(connection, writer_login):
            parts.append(_grant_writer(writer_login).as_string(connection))
    return "\n\n".join(part.rstrip(";\n ") + ";" for part in parts) + "\n"


def installed_version(connection: Connection, schema: str) -> int | None:
    """The version of the audit schema, or None if there isn't one. Raises NotPermittedError."""
    with _explained(f"grant audit_admin to {quoted(connection.info.user)}"):
        if not _one(connection, _SCHEMA["schema_state"], (schema,))[1]:
            return None
        version = _one(connection, _composed("installed_version", schema))[0]
    assert version is None or isinstance(version, int)
    return version


def pending(installed: int | None) -> tuple[str, ...]:
    """The names of the migrations that a schema of this version lacks."""
    return _MIGRATIONS[installed or 0 :]


def login_of(dsn: str) -> str | None:
    """The role that a DSN connects as, by what it says or else libpq's default; None for an empty DSN."""
    if not dsn:
        return None
    given = {option.keyword: option.val for option in pq.Conninfo.parse(dsn.encode())}
    defaults = {option.keyword: option.val for option in pq.Conninfo.get_defaults()}
    login = given.get(b"user") or defaults.get(b"user")
    return login.decode() if login else None


def quoted(name: str) -> str:
    """A name as SQL needs it in a remedy: always in double quotes."""
    return '"' + name.replace('"', '""') + '"'


_ROLES = named_sql("cdc_audit.schema", "sql/roles.sql")
_SCHEMA = named_sql("cdc_audit.schema", "sql/schema.sql")


def _migrate(connection: Connection, schema: str, writer_login: str | None) -> list[str]:
    connection.execute(_ROLES["lock"])
    installed = installed_version(connection, schema)
    if installed is not None and installed > LATEST:
        raise SettingError(
            f"audit database: schema {schema} is at version {installed}, newer than this program's {LATEST}",
            remedy="upgrade cdc-audit on this machine",
        )
    _make_roles(connection)
    _make_schema(connection, schema)
    connection.execute(_ROLES["become_owner"])
    applied = list(pending(installed))
    for version, name in enumerate(applied, start=(installed or 0) + 1):
        connection.execute(_migration(name, schema))
        failpoint.reached("migrating")
        connection.execute(_composed("record", schema), (version, name))
    connection.execute(_composed("protect_all", schema))
    connection.execute(_composed("ensure_ahead", schema), (_AHEAD,))
    connection.execute(_ROLES["become_self"])
    if writer_login is not None:
        _make_writer(connection, writer_login)
    return applied


def _make_roles(connection: Connection) -> None:
    connection.execute(_ROLES["create_roles"])
    unsafe = [str(role) for (role,) in connection.execute(_ROLES["unsafe_roles"]).fetchall()]
    if unsafe:
        raise SettingError(
            f"audit database: role {unsafe[0]} could change the trail (superuser or member of audit_owner)",
            remedy=f"alter role {unsafe[0]} nosuperuser; revoke audit_owner from {unsafe[0]}",
        )
    connection.execute(_ROLES["join_owner"])


def _make_schema(connection: Connection, schema: str) -> None:
    there, ours, relations = _one(connection, _SCHEMA["schema_state"], (schema,))
    if ours:
        return
    if relations:
        raise SettingError(
            f"audit database: schema {schema} is there already and is not cdc-audit's",
            remedy="set [audit] schema to another name, or: "
            f"alter schema {quoted(schema)} rename to {quoted(schema + '_old')}",
        )
    connection.execute(_composed("take_schema" if there else "create_schema", schema))


def _make_writer(connection: Connection, login: str) -> None:
    if _needs_membership(connection, login):
        try:
            with connection.transaction():
                connection.execute(_grant_writer(login))
        except psycopg.errors.UniqueViolation:
            pass  # another database's run was faster


def _needs_membership(connection: Connection, login: str) -> bool:
    row = connection.execute(_ROLES["is_in_need_of_membership"], (login,)).fetchone()
    if row is None:
        raise SettingError(
            f"audit database: role {login} of [audit] dsn does not exist",
            remedy=f"create role {quoted(login)} login",
        )
    return bool(row[0])


def _grant_writer(login: str) -> sql.Composed:
    return sql.SQL(_ROLES["grant_writer"]).format(login=sql.Identifier(login))


def _composed(name: str, schema: str) -> sql.Composed:
    return sql.SQL(_SCHEMA[name]).format(schema=sql.Identifier(schema), schema_name=sql.Literal(schema))


def _migration(name: str, schema: str) -> sql.Composed:
    text = load_sql("cdc_audit.schema", f"migrations/{name}.sql")
    return sql.SQL(text).format(schema=sql.Identifier(schema), schema_name=sql.Literal(schema))


def _one(
    connection: Connection, query: LiteralString | sql.Composed, parameters: tuple[Any, ...] = ()
) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row


@contextmanager
def _explained(remedy: str = _REMEDY) -> Iterator[None]:
    """Errors of psycopg become ours; a missing right comes with ``remedy``."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermittedError(explain(error, side="audit").message, remedy=remedy) from error
    except psycopg.Error as error:
        mine: CdcAuditError = explain(error, side="audit")
        raise mine from error
