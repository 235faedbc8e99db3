"""Doctor's checks of a trail in Iceberg tables."""

from __future__ import annotations

from cdc_audit import lake
from cdc_audit.errors import CdcAuditError
from cdc_audit.model.lsn import format_lsn
from cdc_audit.ops.check import Check, Outcome, Session


def tables(session: Session) -> Outcome:
    """Both tables are there, and as they were made."""
    audit = session.config.audit
    try:
        found = lake.open_tables(audit.catalog, audit.audit_schema)
    except CdcAuditError as error:
        return Outcome("fail", error.message, error.remedy or "look at the catalog's own log")
    except Exception as error:  # a catalog's and a store's clients have errors of their own
        return Outcome(
            "fail",
            f"catalog {audit.catalog} does not answer ({type(error).__name__})",
            f"correct how .pyiceberg.yaml or PYICEBERG_CATALOG__{audit.catalog.upper()}__... describes it",
        )
    last = lake.position(found.ledger)
    return Outcome(
        "ok",
        f"the tables of namespace {audit.audit_schema} are there, through "
        + (f"block {last.block.block} at {format_lsn(last.block.end_lsn)}" if last else "no block yet"),
    )


def pace(session: Session) -> Outcome:
    """Each block is two commits of tables, which other engines plan with."""
    if session.config.batch.flush_interval >= 5:
        return Outcome("ok", f"a block each {session.config.batch.flush_interval:.0f} s at most")
    return Outcome(
        "warn",
        f"[batch] flush_interval is {session.config.batch.flush_interval:g} s: so many small files and snapshots",
        "set flush_interval in section [batch] to 10 or more",
    )


def lake_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    return [Check("audit_lake", "audit", tables), Check("lake_pace", "audit", pace)]
