"""Failpoints: places where a test makes the process die, halt or fail. For testing only; without the variable they do nothing.

``CDC_AUDIT_FAILPOINT=<name>[:<n-th time>][=kill|stop|error]``: when the process comes to the place of that name for the n-th time
(default: the first), it ends itself by SIGKILL (the default), halts itself by SIGSTOP, or raises UnavailableError. Places are
passed once a block, a look at the stream or a command, never once a row.
"""

from __future__ import annotations

import os
import re
import signal
import sys

from cdc_audit.errors import SettingError, UnavailableError

VARIABLE = "CDC_AUDIT_FAILPOINT"
_FORM = re.compile(r"([a-z-]+)(?::([1-9]\d*))?(?:=(kill|stop|error))?")

# In the order in which the life of a block passes them; what stands in brackets is its room.
POINTS = (
    "reconciling",  # [pipeline] at a start: a block has to be written before anything else, and is not
    "reconciled",  # [pipeline] at a start: all such blocks are written
    "stream-started",  # [pipeline] START_REPLICATION was answered
    "mid-transaction",  # [pipeline] some rows of a transaction are on their way, its COMMIT has not come
    "block-closed",  # [pipeline] a block's last COMMIT has come, its header is made
    "partition-made",  # [sink] the month's partition is there, no row in it
    "before-begin",  # [sink] the block's first lines are here, its transaction has not begun
    "after-begin",  # [sink] BEGIN was answered
    "mid-copy",  # [sink] lines were sent, more may follow
    "after-copy",  # [sink] COPY was answered
    "block-signed",  # [sink] the header is signed and not sent
    "before-commit",  # [sink] the header is on its way, COMMIT is not
    "lake-file-begun",  # [sink] of a lake: some rows are in the block's data file
    "lake-file-ended",  # [sink] of a lake: all are, no snapshot knows the file
    "lake-rows-kept",  # [sink] of a lake: a snapshot has the rows and their header, the ledger's table has not
    "after-commit",  # [pipeline] COMMIT was answered, the source does not know
    "acknowledged",  # [pipeline] the source was told
    "before-anchor",  # [sink] a block is durable, its anchor is not written
    "migrating",  # [schema] a migration was run and not recorded
    "slot-moved",  # [cli] the slot was made anew or advanced, the ledger does not say so
    "snapshot-adopted",  # [source] a snapshot of tables has begun, they are not locked
    "quarantining",  # [pipeline] a transaction is about to be put into quarantine
    "archive-rows-kept",  # [trail] a month's rows are in their file, nothing else is
    "archive-checked",  # [trail] both files are there and were read back, the manifest is not written
    "archive-manifest-kept",  # [trail] the whole archive is there, the rows are, too
    "month-closed",  # [sink] the month takes no more rows, none is gone
    "month-dropped",  # [sink] its partition is dropped, the ledger does not say so, nothing is committed
    "month-recorded",  # [sink] the ledger says so, nothing is committed
    "month-retired",  # [cli] COMMIT was answered, nobody was told
    "purge-recorded",  # [cli] the ledger says that an archive was purged, its rows are there
    "purge-noted",  # [cli] so does the archive
    "purge-deleted",  # [cli] its rows are gone, nobody was told
)


class _Armed:
    """The one failpoint that the environment asks for."""

    def __init__(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        if match is None or match[1] not in POINTS:
            raise SettingError(
                f"{VARIABLE}={text}: no such failpoint",
                remedy=f"<name>[:<n-th time>][=kill|stop|error], name one of {', '.join(POINTS)}",
            )
        self.name = match[1]
        self.remaining = int(match[2] or 1)
        self.action = match[3] or "kill"

    def reach(self, name: str) -> None:
        if name != self.name:
            return
        self.remaining -= 1
        if self.remaining:
            return
        print(f"failpoint {name}: {self.action}", file=sys.stderr, flush=True)  # noqa: T201 - the process may end here
        if self.action == "error":
            raise UnavailableError(f"failpoint {name}")
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


_ARMED: _Armed | None = None


def arm() -> None:
    """Read the variable. Raises SettingError if it names no failpoint."""
    global _ARMED  # noqa: PLW0603 - one process, one failpoint
    text = os.environ.get(VARIABLE, "")
    _ARMED = _Armed(text) if text else None


def reached(name: str) -> None:
    """The process has come to the place called ``name``. Raises UnavailableError where it was told to."""
    if _ARMED is not None:
        _ARMED.reach(name)
