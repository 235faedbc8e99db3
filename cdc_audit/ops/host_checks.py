"""Doctor's checks of the host that the daemon runs on: its key, and room for what it holds back."""

from __future__ import annotations

import shutil
import tempfile

from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.seal.signature import begins_signing
from cdc_audit.sink import ledger
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.sink.signing import load_signer

_LEAST_FREE = 1 << 30  # bytes


def signing_key(session: Session) -> Outcome:
    """Blocks are signed, with the key that the ledger goes on with."""
    signer = load_signer(session.config.ledger.signing_key_file)
    last = None
    if "audit" in session.connections:
        last = ledger.last_block(session.audit, session.config.audit.audit_schema)
    begins = last is not None and begins_signing(last[0], signer)
    if signer is None:
        return Outcome(
            "info",
            "blocks are not signed: who may write to the audit database as its superuser can make the whole chain anew",
            "cdc-audit key generate FILE\nname FILE in [ledger] signing_key_file",
        )
    return Outcome(
        "ok", f"blocks are signed with key {signer.key_id}" + (" from the next one on" if begins else "")
    )


def redaction_key(session: Session) -> Outcome:
    """The rules that need a key have one."""
    load_redaction(session.config.redact)
    return Outcome("ok", f"{len(session.config.redact.rules)} redaction rules, and the key that they need")


def temporary_space(session: Session) -> Outcome:
    """Transactions that are held back until their end fit on the disk."""
    if session.config.source.plugin != "pgoutput":
        return Outcome("ok", f"with {session.config.source.plugin} the daemon writes no temporary files")
    folder = tempfile.gettempdir()
    return space(folder, shutil.disk_usage(folder).free)


def space(folder: str, free: int) -> Outcome:
    """The verdict on so many free bytes."""
    text = f"{folder} has {free / (1 << 30):.1f} GiB free for large transactions"
    if free < _LEAST_FREE:
        return Outcome("warn", text, "let TMPDIR name a folder with room for the largest transaction")
    return Outcome("ok", text)


def host_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    return [
        Check("signing_key", "audit", signing_key, ("audit_schema",)),
        Check("redaction_key", "audit", redaction_key),
        Check("temporary_space", "source", temporary_space),
    ]
