"""Logging to standard error: JSON lines for machines, aligned text for a terminal.

Row values are never handed in. Passwords are hidden in whatever looks like a connection string.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]

_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "exception": 40, "critical": 50}
_HIDDEN = "***"
# password=secret and password='se cret', as libpq reads them; too much is hidden rather than too little.
_KEYWORD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'?|\S+)", re.IGNORECASE)
_URI = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s]*@", re.IGNORECASE)

_threshold = _NUMBERS["info"]


def configure(level: Level, format: Format) -> None:  # noqa: A002 - the configuration's own word
    """Send events of ``level`` and above to standard error as it is now; other libraries' from warning on."""
    set_level(level)
    stream = sys.stderr
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    structlog.configure(
        processors=[
            _drop_below_threshold,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Not the console's own traceback, which shows local variables, and so rows.
            structlog.processors.format_exc_info,
            hide_passwords,
            *_renderers(as_json, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Bridge)]
    root.addHandler(_Bridge(logging.WARNING))


def set_level(level: Level) -> None:
    """Change what is logged from now on."""
    global _threshold  # noqa: PLW0603 - one process, one log
    _threshold = _NUMBERS[level]


def hide_passwords(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001 - structlog's form
    """A processor: every text in the event, without the passwords of connection strings."""
    return {key: without_passwords(value) for key, value in event.items()}


def without_passwords(value: Any) -> Any:
    """The same value, and in it every text without the passwords of connection strings and addresses."""
    if isinstance(value, str):
        return _URI.sub(rf"\1:{_HIDDEN}@", _KEYWORD.sub(rf"\1{_HIDDEN}", value))
    if isinstance(value, dict):
        return {key: without_passwords(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_passwords(item) for item in value]
    if isinstance(value, BaseException):
        return without_passwords(str(value))
    return value


def _drop_below_threshold(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001
    if _NUMBERS.get(method, logging.ERROR) < _threshold:
        raise structlog.DropEvent
    return event


def _renderers(as_json: bool, stream: TextIO) -> list[Processor]:
    if as_json:
        return [_in_order, structlog.processors.JSONRenderer(serializer=_to_json)]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)]


def _in_order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001 - structlog's form
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _to_json(event: EventDict, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # integers over 64 bits, lone surrogates: rare, and no reason to lose a line
        plain = {key: value if str(value).isascii() else ascii(value) for key, value in event.items()}
        return orjson.dumps({key: str(value) for key, value in plain.items()}).decode()


class _Unfailing:
    """A stream that loses what can't be written: a full disk under the log stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError:
            pass

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            pass


class _Bridge(logging.Handler):
    """The standard library's log records as our events."""

    def emit(self, record: logging.LogRecord) -> None:
        method = "error" if record.levelno >= logging.ERROR else "warning"
        log = structlog.get_logger()
        getattr(log, method)(
            "library_message",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info or None,
        )
