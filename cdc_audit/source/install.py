"""What applications call in the source to say who acts: schema ``cdc_audit``, put in and taken out.

sql/install.sql holds what is installed. It belongs to the role that installs it, whose rights its functions
run with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import class_row, dict_row, scalar_row

from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError, UsageError
from cdc_audit.model.context import ContextKey
from cdc_audit.postgres import named_sql
from cdc_audit.source import hardening, reads
from cdc_audit.source.plugin import explained
from cdc_audit.source.tables import alter, tables

VERSION = 1
_SQL = named_sql("cdc_audit.source", "sql/install.sql")
_UNINSTALL = named_sql("cdc_audit.source", "sql/uninstall.sql")
_FLUSH_SINCE = 170_000
_PREFIX = re.compile(r"[A-Za-z0-9_]{1,40}")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)+")


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed: the functions' version, and the prefix of the messages' names."""

    version: int
    prefix: str


def installed(connection: Connection) -> Installation | None:
    """What is installed in the connected database, or None. Any role may ask."""
    with explained():
        if not _found(connection)["has_functions"]:
            return None
        row = connection.execute(_SQL["installed"]).fetchone()
    assert row is not None
    return Installation(*row)


def install(
    connection: Connection, *, prefix: str = "cdc_audit", daemon_role: str | None = None
) -> Installation | None:
    """Install, upgrade, or change the prefix: all or nothing, repeatable. Returns what was installed before.

    Makes a signing key if there is none, and lets ``daemon_role`` read the keys. Raises SettingError if the
    schema belongs to somebody else or is newer than this program, NotPermittedError if the role may not
    create schemas.
    """
    before = installed(connection)
    if before is not None and before.version > VERSION:
        raise SettingError(
            f"source database: schema cdc_audit has version {before.version}, this program knows {VERSION}",
            remedy="upgrade cdc-audit",
        )
    with explained(), connection.transaction():
        connection.execute(_SQL["lock"])
        _check_owner(connection)
        first = not _found(connection)["has_functions"]
        for block in _blocks(connection.info.server_version, prefix, first):
            connection.execute(block)
        for block in [*hardening.functions(connection), *reads.functions(connection)]:
            connection.execute(block)
        if _scalar(connection, "has_key") is False:
            connection.execute(_SQL["new_key"])
        if daemon_role is not None:
            _grant_key(connection, daemon_role)
    return before


def script(
    server_version: int, *, prefix: str = "cdc_audit", daemon_role: str | None = None, harden: bool = False
) -> str:
    """A first installation's SQL, for an administrator who reads it first and runs it with ``psql -1 -f``."""
    blocks = [*_blocks(server_version, prefix, True), sql.SQL(_SQL["new_key"])]
    if daemon_role is not None:
        blocks.append(sql.SQL(_SQL["grant_key"]).format(role=sql.Identifier(daemon_role)))
    if harden:
        blocks += [*hardening.BLOCKS, sql.SQL(_SQL["revoke_emit"])]
    return "set search_path = pg_catalog;\n\n" + "\n\n".join(block.as_string(None) for block in blocks) + "\n"


def uninstall(connection: Connection) -> list[str]:
    """Remove triggers, functions, keys and schema; returns what was removed, () if nothing was there.

    Event triggers first: they belong to a superuser, and NotPermittedError says so. Then triggers, each on its own (they need
    locks, see ``tables.alter``): if one is busy, repeating goes on from there. What ``revoke_emit`` has revoked stays so.
    """
    removed: list[str] = []
    with explained():
        if _found(connection)["owner"] is None:
            return removed
        removed += hardening.drop_event_triggers(connection)
        for schema, table, trigger in connection.execute(_UNINSTALL["triggers"]).fetchall():
            statement = sql.SQL(_UNINSTALL["drop_trigger"]).format(
                table=sql.Identifier(schema, table), trigger=sql.Identifier(trigger)
            )
            alter(connection, f"{schema}.{table}", statement, removed)
            removed.append(f"trigger {trigger} on {schema}.{table}")
        removed += reads.drop_settings(connection)
        drop = hardening.DROP + reads.DROP + sql.SQL(_UNINSTALL["drop_functions"]).format()
        alter(connection, "cdc_audit.context_key", drop, removed)
    return [*removed, "schema cdc_audit with its functions and keys"]


def harden(connection: Connection) -> None:
    """Let nobody but our functions send messages (``revoke_emit``), and tell the trail of DDL (``hardening``): all or nothing,
    repeatable.

    Raises NotPermittedError if the role may not (it takes a superuser), SettingError if nothing is installed or the schema
    belongs to another role, whose functions would run with the rights of everyone who does DDL.
    """
    with explained(), connection.transaction():
        connection.execute(_SQL["lock"])
        _check_owner(connection)
        if installed(connection) is not None:
            hardening.install(connection)
        revoke_emit(connection)


def install_guc_bridge(
    connection: Connection, guc: str, patterns: Sequence[str], exclude: Sequence[str] = ()
) -> list[str]:
    """Let the matching tables send the setting ``guc`` as context: once a transaction, and when it changes.

    For applications that do ``set_config('app.current_user', '{...}', true)``: a statement-level trigger on
    each table, partitioned or not. Returns the tables' names. Raises UsageError for a name that no custom
    setting can have, UnavailableError if a table is busy. A value that is no context never fails a statement:
    it is sent under the key "raw".
    """
    if not _SETTING.fullmatch(guc) or guc.lower().startswith("cdc_audit."):
        raise UsageError(f"{guc!r} is not the name of an application's setting, like app.current_user")
    trigger = sql.SQL(_SQL["trigger"])
    return _put_triggers(
        connection, patterns, exclude, lambda table: trigger.format(table=table, setting=sql.Literal(guc))
    )


def install_session_triggers(
    connection: Connection, patterns: Sequence[str], exclude: Sequence[str] = ()
) -> list[str]:
    """Let the matching tables say whose session changes them, once in a transaction that has said nothing else.

    For what no application does: psql, migrations, jobs. A statement-level trigger on each table, partitioned or not, that works
    under session_replication_role = replica, too. Returns the tables' names. Raises UnavailableError if a table is busy.
    """
    trigger = sql.SQL(_SQL["session_trigger"])
    return _put_triggers(connection, patterns, exclude, lambda table: trigger.format(table=table))


def revoke_emit(connection: Connection) -> None:
    """Take EXECUTE on pg_logical_emit_message from PUBLIC: then only the signing functions can say who acts.

    Raises NotPermittedError if the role may not (it takes a superuser), SettingError if nothing is installed.
    """
    if installed(connection) is None:
        raise SettingError(
            "source database: schema cdc_audit is not installed", remedy="cdc-audit source install"
        )
    with explained(), connection.transaction():
        connection.execute(_SQL["revoke_emit"])
        if _scalar(connection, "can_all_emit"):
            raise NotPermittedError(
                "source database: only a superuser may revoke EXECUTE on pg_logical_emit_message from PUBLIC",
                remedy="repeat it with [source] admin_dsn of a superuser",
            )


def emit_is_revoked(connection: Connection) -> bool:
    """Whether PUBLIC may not call pg_logical_emit_message."""
    with explained():
        return not _scalar(connection, "can_all_emit")


def rotate_key(connection: Connection) -> str:
    """Sign with a new key from now on; returns its id. Older keys stay valid until ``retire_key``.

    Waits at most a second for transactions that have set a context to end; UnavailableError if they did not.
    """
    with explained():
        try:
            return str(_scalar(connection, "new_key"))
        except psycopg.errors.LockNotAvailable as error:
            raise UnavailableError(
                "source database: a transaction that has set a context is open, so the key can't be changed",
                remedy="repeat it",
            ) from error


def retire_key(connection: Connection, key_id: str) -> None:
    """Stop trusting a key, once the daemon is past all that it signed: what it reads later is forged.

    Raises SettingError if there is no such valid key or it is the only one.
    """
    with explained():
        retired = connection.execute(_SQL["retire_key"], {"key_id": key_id}).fetchone()
    if retired is None:
        raise SettingError(f"source database: {key_id!r} is no valid signing key, or it is the only one")


def export_keys(connection: Connection) -> list[ContextKey]:
    """The valid signing keys, newest first, for ``[context] key_file``. Who has them can forge contexts."""
    with explained(), connection.cursor(row_factory=class_row(ContextKey)) as cursor:
        return cursor.execute(_SQL["keys"]).fetchall()


async def read_keys(connection: AsyncConnection) -> list[ContextKey]:
    """The valid signing keys, newest first, for the daemon. NotPermittedError if it may not read them."""
    with explained():
        async with connection.cursor(row_factory=class_row(ContextKey)) as cursor:
            return await (await cursor.execute(_SQL["keys"])).fetchall()


def _put_triggers(
    connection: Connection,
    patterns: Sequence[str],
    exclude: Sequence[str],
    statement: Callable[[sql.Identifier], sql.Composed],
) -> list[str]:
    if installed(connection) is None:
        raise SettingError(
            "source database: schema cdc_audit is not installed", remedy="cdc-audit source install"
        )
    done: list[str] = []
    for state in tables(connection, patterns, exclude):
        if state.persistence == "permanent":
            alter(connection, state.name, statement(sql.Identifier(state.schema, state.table)), done)
            done.append(state.name)
    return done


def _blocks(server_version: int, prefix: str, first: bool) -> list[sql.SQL | sql.Composed]:
    """The statements of an installation, in order."""
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"{prefix!r} can't be a prefix of messages: letters, digits and _, at most 40")
    functions = sql.SQL(_SQL["functions"]).format(
        prefix=sql.Literal(prefix),
        version=sql.Literal(VERSION),
        # From 17 on a message outside of a transaction can be made durable at once.
        flush=sql.SQL(", true" if server_version >= _FLUSH_SINCE else ""),
    )
    return [sql.SQL(_SQL["schema"]), functions, sql.SQL(_SQL["grants"])] if first else [functions]


def _check_owner(connection: Connection) -> None:
    found = _found(connection)
    if found["owner"] is not None and not found["is_own"]:
        raise SettingError(
            f"source database: schema cdc_audit belongs to {found['owner']}, who could read the signing keys",
            remedy=f"let [source] admin_dsn connect as {found['owner']}, or drop the schema if it isn't ours",
        )


def _grant_key(connection: Connection, role: str) -> None:
    try:
        connection.execute(sql.SQL(_SQL["grant_key"]).format(role=sql.Identifier(role)))
    except psycopg.errors.UndefinedObject as error:
        name = sql.Identifier(role).as_string(None)
        raise SettingError(
            f"source database: the daemon's role {name} does not exist",
            remedy=f"create role {name} login replication;",
        ) from error


def _found(connection: Connection) -> dict[str, object]:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_SQL["found"]).fetchone()
    assert found is not None
    return found


def _scalar(connection: Connection, name: str) -> object:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_SQL[name]).fetchone()
