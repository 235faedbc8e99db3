"""Doctor's checks of the audit database: it is there, safe, and nobody can change it unnoticed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cdc_audit.errors import NotPermittedError
from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.ops.privilege_checks import privilege_checks
from cdc_audit.schema import migrate
from cdc_audit.schema import partitions as migrated
from cdc_audit.schema.migrate import quoted

_OLDEST = 140000
_UPDATE, _DELETE, _TRUNCATE = 16, 8, 32  # bits of pg_trigger.tgtype
_GUARDED = _UPDATE | _DELETE | _TRUNCATE


def dsn(session: Session) -> Outcome:
    """[audit] dsn is there."""
    if session.config.audit.dsn:
        return Outcome("ok", "[audit] dsn is set")
    return Outcome(
        "fail",
        "[audit] dsn is not set",
        "set CDC_AUDIT_AUDIT_DSN, or dsn in section [audit] of cdc-audit.toml",
    )


def reachable(session: Session) -> Outcome:
    """The daemon's role can connect."""
    info = session.connect("audit", session.config.audit.dsn).info
    return Outcome("ok", f"connected to database {info.dbname} as {info.user}")


def version(session: Session) -> Outcome:
    """PostgreSQL 14 or newer, and not a standby."""
    server = session.row("audit", "server")
    if server.version_num < _OLDEST:
        return Outcome(
            "fail",
            f"the audit server is PostgreSQL {server.version}",
            "use PostgreSQL 14 or newer for the trail",
        )
    if server.in_recovery:
        return Outcome(
            "fail",
            "the audit server is a standby and can't be written to",
            "let [audit] dsn name the primary",
        )
    return Outcome("ok", f"PostgreSQL {server.version}")


def encoding(session: Session) -> Outcome:
    """Every character that the source can hold can be stored."""
    found = session.rows("audit", "settings", names=["server_encoding"])[0].setting
    if found != "UTF8":
        return Outcome(
            "fail",
            f"the audit database's encoding is {found}: the first character that it lacks stops the trail",
            f"createdb --template=template0 --encoding=UTF8 {session.audit.info.dbname}_utf8\n"
            "let [audit] dsn name that one",
        )
    return Outcome("ok", "the audit database's encoding is UTF8")


def schema(session: Session) -> Outcome:
    """The audit schema is there, at the program's version."""
    name = session.config.audit.audit_schema
    try:
        installed = migrate.installed_version(session.audit, name)
    except NotPermittedError as error:
        return Outcome("fail", error.message, f"grant audit_writer to {quoted(session.audit.info.user)};")
    if installed is None:
        return Outcome("fail", f"schema {name} is not there", "cdc-audit init")
    if installed < migrate.LATEST:
        text = f"schema {name} is at version {installed}, this program needs {migrate.LATEST}"
        return Outcome("fail", text, "cdc-audit schema migrate")
    if installed > migrate.LATEST:
        text = f"schema {name} is at version {installed}, newer than this program's {migrate.LATEST}"
        return Outcome("fail", text, "upgrade cdc-audit on this machine")
    return Outcome("ok", f"schema {name} is at version {installed}")


def writer_rights(session: Session) -> Outcome:
    """The daemon's role may add to the trail, and nothing else."""
    name = session.config.audit.audit_schema
    rights = session.row("audit", "writer_rights", schema=name)
    if rights.is_superuser:
        return Outcome(
            "warn",
            f"role {rights.role} is a superuser: whoever takes over the daemon can rewrite the trail",
            "create role cdc_audit_writer login in role audit_writer;\nlet [audit] dsn use it",
        )
    if rights.missing:
        return Outcome(
            "fail",
            f"role {rights.role} lacks rights it needs: {', '.join(rights.missing)}",
            _grants(name, rights.missing),
        )
    if rights.is_owner:
        return Outcome(
            "warn",
            f"role {rights.role} is a member of {rights.owner}, which owns the trail and can change it",
            f"revoke {quoted(rights.owner)} from {quoted(rights.role)};",
        )
    if rights.too_much:
        return Outcome(
            "warn",
            f"role {rights.role} may do more than add to the trail: {', '.join(rights.too_much[:10])}",
            _revokes(name, rights),
        )
    return Outcome("ok", f"role {rights.role} may add to the trail and read the ledger, nothing else")


def _grants(schema_name: str, missing: list[str]) -> str:
    """What the role should have as a member of audit_writer, which that has lost."""
    rights = (entry.partition(": ") for entry in missing)
    return "\n".join(
        f"grant {right} on {quoted(schema_name)}.{quoted(table)} to audit_writer;"
        for table, _, right in rights
    )


def _revokes(schema_name: str, rights: Any) -> str:
    """Take away what is too much. What comes by membership in roles of the site's own, the check of grants names."""
    lines = [f"revoke {quoted(broad)} from {quoted(rights.role)};" for broad in rights.too_broad]
    for entry in rights.too_much:
        table, _, right = entry.partition(": ")
        lines.append(f"revoke {right} on {quoted(schema_name)}.{quoted(table)} from {quoted(rights.role)};")
    return "\n".join(lines)


def triggers(session: Session) -> Outcome:
    """UPDATE, DELETE and TRUNCATE are refused by triggers that no session can switch off."""
    tables = session.rows("audit", "tables_to_guard", schema=session.config.audit.audit_schema)
    open_ones = [table.name for table in tables if table.guarded != _GUARDED]
    if open_ones:
        return Outcome(
            "fail",
            f"triggers that refuse changes are missing or not ENABLE ALWAYS on {', '.join(open_ones[:10])}; find out "
            "who did that, and run cdc-audit verify",
            "cdc-audit schema migrate",
        )
    return Outcome(
        "ok", f"UPDATE, DELETE and TRUNCATE are refused on all {len(tables)} tables, in every session"
    )


def partitions(session: Session) -> Outcome:
    """The partitions of the present and the next month are there, and no row is in none of any month."""
    now = datetime.fromtimestamp(session.clock(), UTC)
    following = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    wanted = [f"audit_logs_{year:04}_{month:02}" for year, month in ((now.year, now.month), following)]
    parts = migrated.partitions(session.audit, session.config.audit.audit_schema)
    found = {part.name for part in parts}
    missing = [name for name in wanted if name not in found]
    if missing:
        return Outcome(
            "warn",
            f"partitions not made yet: {', '.join(missing)}; rows would go to the default partition",
            "cdc-audit schema partitions --ahead 3",
        )
    astray = sum(part.rows for part in parts if part.lower is None)
    if astray:
        return Outcome(
            "warn",
            f"about {astray:,} rows are in the default partition, where no month's archive takes them",
            "cdc-audit schema partitions --drain",
        )
    return Outcome("ok", f"partitions {wanted[0]} and {wanted[1]} are there")


def indexes(session: Session) -> Outcome:
    """Months that are over have their look-up indexes."""
    missing = migrated.missing_indexes(session.audit, session.config.audit.audit_schema)
    if missing:
        return Outcome(
            "warn",
            f"{len(missing)} look-up indexes of months that are over are missing ({missing[0]}, ...): questions of the trail are "
            "slow; the daemon builds them within the hour",
            "cdc-audit schema index",
        )
    return Outcome("ok", "months that are over have their look-up indexes")


def durability(session: Session) -> Outcome:
    """A COMMIT that returned survives a crash of the audit server."""
    wanted = ["fsync", "full_page_writes", "synchronous_commit"]
    rows = session.rows("audit", "settings", names=wanted)
    off = [row.name for row in rows if row.setting == "off" and row.name != "synchronous_commit"]
    if off:
        return Outcome(
            "warn",
            f"{' and '.join(off)} off: a crash of the audit server can lose rows that were acknowledged",
            "\n".join([*(f"alter system set {name} = on;" for name in off), "select pg_reload_conf();"]),
        )
    if any(row.name == "synchronous_commit" and row.setting == "off" for row in rows):
        return Outcome("info", "synchronous_commit is off for this role; the daemon sets it for itself")
    return Outcome("ok", "fsync, full_page_writes and synchronous_commit are on")


def audit_checks() -> list[Check]:
    """The checks of the audit database, in the order in which they make sense."""
    return [
        Check("audit_dsn", "audit", dsn),
        Check("audit_reachable", "audit", reachable, ("audit_dsn",)),
        Check("audit_version", "audit", version, ("audit_reachable",)),
        Check("audit_durability", "audit", durability, ("audit_reachable",)),
        Check("audit_encoding", "audit", encoding, ("audit_reachable",)),
        Check("audit_schema", "audit", schema, ("audit_version",)),
        Check("audit_writer", "audit", writer_rights, ("audit_schema",)),
        Check("audit_triggers", "audit", triggers, ("audit_schema",)),
        Check("audit_partitions", "audit", partitions, ("audit_schema",)),
        Check("audit_indexes", "audit", indexes, ("audit_schema",)),
        *privilege_checks(),
    ]
