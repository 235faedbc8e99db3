"""After an error: try again, and when, or stop and say what to do. Pure. What isn't known to pass by itself stops."""

from __future__ import annotations

from typing import NamedTuple

from cdc_audit.errors import (
    AnotherDaemonError,
    CdcAuditError,
    LedgerMovedError,
    PoisonError,
    UnavailableError,
)

FIRST_DELAY = 0.2
LONGEST_DELAY = 5.0
STANDBY_DELAY = 0.5
MOVED_DELAY = 0.05
POISON_ATTEMPTS = 3


class Retry(NamedTuple):
    """Try again after so many seconds."""

    delay: float


def after(error: CdcAuditError, *, attempt: int, jitter: float) -> Retry | None:
    """What to do after an error; None is to stop. ``attempt`` counts failures in a row from 1, for a PoisonError those at its
    position; ``jitter`` is random, 0 to 1.

    Delays double from 0.2 to 5 s and are spread over their upper half, so that daemons don't come back in step.
    """
    if isinstance(error, AnotherDaemonError):
        return Retry(STANDBY_DELAY)
    if isinstance(error, LedgerMovedError):
        return Retry(MOVED_DELAY)
    if isinstance(error, PoisonError):
        return Retry(FIRST_DELAY) if attempt < POISON_ATTEMPTS else None
    if isinstance(error, UnavailableError):
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 10))
        return Retry(longest * (0.5 + jitter / 2))
    return None
