"""The error tree, by whose fault it is; every class has a stable exit code.

An error's text is one line: what happened. ``remedy`` is the exact command, SQL or setting that mends it, and is
printed after the text. Row values never stand in either. Exit codes are documented in the README (sysexits.h).
"""

from __future__ import annotations


class CdcAuditError(Exception):
    """The root of all errors that cdc-audit raises on purpose."""

    exit_code = 70

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  to mend it: {self.remedy}" if self.remedy else self.message


class CheckFailedError(CdcAuditError):
    """A check or a verification gave a bad result."""

    exit_code = 1


class IncompleteEvidenceError(CdcAuditError):
    """A verification lacks what it would need to say more than that nothing wrong was seen."""

    exit_code = 3


class UsageError(CdcAuditError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class UnavailableError(CdcAuditError):
    """A database can't be reached or refuses work for now; trying again may help."""

    exit_code = 69


class LedgerMovedError(UnavailableError):
    """A command appended to the ledger beside the daemon: it has to look at the ledger's end anew, then can go on."""


class StreamError(CdcAuditError):
    """The replication stream broke its protocol or holds what this program doesn't know."""

    exit_code = 70


class PoisonError(StreamError):
    """One transaction can't be decoded, by the server or by this program, and trying again doesn't help for ever.

    ``lsn`` is the position that names it: that of the change which fails, where the server says it, or else ``end_lsn``.
    ``xid`` and ``end_lsn``, the position to resume after, are known when its beginning was received; 0 before.
    """

    def __init__(self, message: str, *, lsn: int = 0, xid: int = 0, end_lsn: int = 0) -> None:
        super().__init__(message)
        self.lsn, self.xid, self.end_lsn = lsn, xid, end_lsn


class AnotherDaemonError(CdcAuditError):
    """Another daemon works on the same slot or ledger."""

    exit_code = 75


class NotPermittedError(CdcAuditError):
    """A role lacks a right."""

    exit_code = 77


class SettingError(CdcAuditError):
    """The configuration, or a setting or object of a server, is wrong; trying again won't help."""

    exit_code = 78


class UnknownTypeError(StreamError):
    """The decoder met types or tables that the catalog given to it doesn't know; look them up and decode again."""

    def __init__(self, type_oids: frozenset[int], tables: frozenset[tuple[str, str]]) -> None:
        super().__init__(f"unknown type oids {sorted(type_oids)} or tables {sorted(tables)}")
        self.type_oids = type_oids
        self.tables = tables
