"""Doctor's check of following reads, where [reads] is configured: with the follower's own role, beside the log files."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cdc_audit.config import Config
from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.postgres import connect
from cdc_audit.source import reads
from cdc_audit.source.log_files import LogFolder


def follower(session: Session) -> Outcome:
    """The follower's role may send and isn't audited itself, pgAudit is loaded, and the log can be read."""
    config = session.config.reads
    if not (config.dsn and config.directory):
        return Outcome(
            "fail",
            "of [reads] dsn and directory only one is set",
            "set CDC_AUDIT_READS_DSN and CDC_AUDIT_READS_DIRECTORY, or both keys in section [reads]",
        )
    with connect(config.dsn, side="reads") as connection:
        found = reads.facts(connection)
    refused = reads.refusal(found)
    if refused is not None:
        raise refused
    with contextlib.closing(LogFolder(Path(config.directory))) as folder:
        files = folder.look()
    if not files:
        return Outcome(
            "warn",
            f"[reads] directory {config.directory} has no log of JSON lines",
            "let it name the server's log_directory, as this host sees it",
        )
    if not found.has_rows:
        return Outcome(
            "warn",
            "pgaudit.log_rows is off: reads come without their transaction, so without its context",
            "alter system set pgaudit.log_rows = on;\nselect pg_reload_conf();",
        )
    return Outcome("ok", f"reads can be followed as {found.role}, in {len(files)} log files")


def reads_checks(config: Config) -> list[Check]:
    """The check, where anything of [reads] is configured."""
    return [Check("reads", "source", follower)] if config.reads.dsn or config.reads.directory else []
