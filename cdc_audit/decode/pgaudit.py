"""pgAudit's lines in the server's log (``log_destination = jsonlog``, PostgreSQL 15 and newer): one JSON object a line.

Its ``message`` is ``AUDIT: `` and a line of CSV, in which quotes are doubled and newlines stand as they are::

    SESSION,4,1,READ,SELECT,TABLE,public.pat,"select ""b"" ...",<none>,1

audit type, statement, substatement, class, command, object type, object name, statement, parameters, and rows with
pgaudit.log_rows (pgaudit.c, log_audit_event). pgAudit hides CONTEXT and STATEMENT of its lines: a line that has either is
somebody's RAISE that looks like one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Literal

import orjson

from cdc_audit.decode import statement as sql_text
from cdc_audit.model.read import Read

Statement = Literal["redacted", "full", "none"]

_FIELDS = 9  # ten with pgaudit.log_rows
_UNSAID = {"<none>", "<not logged>", "<previously logged>"}
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')
_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) (\S+)")
_OFFSET = re.compile(r"([+-])(\d\d)(?::?(\d\d))?")
# What one message may take (cdc_audit.send_reads), with room for what surrounds the statement.
_MAX_BYTES = 8192
_MAX_TEXT = 4000


class UnreadableLineError(ValueError):
    """A line of the log that is no JSON object, or one of pgAudit's that can't be read. Holds nothing of the line."""


def read_line(line: bytes, *, zone: tzinfo | None, encoding: str) -> Read | None:
    """The read that a line of the log tells; None if it tells anything else.

    ``zone`` is log_timezone, ``encoding`` the name of Python's codec for what isn't UTF-8. Raises UnreadableLineError.
    """
    fields = _object(line, encoding)
    message = fields.get("message")
    if not isinstance(message, str) or not message.startswith("AUDIT: "):
        return None
    if "context" in fields or "statement" in fields:
        return None
    values = _csv(message.removeprefix("AUDIT: "))
    if values[3] != "READ":
        return None
    try:
        return _read(fields, values, zone)
    except (ValueError, TypeError) as error:
        raise UnreadableLineError("a line of pgAudit's has fields of another form") from error


def to_message(read: Read, statement: Statement) -> dict[str, Any]:
    """What is sent of a read: bounded, without what isn't known. ``statement`` says how much of the SQL text goes along.

    Parameters are values, they go with the full text only.
    """
    message: dict[str, Any] = {
        "at": read.at,
        "logged_at": "" if read.at else read.logged_at,
        "user": read.user,
        "database": read.database,
        "application": read.application,
        "address": read.address,
        "pid": read.pid,
        "session": read.session,
        "line": read.line,
        "xid": read.xid,
        "audit": read.audit,
        "statement_id": read.statement_id,
        "substatement_id": read.substatement_id,
        "command": read.command,
        "object_type": read.object_type,
        "schema": read.schema,
        "table": read.table,
        "named_by": "statement" if read.is_named_by_statement else "",
    }
    message = {key: value for key, value in message.items() if value not in ("", 0)}
    if read.rows is not None:
        message["rows"] = read.rows
    if read.statement is not None and statement != "none":
        text = read.statement if statement == "full" else sql_text.without_values(read.statement)
        message.update(_cut("statement", text))
    if read.parameters is not None and statement == "full":
        message.update(_cut("parameters", read.parameters))
    return _fitted(message)


def is_log(head: bytes) -> bool:
    """Whether a file that begins so is a log of JSON lines."""
    return head.startswith(b'{"timestamp":"')


def _read(fields: dict[str, Any], values: list[str], zone: tzinfo | None) -> Read:
    schema, table = sql_text.split_name(values[6]) if values[6] else ("", "")
    text = None if values[7] in _UNSAID else values[7]
    copied = None
    if not table and text is not None and values[4] == "COPY":
        copied = sql_text.copied_table(text)
        schema, table = copied or ("", "")
    logged_at = str(fields["timestamp"])
    return Read(
        at=in_utc(logged_at, zone),
        logged_at=logged_at,
        user=str(fields.get("user", "")),
        database=str(fields.get("dbname", "")),
        application=str(fields.get("application_name", "")),
        address=_address(fields.get("remote_host")),
        pid=int(fields["pid"]),
        session=str(fields["session_id"]),
        line=int(fields["line_num"]),
        xid=int(fields.get("txid", 0)),
        audit=values[0],
        statement_id=int(values[1]),
        substatement_id=int(values[2]),
        command=values[4],
        object_type=values[5],
        schema=schema,
        table=table,
        is_named_by_statement=copied is not None,
        statement=text,
        parameters=None if values[8] in _UNSAID else values[8],
        rows=int(values[9]) if len(values) > _FIELDS else None,
    )


def in_utc(logged: str, zone: tzinfo | None) -> str:
    """A time of the log as PostgreSQL prints it in UTC, or "" where its zone's abbreviation isn't one that ``zone`` has then."""
    match = _TIME.fullmatch(logged)
    if match is None:
        return ""
    local, name = datetime.fromisoformat(match[1]), match[2]
    moment = None
    if name in {"UTC", "GMT"}:
        moment = local.replace(tzinfo=UTC)
    elif offset := _OFFSET.fullmatch(name):
        minutes = int(offset[2]) * 60 + int(offset[3] or 0)
        moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes)))
    elif zone is not None:  # an hour that the clock goes through twice has two names
        both = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        moment = next((one for one in both if one.tzname() == name), None)
    if moment is None:
        return ""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "+00"


def _object(line: bytes, encoding: str) -> dict[str, Any]:
    try:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            fields = orjson.loads(line.decode(encoding, "replace"))
    except orjson.JSONDecodeError:
        raise UnreadableLineError("a line of the log is no JSON object") from None
    if not isinstance(fields, dict):
        raise UnreadableLineError("a line of the log is no JSON object")
    return fields


def _csv(text: str) -> list[str]:
    """The fields of the one record, as pgAudit writes it (append_valid_csv); the csv module would refuse long ones."""
    values: list[str] = []
    end = 0
    while match := _FIELD.match(text, end):
        values.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        end = match.end()
        if not match[3]:
            break
    if end != len(text) or len(values) not in (_FIELDS, _FIELDS + 1):
        raise UnreadableLineError("a line of pgAudit's is no CSV of nine or ten fields")
    return values


def _address(host: object) -> str:
    """A client's address or name; "" for a Unix socket."""
    return host if isinstance(host, str) and host != "[local]" else ""


def _cut(key: str, text: str) -> dict[str, Any]:
    return {key: text[:_MAX_TEXT], **({f"{key}_length": len(text)} if len(text) > _MAX_TEXT else {})}


def _fitted(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its texts cut further, until it fits: letters take up to six bytes each."""
    while len(orjson.dumps(message)) > _MAX_BYTES - 1024:
        texts = {len(message[key]): key for key in ("statement", "parameters") if message.get(key)}
        if not texts:
            return message
        key = texts[max(texts)]
        message.setdefault(f"{key}_length", len(message[key]))
        message[key] = message[key][: len(message[key]) // 2]
    return message
