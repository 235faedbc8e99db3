"""The replication slot: make, look at, drop, advance. Logical, without two-phase, for PostgreSQL 14 to 18.

Nothing here knows of the ledger; that a slot which is made again or advanced leaves a gap there is
``cli.slot``'s work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row, scalar_row

from cdc_audit.errors import AnotherDaemonError, CdcAuditError, SettingError
from cdc_audit.model.lsn import format_lsn
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import RECREATE, explain_refusal, explained

_SQL = named_sql("cdc_audit.source", "sql/slot.sql")
_FAILOVER_SINCE = 170_000


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """The slot as pg_replication_slots shows it. LSNs are integers, sizes bytes.

    ``lag_bytes`` is how far the server is ahead of ``confirmed_flush_lsn``, ``retained_bytes`` how much WAL
    is kept from ``restart_lsn`` on (None and 0 once it is lost); ``safe_wal_bytes`` is None where the server
    keeps all. ``catalog_xmin_age`` is in transactions: dead rows of the server's catalogs that are younger are
    kept for the slot, too. ``failover`` is None before PostgreSQL 17. ``is_here`` says that the slot belongs to the
    connected database.
    """

    name: str
    plugin: str
    database: str
    active: bool
    active_pid: int | None
    confirmed_flush_lsn: int
    restart_lsn: int | None
    lag_bytes: int
    retained_bytes: int
    wal_status: str
    safe_wal_bytes: int | None
    catalog_xmin_age: int | None
    two_phase: bool
    failover: bool | None
    invalidation_reason: str | None
    is_here: bool

    @property
    def is_lost(self) -> bool:
        """What it had not sent yet can't be had any more."""
        return self.invalidation_reason is not None


def status(connection: Connection, slot: str) -> SlotInfo | None:
    """The slot, or None if there is none. Any role may ask. SettingError if it isn't a logical slot."""
    with explained(), connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_SQL["status"], {"slot": slot}).fetchone()
    return info_of(row) if row else None


def info_of(row: Mapping[str, Any]) -> SlotInfo:
    """The slot in a row of the statement ``status``. Raises SettingError if it isn't a logical slot."""
    if row["plugin"] is None:
        raise SettingError(
            f'source database: replication slot "{row["name"]}" is a physical one',
            remedy="give [source] slot another name",
        )
    return SlotInfo(
        **{**row, "retained_bytes": row["retained_bytes"] or 0, "wal_status": row["wal_status"] or ""}
    )


def create(connection: Connection, slot: str, plugin: str, failover: bool | None = None) -> SlotInfo:
    """Make the slot, or find it fit for use. Waits for the transactions open at that moment to end.

    ``failover`` lets standbys keep the slot in step; None is wherever the server can: PostgreSQL 17 and newer, on a primary.
    Raises SettingError if a slot of that name is of another plugin or database, invalidated, or without the
    failover asked for, or if the server's settings don't allow one; NotPermittedError if the role may not.
    """
    can_fail_over = connection.info.server_version >= _FAILOVER_SINCE
    if failover and not can_fail_over:
        raise SettingError(
            "failover slots need PostgreSQL 17 or newer on the source", remedy="leave out --failover"
        )
    found = status(connection, slot)
    if found is None:
        with_failover = can_fail_over and failover is not False
        _execute(
            connection,
            "create_failover" if with_failover else "create",
            slot,
            plugin,
            is_asked=bool(failover),
        )
        found = status(connection, slot)
        if found is None:
            raise SettingError(
                f'source database: replication slot "{slot}" was dropped while it was being made'
            )
    check_fit(found, connection.info.dbname, plugin)
    if failover and not found.failover:
        raise SettingError(
            f'source database: replication slot "{slot}" exists, but without failover',
            remedy=f"with psql 'replication=database': ALTER_REPLICATION_SLOT {slot} (FAILOVER true);",
        )
    return found


def check_fit(found: SlotInfo, database: str, plugin: str) -> None:
    """Raises SettingError if the daemon can't read this slot: other database or plugin, or invalidated."""
    name = f'source database: replication slot "{found.name}"'
    if not found.is_here:
        raise SettingError(
            f'{name} belongs to database "{found.database}", not to "{database}"',
            remedy="give [source] slot another name, or correct the database name in [source] dsn",
        )
    if found.plugin != plugin:
        raise SettingError(
            f'{name} is of plugin "{found.plugin}", not "{plugin}"',
            remedy=f'{RECREATE}\nor set [source] plugin = "{found.plugin}"',
        )
    if found.is_lost:
        raise SettingError(f"{name} was invalidated ({found.invalidation_reason})", remedy=RECREATE)


def check_creatable(connection: Connection, slot: str, plugin: str) -> None:
    """Raises what ``create`` would for settings, plugin or rights; tried with a temporary slot.

    So that a slot is never dropped that can't be made again. No free place for one more slot is no objection.
    """
    name = f"{slot[:57]}_probe"
    try:
        _execute(connection, "probe", name, plugin)
    except SettingError as error:
        if not (isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate == "53400"):
            raise
    else:
        _execute(connection, "drop", name, plugin)


def check_inactive(found: SlotInfo) -> None:
    """Raises AnotherDaemonError, naming the process, if somebody reads the slot."""
    if found.active:
        raise AnotherDaemonError(
            f'source database: replication slot "{found.name}" is active for PID {found.active_pid}',
            remedy="stop the daemon (systemctl stop cdc-audit) and repeat the command",
        )


def drop(connection: Connection, slot: str) -> bool:
    """Drop the slot; whether there was one. AnotherDaemonError if active, SettingError if not of here."""
    found = status(connection, slot)
    if found is None:
        return False
    if not found.is_here:
        check_fit(found, connection.info.dbname, found.plugin)
    check_inactive(found)
    _execute(connection, "drop", slot, found.plugin)
    return True


def advance(connection: Connection, slot: str, lsn: int) -> SlotInfo:
    """Move ``confirmed_flush_lsn`` to ``lsn``: what committed before it is never sent. Can't be undone.

    Raises AnotherDaemonError if it is active, SettingError if it is missing, lost, or ``lsn`` is out of
    reach.
    """
    found = status(connection, slot)
    plugin = found.plugin if found else ""
    if found is not None:
        check_inactive(found)
        if lsn <= found.confirmed_flush_lsn:
            return found
    reached = position(connection)
    if lsn > reached:
        raise SettingError(
            f"{format_lsn(lsn)} is ahead of the source server, which is at {format_lsn(reached)}"
        )
    _execute(connection, "advance", slot, plugin, lsn=format_lsn(lsn))
    moved = status(connection, slot)
    assert moved is not None
    return moved


def position(connection: Connection) -> int:
    """How far the server's WAL is on disk; on a standby, how far it has been received."""
    with explained(), connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(_SQL["position"]).fetchone() or 0)


def refusal(connection: Connection, error: psycopg.Error, slot: str, plugin: str) -> CdcAuditError:
    """``plugin.explain_refusal`` with what this connection knows."""
    info = connection.info
    major = info.server_version // 10_000
    return explain_refusal(error, role=info.user, slot=slot, plugin=plugin, major=major)


def _execute(connection: Connection, name: str, slot: str, plugin: str, **values: object) -> None:
    try:
        connection.execute(_SQL[name], {"slot": slot, "plugin": plugin, **values})
    except psycopg.Error as error:
        raise refusal(connection, error, slot, plugin) from error
