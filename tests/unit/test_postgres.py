"""Connection strings: what can't be read isn't quoted, since it may hold a password. And what errors mean."""

from __future__ import annotations

import psycopg
import pytest

from cdc_audit.errors import SettingError
from cdc_audit.postgres import explain, parse_dsn


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h password=my canary",
        "host=h password='canary",
        "postgresql://u:p@canary@h/d",
        "postgres://u:p/canary@h/d",
        "postgresql://u:canary%zz@h/d",
        "postgresql://h/d?password=x&canary=y",
    ],
)
def test_a_connection_string_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    with pytest.raises(SettingError) as error:
        parse_dsn(dsn)
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None


@pytest.mark.parametrize(
    ("dsn", "password", "host"),
    [
        ("host=h password='p@ /x'", "p@ /x", "h"),
        ("postgresql://u:p%40%2F@h/d", "p@/", "h"),
        ("host=@abstract password=x", "x", "@abstract"),
    ],
)
def test_any_password_can_be_written(dsn: str, password: str, host: str) -> None:
    given = parse_dsn(dsn)
    assert (given["password"], given["host"]) == (password, host)


@pytest.mark.parametrize("parameter", ["options", "options: search_path", "replication"])
def test_a_pooler_that_refuses_what_a_connection_asks_for_is_a_setting_to_mend(parameter: str) -> None:
    """pgbouncer's words; libpq gives no SQLSTATE for them."""
    error = psycopg.OperationalError(f"connection failed: FATAL:  unsupported startup parameter: {parameter}")
    explained = explain(error, side="audit")
    assert isinstance(explained, SettingError)
    assert explained.remedy == "let [audit] dsn name the server itself"
