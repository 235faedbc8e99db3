"""Event triggers that tell the trail of DDL, and whether they still do. sql/harden.sql holds what is installed.

Messages are named ``<prefix>.ddl`` and signed as contexts are; ``join.ddl`` reads them. An event trigger's function runs in
the session of whoever does DDL, so it must belong to a role that may be trusted with everyone's rights.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import class_row

from cdc_audit.errors import NotPermittedError
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import explained

_SQL = named_sql("cdc_audit.source", "sql/harden.sql")
_FUNCTIONS = [sql.SQL(_SQL["state"]), sql.SQL(_SQL["functions"])]
BLOCKS = [*_FUNCTIONS, sql.SQL(_SQL["note_tables"]), sql.SQL(_SQL["event_triggers"])]
DROP = sql.SQL(_SQL["drop"]) + sql.SQL("\n")
EVENT_TRIGGERS = ("cdc_audit_ddl", "cdc_audit_drop", "cdc_audit_rewrite")


class Hardening(NamedTuple):
    """Whether the source was ever hardened, the event triggers that work (exist and are enabled always), and a text that changes
    whenever one of them is altered.
    """

    was_hardened: bool
    working: list[str]
    mark: str

    @property
    def broken(self) -> tuple[str, ...]:
        """The event triggers that should work and don't: () where the source was never hardened."""
        return tuple(name for name in EVENT_TRIGGERS if self.was_hardened and name not in self.working)


def found(connection: Connection) -> Hardening:
    """What is there in the connected database. Any role may ask."""
    with explained(), connection.cursor(row_factory=class_row(Hardening)) as cursor:
        row = cursor.execute(_SQL["found"]).fetchone()
    assert row is not None
    return row


async def found_async(connection: AsyncConnection) -> Hardening:
    """The same, for the daemon."""
    with explained():
        async with connection.cursor(row_factory=class_row(Hardening)) as cursor:
            row = await (await cursor.execute(_SQL["found"])).fetchone()
    assert row is not None
    return row


def tampered(before: Hardening | None, now: Hardening) -> str:
    """What somebody has done to the event triggers since the last look, or, at the first one, at any time; "" for nothing. Pure.

    DDL on event triggers fires none: looking is the only way to notice.
    """
    if before == now:
        return ""
    if now.broken:
        return f"dropped or disabled: {', '.join(now.broken)}"
    if before is None or before.broken or not before.working:
        return ""
    return "altered" if now.working else "uninstalled"


def functions(connection: Connection) -> list[sql.SQL]:
    """The blocks that bring an earlier hardening's functions up to date; () where there is none."""
    return _FUNCTIONS if found(connection).was_hardened else []


def install(connection: Connection) -> None:
    """Install functions and event triggers in the caller's transaction. Raises NotPermittedError if the role may not."""
    try:
        for block in BLOCKS:
            connection.execute(block)
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermittedError(
            f"source database: role {connection.info.user} may not create event triggers, only a superuser may",
            remedy="cdc-audit source uninstall, then cdc-audit source install --harden with [source] admin_dsn of a superuser",
        ) from error


def drop_event_triggers(connection: Connection) -> list[str]:
    """Drop them; the names of what was dropped."""
    there = found(connection)
    if there.mark:
        connection.execute(_SQL["drop_event_triggers"])
    return [f"event trigger {name}" for name in EVENT_TRIGGERS] if there.mark else []
