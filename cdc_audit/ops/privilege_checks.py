"""Doctor's checks of who may do what in the audit schema: exactly what the migrations have granted, to whom they have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.schema.migrate import quoted

_MOST_NAMED = 10
_WRITER, _ADMIN, _OWNER = "audit_writer", "audit_admin", "audit_owner"


class Grant(NamedTuple):
    """One right. ``object`` is a schema's, table's or function's name as GRANT takes it; ``role`` is "public" for all."""

    kind: str
    object: str
    right: str
    role: str


# What the migrations grant besides the owner's own. A partition is readable by audit_admin; rows go in by its root.
_TABLES = {
    "audit_logs": {("INSERT", _WRITER), ("SELECT", _ADMIN)},
    # No part of the proof: what is made from the rows, and thrown away.
    "digests": {("SELECT", _ADMIN), ("UPDATE", _OWNER), ("DELETE", _OWNER), ("TRUNCATE", _OWNER)},
    "ledger": {("INSERT", _WRITER), ("SELECT", _WRITER), ("SELECT", _ADMIN)},
    "personal_values": {("INSERT", _WRITER), ("SELECT", _ADMIN)},
    "reads": {("SELECT", _ADMIN)},
    "schema_version": {("SELECT", _WRITER), ("SELECT", _ADMIN)},
}
_PARTITION = {("SELECT", _ADMIN)}
_SCHEMA = {("USAGE", _WRITER), ("USAGE", _ADMIN)}
_FUNCTIONS = {
    "ensure_partition": {("EXECUTE", _WRITER)},
    "build_index": {("EXECUTE", _WRITER)},
    "digest_rows": {("EXECUTE", _WRITER)},
    "record_read": {("EXECUTE", _ADMIN)},
    "missing_indexes": {("EXECUTE", _WRITER), ("EXECUTE", _ADMIN)},
}


def grants(session: Session) -> Outcome:
    """Nobody has another right on the trail than the migrations gave."""
    schema = session.config.audit.audit_schema
    wanted: set[Grant] = set()
    for row in session.rows("audit", "objects", schema=schema):
        wanted |= {Grant(row.kind, row.object, *right) for right in _rights(row)}
    found = {Grant(*row) for row in session.rows("audit", "grants", schema=schema)}
    too_much, missing = sorted(found - wanted), sorted(wanted - found)
    if not (too_much or missing):
        return Outcome("ok", "all rights in the audit schema are what the migrations gave")
    remedy = [f"revoke {one.right} on {one.kind} {one.object} from {_role(one)};" for one in too_much]
    remedy += [f"grant {one.right} on {one.kind} {one.object} to {_role(one)};" for one in missing]
    parts = [f"too much: {_named(too_much)}"] if too_much else []
    parts += [f"missing: {_named(missing)}"] if missing else []
    return Outcome("warn", f"rights in the audit schema differ; {'; '.join(parts)}", "\n".join(remedy))


def owners(session: Session) -> Outcome:
    """Everything in the audit schema belongs to a role that nobody can log in as."""
    found = session.rows("audit", "foreign_owners", schema=session.config.audit.audit_schema)
    if found:
        names = ", ".join(f"{row.object} ({row.owner})" for row in found[:_MOST_NAMED])
        remedy = "\n".join(f"alter {row.kind} {row.object} owner to {_OWNER};" for row in found)
        return Outcome("fail", f"{_OWNER} isn't the owner, who could change the trail, of {names}", remedy)
    return Outcome("ok", f"everything in the audit schema belongs to {_OWNER}")


def roles(session: Session) -> Outcome:
    """The three roles have no power of their own, and none has the owner's."""
    found = session.rows("audit", "powerful_roles")
    if found:
        text = "; ".join(f"{row.role} {row.power}" for row in found)
        return Outcome(
            "fail", f"roles of the trail could change it: {text}", "\n".join(row.remedy for row in found)
        )
    return Outcome("ok", f"{_OWNER}, {_WRITER} and {_ADMIN} have no power beyond their rights")


def privilege_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    there = ("audit_schema",)
    return [
        Check("audit_owners", "audit", owners, there),
        Check("audit_roles", "audit", roles, there),
        Check("audit_grants", "audit", grants, there),
    ]


def _rights(row: Any) -> Iterable[tuple[str, str]]:
    """What should be granted on a row of the statement ``objects``."""
    if row.kind == "schema":
        return _SCHEMA
    if row.kind == "function":
        return _FUNCTIONS.get(row.name, ())
    return _PARTITION if row.is_partition else _TABLES.get(row.name, ())


def _role(grant: Grant) -> str:
    return grant.role if grant.role == "public" else quoted(grant.role)


def _named(found: list[Grant]) -> str:
    listed = ", ".join(f"{one.right} on {one.object} for {one.role}" for one in found[:_MOST_NAMED])
    return listed + (f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else "")
