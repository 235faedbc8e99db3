"""Doctor's checks of the two databases together: apart enough, in step, and agreeing about the time."""

from __future__ import annotations

from cdc_audit.model.lsn import format_lsn
from cdc_audit.ops.check import Check, Outcome, Session, Side
from cdc_audit.schema import migrate
from cdc_audit.schema.migrate import quoted
from cdc_audit.sink import ledger
from cdc_audit.source import slot
from cdc_audit.source.plugin import RECREATE

SKEW_SECONDS = 5.0


def separation(session: Session) -> Outcome:
    """The trail doesn't share the fate of what it watches."""
    source, audit = _identifier(session, "source"), _identifier(session, "audit")
    if source is None or audit is None:
        side: Side = "source" if source is None else "audit"
        role = session.connections[side].info.user
        return Outcome(
            "info",
            f"whether both databases are on one server can't be seen: {role} may not ask for the {side}'s system identifier",
            f"grant execute on function pg_catalog.pg_control_system() to {quoted(role)};",
            side,
        )
    if source != audit:
        return Outcome("ok", "source and audit database are on different servers")
    if session.source.info.dbname == session.audit.info.dbname:
        return Outcome(
            "fail",
            "source and audit database are the same: the trail's own rows would be audited for ever",
            "let [audit] dsn name another database, better on another server",
        )
    return Outcome(
        "warn",
        "source and audit database are on the same server: its superuser and its disk can take both",
        "let [audit] dsn name a server of its own",
    )


def _identifier(session: Session, side: Side) -> str | None:
    if not session.row(side, "server").may_identify:
        return None
    return str(session.row(side, "system_identifier").value)


def slot_fit(session: Session) -> Outcome:
    """The slot is there, of our plugin and database, and still holds what it has not sent."""
    source = session.config.source
    found = slot.status(session.source, source.slot)
    if found is None:
        return Outcome("fail", f"replication slot {source.slot} is not there", _made_by(session))
    slot.check_fit(found, session.source.info.dbname, source.plugin)
    activity = f"read by PID {found.active_pid}" if found.active else "not being read by any daemon"
    text = f"replication slot {found.name} is {activity}, and holds back {found.retained_bytes} bytes of WAL"
    if found.wal_status not in {"reserved", "extended"}:
        return Outcome(
            "warn",
            f"{text}; its wal_status is {found.wal_status}: it will soon be lost",
            "cdc-audit run\nraise max_slot_wal_keep_size of the source server",
        )
    return Outcome("ok", text)


def _made_by(session: Session) -> str:
    """Where the ledger has begun, a new slot leaves a gap, which belongs into it."""
    schema = session.config.audit.audit_schema
    has_begun = (
        "audit" in session.connections
        and migrate.installed_version(session.audit, schema) == migrate.LATEST
        and ledger.last_block(session.audit, schema) is not None
    )
    return RECREATE if has_begun else "cdc-audit slot create"


def position(session: Session) -> Outcome:
    """The slot has nothing given away that the ledger doesn't hold."""
    config = session.config
    last = ledger.last_block(session.audit, config.audit.audit_schema)
    if last is None:
        return Outcome("fail", "the ledger is empty: it doesn't say where the trail begins", "cdc-audit init")
    block = last[0]
    state = slot.status(session.source, config.source.slot)
    if state is None:
        return Outcome("skip", f"slot {config.source.slot} is not there")
    identifier = _identifier(session, "source")
    if identifier is not None and block.system_identifier != identifier:
        return Outcome(
            "fail",
            f"the ledger belongs to the source with system identifier {block.system_identifier}, "
            f"this one is {identifier}",
            "correct [source] dsn, or give this source an audit schema of its own ([audit] schema)",
        )
    confirmed, durable = format_lsn(state.confirmed_flush_lsn), format_lsn(block.end_lsn)
    if state.confirmed_flush_lsn > block.end_lsn:
        return Outcome(
            "fail",
            f"the slot is ahead of the ledger: {confirmed} is acknowledged, {durable} is durable. Somebody "
            "else consumed changes that the trail doesn't hold: find out who. To go on records the gap in the ledger",
            'cdc-audit run --accept-gap "reason"',
        )
    return Outcome("ok", f"block {block.block} holds everything up to {durable}; the slot is at {confirmed}")


def source_clock(session: Session) -> Outcome:
    """The source and this host agree about the time."""
    return _clock(session, "source")


def audit_clock(session: Session) -> Outcome:
    """The audit server and this host agree about the time."""
    return _clock(session, "audit")


def _clock(session: Session, side: Side) -> Outcome:
    before = session.clock()
    theirs = float(session.row(side, "clock").seconds)
    after = session.clock()
    # The server looked at its clock somewhere between the two.
    skew = theirs - after if theirs > after else min(0.0, theirs - before)
    if abs(skew) > SKEW_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        return Outcome(
            "warn",
            f"the {side} server's clock is {abs(skew):.0f} s {direction} ours: lag and latency are off",
            "run a time service (chrony, systemd-timesyncd) on both",
        )
    return Outcome("ok", f"the {side} server's clock agrees with this host's within {SKEW_SECONDS:.0f} s")


def pair_checks() -> list[Check]:
    """The checks that need both sides, after those of each."""
    both = ("source_reachable", "audit_reachable")
    return [
        Check("separation", "audit", separation, both),
        Check("source_slot", "source", slot_fit, ("source_reachable",)),
        Check("ledger_position", "audit", position, ("source_slot", "audit_schema")),
        Check("source_clock", "source", source_clock, ("source_reachable",)),
        Check("audit_clock", "audit", audit_clock, ("audit_reachable",)),
    ]
