"""The log's two forms, its level, and what must never stand in it."""

from __future__ import annotations

import logging

import orjson
import pytest
import structlog

from cdc_audit.ops import log


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_is_one_object_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    structlog.get_logger().info("block_committed", block=7, text="two\nlines")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    event = orjson.loads(captured.err)
    assert list(event) == ["timestamp", "level", "event", "block", "text"]
    assert (event["level"], event["event"], event["block"]) == ("info", "block_committed", 7)
    assert event["timestamp"].endswith("Z")


def test_auto_is_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "auto")
    structlog.get_logger().info("started")
    assert lines(capsys)[0]["event"] == "started"


def test_text_is_readable_and_uncoloured_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "text")
    structlog.get_logger().warning("state_changed", state="waiting")
    text = capsys.readouterr().err
    assert "state_changed" in text
    assert "state=waiting" in text
    assert "\x1b" not in text


def test_events_below_the_level_are_dropped_and_the_level_can_change_while_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("warning", "json")
    bound = structlog.get_logger().bind(slot="s")
    bound.info("not_said")
    log.set_level("debug")
    bound.debug("said")
    assert [event["event"] for event in lines(capsys)] == ["said"]


@pytest.mark.parametrize(
    "text",
    [
        "host=db user=u password=hunter2 dbname=d",
        "password = hunter2",
        "PASSWORD='hunter2 hunter2'",
        r"password='hunter2\' hunter2'",
        "sslpassword=hunter2",
        "postgresql://u:hunter2@db/d",
        "postgres://u:hunt@er2:hunter2@db:5432/d?sslmode=verify-full",
        "postgresql://db/d?user=u&password=hunter2",
        "connection to postgresql://u:hunter2@a,b/d failed: timeout",
        "PGPASSWORD=hunter2",
    ],
)
def test_no_password_of_a_connection_string_reaches_the_log(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "json")
    structlog.get_logger().info(
        "connecting", dsn=text, tried=[text], nested={"dsn": text}, error=ValueError(text)
    )
    structlog.get_logger().info(text)
    written = capsys.readouterr().err
    assert "hunter2" not in written
    assert "***" in written


def test_a_connection_string_keeps_what_is_not_secret() -> None:
    hidden = log.hide_passwords(None, "info", {"dsn": "postgresql://u:p@db:5432/d?sslmode=require"})
    assert hidden == {"dsn": "postgresql://u:***@db:5432/d?sslmode=require"}


def test_a_traceback_is_text_without_local_variables_or_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "text"):
        log.configure("info", form)
        _fail_with_a_secret_in_a_local_variable()
        written = capsys.readouterr().err
        assert "Traceback" in written
        assert "hunter2" not in written


def _fail_with_a_secret_in_a_local_variable() -> None:
    secret = "hunter2" * 1
    try:
        int(f"password={secret}")
    except ValueError:
        structlog.get_logger().exception("failed")


def test_what_json_cannot_hold_is_still_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    structlog.get_logger().info("odd", big=1 << 80, surrogate="\ud800", thing={1, 2}, kind=ValueError)
    event = lines(capsys)[0]
    assert (event["event"], event["big"], event["surrogate"]) == ("odd", str(1 << 80), r"'\ud800'")


def test_other_libraries_are_heard_from_warning_on_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    log.configure("info", "json")
    logging.getLogger("psycopg").info("chatter")
    logging.getLogger("psycopg").warning("lost %s", "postgresql://u:hunter2@db/d")
    events = lines(capsys)
    assert len(events) == 1
    assert events[0] | {"timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "event": "library_message",
        "logger": "psycopg",
        "message": "lost postgresql://u:***@db/d",
    }
