"""Connections to PostgreSQL and the SQL files beside the code: the only place that opens a connection for SQL.

Every connection sets its own ``application_name``, TCP keepalives, UTC, and a ``pg_catalog`` search path, so that nothing
that a role or a database has set changes what a query means. psycopg's errors are turned into ours by ``explain``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib import resources
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus
from psycopg.rows import TupleRow

from cdc_audit.errors import CdcAuditError, NotPermittedError, SettingError, UnavailableError

# The server's own keepalives: it soon ends the session of a client whose machine is gone, and frees its locks and slot.
SETTINGS = (
    "-c timezone=UTC -c datestyle=ISO -c search_path=pg_catalog -c client_min_messages=warning "
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
    "-c cdc_audit.session=own"  # whoever finds it there knows that the rest was taken, too
)
_DEFAULTS = {
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# libpq gives no SQLSTATE for what goes wrong while connecting, only the server's words.
_NO_DATABASE = re.compile(r'FATAL: +database "[^"]*" does not exist')
_NO_LOGIN = re.compile(
    r"password authentication failed|no pg_hba\.conf entry|no password supplied|FATAL: +role .* does not exist"
)
_NO_OPTIONS = "unsupported startup parameter"
ANSWER_LIMIT = 10.0  # seconds in which a server answers what needs no disk, or it is taken for gone
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Backend(NamedTuple):
    """A server's process behind one connection. ``started`` tells it from a later one of the same number."""

    pid: int
    started: str


# psycopg's warnings that it closes what PromptConnection has broken off
logging.getLogger("psycopg").addFilter(lambda record: "closing connection" not in str(record.msg))


class PromptConnection(AsyncConnection[TupleRow]):
    """Whoever is cancelled while it waits for an answer leaves at once, and the connection is broken off.

    psycopg's own asks the server to cancel, by a new connection, and waits 10 s for a silent one. And a COMMIT that is asked to
    cancel while it waits for a standby would be durable on one server only: nobody asks it here.
    """

    def address(self, dsn: str) -> str:
        """The DSN for more connections to the very server that this one leads to: a DSN may name several."""
        place = {"host": self.info.host, "port": str(self.info.port), "hostaddr": self.info.hostaddr}
        return make_conninfo(dsn, **{key: value for key, value in place.items() if value})

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ARG002 - psycopg's form
        """In place of asking the server: hang up, from this side alone."""
        self.hang_up()

    def hang_up(self) -> None:
        """Break the connection off: whatever waits for its server fails at once. ``close`` it afterwards."""
        if self.pgconn.status == ConnStatus.BAD:
            return  # it has no socket any more
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as ours, suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)


def parse_dsn(dsn: str) -> dict[str, str]:
    """What a connection string says. Raises SettingError, which doesn't quote it as libpq's errors do: it may hold a password."""
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
        # An @ in a URL's password makes its rest part of the host's name, a slash part of the database's.
        names = [given.get(key, "") for key in ("host", "port", "dbname")] if "://" in dsn[:13] else []
        is_clear = not any("@" in name for name in names)
    except psycopg.Error:
        is_clear = False
    if not is_clear:
        raise SettingError(
            "a connection string ([source] or [audit] dsn) can't be read",
            remedy="quote what is not a plain word (password='...'), in a URL percent-encode it (@ is %40, / is %2F); "
            "or leave the password to ~/.pgpass",
        )
    return given


def conninfo(dsn: str, *, application_name: str, settings: str = SETTINGS) -> str:
    """The DSN with our defaults put under what it says itself; its own ``options`` come after ours. Raises SettingError."""
    given = parse_dsn(dsn)
    given["options"] = f"{settings} {given.get('options', '')}".strip()
    return make_conninfo(**{**_DEFAULTS, "application_name": application_name, **given})


def connect(
    dsn: str, *, side: str, application_name: str = "cdc-audit", settings: str = SETTINGS
) -> Connection:
    """A synchronous autocommit connection, for one-time commands. ``side`` ("source" or "audit") names it in errors."""
    try:
        text = conninfo(dsn, application_name=application_name, settings=settings)
        return psycopg.connect(text, autocommit=True)
    except psycopg.Error as error:
        raise explain(error, side=side) from error


async def connect_async(dsn: str, *, side: str, application_name: str = "cdc-audit") -> PromptConnection:
    """The same as ``connect``, for the daemon."""
    try:
        return await PromptConnection.connect(
            conninfo(dsn, application_name=application_name), autocommit=True
        )
    except psycopg.Error as error:
        raise explain(error, side=side) from error


def check_own_session(setting: object, *, side: str) -> None:
    """Raises SettingError unless ``setting``, the server's ``cdc_audit.session``, is what every connection of ours asks for.

    A pooler may drop what a connection asks for, and give each transaction another session: with other settings and no lock.
    """
    if setting != "own":
        raise pooled(f"{side} database: the settings of this connection do not reach the server", side)


def pooled(text: str, side: str) -> SettingError:
    """``text``, and that a pooler is why."""
    return SettingError(
        f"{text}: a pooler (pgbouncer) stands before it",
        remedy=f"let [{side}] dsn name the server itself",
    )


@asynccontextmanager
async def answered(side: str, limit: float | None = None) -> AsyncIterator[None]:
    """What is asked in here must be answered within ``limit`` seconds (``ANSWER_LIMIT``), else its connection is broken off:
    UnavailableError. Nothing else tells soon that a peer is gone without a word.
    """
    limit = ANSWER_LIMIT if limit is None else limit
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise UnavailableError(f"{side} database: no answer within {limit:.0f} s") from None


@cache
def load_sql(package: str, name: str) -> LiteralString:
    """The text of one ``.sql`` file of a package, e.g. ``load_sql("cdc_audit.source", "sql/install.sql")``."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


@cache
def named_sql(package: str, name: str) -> dict[str, LiteralString]:
    """The statements of one ``.sql`` file whose blocks each begin with ``-- name: some_name``."""
    parts = _NAME.split(load_sql(package, name))
    return {key: text.strip() for key, text in zip(parts[1::2], parts[2::2], strict=True)}


def explain(error: psycopg.Error, *, side: str) -> CdcAuditError:
    """Our error for a psycopg error, by SQLSTATE: who is at fault and what mends it. Never holds row values.

    The server's primary message is kept (it names objects), its DETAIL isn't (it quotes values), and of errors about
    data (classes 22 and 23) only the condition's name is.
    """
    state = error.sqlstate or ""
    message = (error.diag.message_primary or str(error)).strip().replace("\n", " ")
    if state[:2] in {"22", "23"}:
        message = type(error).__name__
    text = f"{side} database: {message}" + (f" ({state})" if state else "")
    if state == "3D000" or (not state and _NO_DATABASE.search(message)):
        return SettingError(text, remedy=f"correct the database name in [{side}] dsn")
    if _NO_OPTIONS in message:
        return pooled(text, side)
    if state in {"28P01", "28000"} or (not state and _NO_LOGIN.search(message)):
        return NotPermittedError(
            text, remedy=f"correct user or password of [{side}] dsn, or pg_hba.conf of that server"
        )
    if state == "42501":
        return NotPermittedError(text)
    if state == "25006" and side == "source":
        return SettingError(
            text,
            remedy="a standby takes what its primary has: repeat it with [source] admin_dsn naming the primary",
        )
    if (
        not state
        or state[:2] in {"08", "57", "53", "40", "25", "55"}
        or isinstance(error, psycopg.OperationalError)
    ):
        return UnavailableError(text)
    return SettingError(text)
