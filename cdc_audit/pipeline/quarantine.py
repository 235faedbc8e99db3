"""Going on past a transaction that can't be decoded: all before it is stored, then a ``poison`` block stands for it.

Nothing is done to the slot: the ledger's end is where the daemon resumes, and it is then past that transaction.
"""

from __future__ import annotations

from cdc_audit import failpoint
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError, CheckFailedError, PoisonError
from cdc_audit.model.lsn import format_lsn
from cdc_audit.model.observer import Observer
from cdc_audit.pipeline.daemon import Daemon
from cdc_audit.pipeline.reconcile import Poison
from cdc_audit.pipeline.session import Session

_EVERYTHING = 2**64


class Quarantine(Daemon):
    """A daemon that reads up to the failure at ``lsn``, writes the block, sees that the stream goes on, and returns from ``run``.

    ``poison`` is what was given up. ``run`` raises CheckFailedError if something else fails, or nothing does;
    AnotherDaemonError while a daemon runs.
    """

    def __init__(self, config: Config, observer: Observer, *, lsn: int, reason: str) -> None:
        super().__init__(config, observer, waits=False)
        self._lsn = lsn
        self._reason = reason
        self.poison: Poison | None = None

    async def run(self) -> None:
        """Raises too what a daemon's ``run`` does."""
        await super().run()
        if self.poison is None and not self._stopping.is_set():
            raise CheckFailedError(
                f"nothing fails at {format_lsn(self._lsn)}: all that is committed can be decoded",
                remedy="none: start the daemon",
            )

    def _new_session(self) -> Session:
        session: Session = Session(
            self._config,
            self._observer,
            self._anchors,
            lambda: self._stopping.is_set() or self.poison is not None or session.has_read_all,
            poison=self.poison,
            apart_until=_EVERYTHING,
        )
        return session

    async def _recover(self, error: CdcAuditError, attempt: int) -> None:
        if not isinstance(error, PoisonError):
            await super()._recover(error, attempt)
        elif error.lsn != self._lsn or not error.end_lsn:
            raise CheckFailedError(
                f"what fails is at {format_lsn(error.lsn)}, not at {format_lsn(self._lsn)}: {error.message}",
                remedy="start the daemon: it names the position",
            )
        else:
            failpoint.reached("quarantining")
            self.poison = Poison(error.lsn, error.xid, error.end_lsn, error.message, self._reason)
