"""The source's side of following reads: functions that send them and keep positions, put in, taken out and called.

One ledger has one writer, the daemon. So what the server's log says of reads goes into the source as signed messages
(``<prefix>.read``), takes the slot's way like everything else, and is there exactly once because the position in the log file
moves in the transaction of the messages. sql/reads.sql holds what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson
import psycopg
from psycopg import Connection, sql
from psycopg.rows import class_row, scalar_row

from cdc_audit.errors import CdcAuditError, NotPermittedError, SettingError
from cdc_audit.model.read import Taken
from cdc_audit.postgres import named_sql
from cdc_audit.source.plugin import explained

_SQL = named_sql("cdc_audit.source", "sql/reads.sql")
DROP = sql.SQL(_SQL["drop"]) + sql.SQL("\n")
_JSON_SINCE = 15


class Facts(NamedTuple):
    """What decides whether reads can be followed: of the server, and of the connected role's own session."""

    major: int
    in_recovery: bool
    role: str
    database: str
    may_send: bool
    has_pgaudit: bool
    audited: str
    audited_by: str
    has_rows: bool
    has_collector: bool
    has_json: bool
    log_timezone: str
    encoding: str


def install(connection: Connection, role: str) -> None:
    """Install, or bring up to date, and let ``role`` follow: all or nothing, repeatable; the functions of ``source.install`` are
    there. Raises SettingError if the role doesn't exist, NotPermittedError if pgAudit's settings may not be set for it.
    """
    name, database = sql.Identifier(role), sql.Identifier(connection.info.dbname)
    with explained(), connection.transaction():
        connection.execute(_SQL["tables"])
        connection.execute(_SQL["functions"])
        try:
            connection.execute(sql.SQL(_SQL["grant"]).format(role=name, database=database))
        except psycopg.errors.UndefinedObject as error:
            raise SettingError(
                f"source database: the follower's role {name.as_string(None)} does not exist",
                remedy=f"create role {name.as_string(None)} login;",
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotPermittedError(
                "source database: only a superuser may say of a role what pgAudit logs of it",
                remedy="repeat it with [source] admin_dsn of a superuser",
            ) from error


def functions(connection: Connection) -> list[sql.SQL]:
    """The blocks that bring an earlier installation's functions up to date; () where there is none."""
    return [sql.SQL(_SQL["tables"]), sql.SQL(_SQL["functions"])] if _scalar(connection, "found") else []


def drop_settings(connection: Connection) -> list[str]:
    """Reset what ``install`` has set for roles; what was done, in words."""
    if not _scalar(connection, "found"):
        return []
    done: list[str] = []
    database = sql.Identifier(connection.info.dbname)
    for (role,) in connection.execute(_SQL["followers"]).fetchall():
        connection.execute(sql.SQL(_SQL["ungrant"]).format(role=sql.Identifier(role), database=database))
        done.append(f"pgAudit's settings of role {role}")
    return done


def facts(connection: Connection) -> Facts:
    """What is so in the connected session."""
    with explained(), connection.cursor(row_factory=class_row(Facts)) as cursor:
        row = cursor.execute(_SQL["facts"]).fetchone()
    assert row is not None
    return row


def refusal(found: Facts) -> CdcAuditError | None:
    """Why reads can't be followed so, with the remedy; None if they can. Pure."""
    role = sql.Identifier(found.role).as_string(None)
    if found.major < _JSON_SINCE:
        return SettingError(
            f"the source is PostgreSQL {found.major}: it has no jsonlog, and csvlog is not read",
            remedy="upgrade the source to 15 or newer",
        )
    if found.in_recovery:
        return SettingError(
            "the source is a standby, which can't send messages",
            remedy="let [reads] dsn name the primary; the log files of the standby can be followed so, from beside it",
        )
    if not found.may_send:
        return NotPermittedError(
            f"role {role} may not send reads: cdc_audit.send_reads is not there or not granted",
            remedy=f"cdc-audit source install --reads {role}",
        )
    if not found.has_pgaudit:
        return SettingError(
            "pgAudit is not loaded in the source",
            remedy="add pgaudit to shared_preload_libraries, restart the server, and set pgaudit.log = 'read'",
        )
    if not (found.has_collector and found.has_json):
        return SettingError(
            "the source writes no log of JSON lines",
            remedy="logging_collector = on and log_destination = 'jsonlog' (or 'jsonlog,stderr'), and restart the server",
        )
    if found.audited not in {"", "none"} or found.audited_by:
        return SettingError(
            f"pgAudit logs what role {role} does: each read that is sent would be logged as another one, for ever",
            remedy=f"cdc-audit source install --reads {role}",
        )
    return None


def start(connection: Connection, follower: str, files: Sequence[Taken]) -> bool:
    """Register a follower with the files that are there and where it begins in them; False if it was registered before."""
    given = [
        {
            "fingerprint": file.fingerprint.hex(),
            "name": file.name,
            "position": file.position,
            "is_final": file.is_final,
        }
        for file in files
    ]
    return bool(_scalar(connection, "start", follower, orjson.dumps(given).decode()))


def positions(connection: Connection, follower: str) -> list[Taken]:
    """How far each file that is known has been taken."""
    with explained(), connection.cursor(row_factory=class_row(Taken)) as cursor:
        return cursor.execute(_SQL["positions"], (follower,)).fetchall()


def send(connection: Connection, follower: str, before: int, after: Taken, reads: Sequence[str]) -> None:
    """Send reads, as JSON texts, and move the file's position from ``before``, in one transaction.

    Raises UnavailableError if it is elsewhere: another follower of this name is at work.
    """
    with explained():
        connection.execute(
            _SQL["send"],
            (follower, after.fingerprint, after.name, before, after.position, after.is_final, list(reads)),
        )


def snapshot(connection: Connection) -> str:
    """Which transactions are open: ``xmin:xmax:xip_list`` of pg_current_snapshot()."""
    return str(_scalar(connection, "snapshot"))


def _scalar(connection: Connection, name: str, *parameters: object) -> object:
    with explained(), connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_SQL[name], parameters or None).fetchone()
