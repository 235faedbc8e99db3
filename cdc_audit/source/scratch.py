"""A scratch table in the source, in which an application's own role says who it is and makes a change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import SettingError
from cdc_audit.postgres import explain, named_sql

SCHEMA, TABLE = "cdc_audit_check", "change"
_SQL = named_sql("cdc_audit.source", "sql/scratch.sql")


@contextmanager
def scratch_table(admin: Connection, role: str) -> Iterator[None]:
    """The table, which ``role`` may write to, until the end of the ``with``. One of an earlier, broken check is dropped first."""
    try:
        admin.execute(_SQL["drop"])
        with admin.transaction():
            admin.execute(sql.SQL(_SQL["create"]).format(role=sql.Identifier(role)))
    except psycopg.Error as error:
        raise explain(error, side="source") from error
    try:
        yield
    finally:
        admin.execute(_SQL["drop"])


def change_as(application: Connection, user: str) -> int:
    """Say who it is and insert a row, in one transaction; its id.

    Raises SettingError where the role can't call the function, with what mends it.
    """
    try:
        with application.transaction():
            application.execute(_SQL["say"], {"context": orjson.dumps({"user_id": user}).decode()})
            application.execute(_SQL["change"])
            row = application.execute(_SQL["xid"]).fetchone()
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
        raise SettingError(
            "source database: schema cdc_audit is not installed", remedy="cdc-audit source install"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        name = sql.Identifier(application.info.user).as_string(application)
        raise SettingError(
            "source database: the application's role may not call cdc_audit.set_context",
            remedy=f"grant usage on schema cdc_audit to {name};"
            f" grant execute on function cdc_audit.set_context(text), cdc_audit.set_context(jsonb) to {name};",
        ) from error
    except psycopg.Error as error:
        raise explain(error, side="source") from error
    assert row is not None
    return int(row[0])
