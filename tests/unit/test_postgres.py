"""Connection strings: what can't be read isn't quoted, since it may hold a password."""

from __future__ import annotations

import pytest

from cdc_audit.errors import SettingError
from cdc_audit.postgres import parse_dsn


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
