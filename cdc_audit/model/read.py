"""Reads of the source, as pgAudit's lines in the server's log tell them, and how far a log file has been taken."""

from __future__ import annotations

from typing import NamedTuple


class Read(NamedTuple):
    """One line of pgAudit's of class READ: one statement, or with pgaudit.log_relation one relation that it reads.

    ``at`` is the line's time as PostgreSQL prints it in UTC, "" where its zone isn't clear; ``logged_at`` as it was logged. ``xid``
    is the transaction's (32 bits), 0 where it had none yet. ``audit`` is SESSION or OBJECT. ``statement`` and ``parameters`` are
    None where pgAudit doesn't say them; ``rows`` is None without pgaudit.log_rows. ``is_named_by_statement`` says that the table
    was taken out of the text of a COPY, of which pgAudit names none.
    """

    at: str
    logged_at: str
    user: str
    database: str
    application: str
    address: str
    pid: int
    session: str
    line: int
    xid: int
    audit: str
    statement_id: int
    substatement_id: int
    command: str
    object_type: str
    schema: str
    table: str
    is_named_by_statement: bool
    statement: str | None
    parameters: str | None
    rows: int | None


class LogFile(NamedTuple):
    """A log file as a look at the folder found it. ``fingerprint`` tells it from every other, under whatever name: a hash of its
    beginning, where a time, a process and a line number stand. ``size`` in bytes; ``mtime_ns`` is when it was last written.
    """

    fingerprint: bytes
    name: str
    size: int
    mtime_ns: int


class Taken(NamedTuple):
    """How far a file has been taken: bytes. ``is_final``: all of it, at a time when the server already wrote another one."""

    fingerprint: bytes
    name: str
    position: int
    is_final: bool
