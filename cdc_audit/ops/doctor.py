"""Every precondition of the daemon, checked one by one with its own rights. Changes and raises nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from cdc_audit.config import Config
from cdc_audit.ops.anchor_checks import anchor_checks
from cdc_audit.ops.archive_checks import archive_checks
from cdc_audit.ops.audit_checks import audit_checks
from cdc_audit.ops.check import Check, Result, Session, run_checks
from cdc_audit.ops.connection_checks import connection_checks
from cdc_audit.ops.host_checks import host_checks
from cdc_audit.ops.lake_checks import lake_checks
from cdc_audit.ops.pair_checks import pair_checks
from cdc_audit.ops.reads_checks import reads_checks
from cdc_audit.ops.source_checks import source_checks


def diagnose(config: Config, *, clock: Callable[[], float] = time.time) -> Iterator[Result]:
    """The results, each as soon as it is known. A database that is away is a failed check."""
    session = Session(config, clock)
    try:
        yield from run_checks(_checks(config), session)
    finally:
        session.close()


def _checks(config: Config) -> list[Check]:
    checks = [
        *source_checks(config),
        *audit_checks(),
        *connection_checks(),
        *pair_checks(),
        *host_checks(),
        *reads_checks(config),
        *anchor_checks(config),
    ]
    if config.audit.kind == "postgresql":
        return [*checks, *archive_checks(config)]
    # What asks a database of the trail's falls away, with all that needs it.
    database = {check.name for check in audit_checks()}
    kept = [check for check in checks if check.name not in database and not database & set(check.needs)]
    return [*kept, *lake_checks()]
