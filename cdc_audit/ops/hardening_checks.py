"""Doctor's checks of what keeps the source honest: who may send messages, and whether DDL is told to the trail."""

from __future__ import annotations

from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.source import hardening, install

_HARDEN = "cdc-audit source install --harden"


def emit_right(session: Session) -> Outcome:
    """Only the signing functions can say who acts."""
    if install.emit_is_revoked(session.source):
        return Outcome("ok", "EXECUTE on pg_logical_emit_message is revoked from PUBLIC")
    return Outcome(
        "warn",
        "anybody who can connect to the source may call pg_logical_emit_message and assert to be anyone "
        "(such rows have context_trust asserted)",
        "cdc-audit source install --revoke-emit",
    )


def ddl(session: Session) -> Outcome:
    """DDL that hides changes leaves rows in the trail."""
    found = hardening.found(session.source)
    if found.broken:
        names = ", ".join(found.broken)
        return Outcome(
            "warn", f"event triggers are gone or disabled, DDL is no longer told: {names}", _HARDEN
        )
    if not found.was_hardened:
        return Outcome(
            "info", "the source is not hardened: DDL that hides changes leaves no row in the trail", _HARDEN
        )
    return Outcome("ok", "event triggers tell the trail of DDL")


def hardening_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    there = ("source_reachable",)
    return [
        Check("emit_right", "source", emit_right, there),
        Check("ddl_event_triggers", "source", ddl, there),
    ]
