"""Session after session: what an error means is ``recovery``'s decision, this only waits and begins again."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import psycopg

from cdc_audit import memory
from cdc_audit.config import Config
from cdc_audit.errors import (
    AnotherDaemonError,
    CdcAuditError,
    LedgerMovedError,
    PoisonError,
    UnavailableError,
)
from cdc_audit.join import context
from cdc_audit.model.lsn import format_lsn
from cdc_audit.model.observer import Observer
from cdc_audit.pipeline import recovery
from cdc_audit.pipeline.leftovers import Leftovers
from cdc_audit.pipeline.session import Session
from cdc_audit.pipeline.suspicion import Suspicion
from cdc_audit.postgres import explain
from cdc_audit.sink.anchor import Anchors
from cdc_audit.sink.redaction import load_redaction

_HEALTHY_AFTER = 10.0  # seconds; a session that lasted so long, or stored anything, was well: the next failure is a first one
_TICK = 1.0
_AFTERMATH = (
    3.0  # seconds in which the servers may still hold lock and slot for a session of ours that has ended
)


class Daemon:
    """``run`` until ``stop`` is called, or until an error that only an operator can mend."""

    def __init__(
        self, config: Config, observer: Observer, *, accept_gap: str = "", waits: bool = True
    ) -> None:
        self._config = config
        self._observer = observer
        self._accept_gap = accept_gap
        self._waits = waits
        self._stopping = asyncio.Event()
        self._session: Session | None = None
        self._attempt = 0  # failures in a row
        self._streamed_until = float("-inf")
        self._poison: PoisonError | None = None
        self._poison_times = 0
        self._suspicion = Suspicion(config.suspicious.rules)  # what it remembers outlives sessions
        self._leftovers = Leftovers()
        # Beside the sessions: no connection waits for an anchor.
        self._anchors = Anchors(
            config.ledger.anchors,
            config.audit.audit_schema,
            observer.anchored,
            token_file=config.ledger.anchor_token_file,
        )

    def stop(self) -> None:
        """Finish the open block, acknowledge it, and return from ``run``."""
        self._stopping.set()

    def reload(self, config: Config) -> None:
        """Use the tables and redaction rules of another configuration from the next transaction on, and its rules of what is
        suspicious for the blocks that are not yet durable; the rest stays as it was.

        Raises SettingError if a redaction key can't be read; then all stays as it was.
        """
        redaction = load_redaction(config.redact)
        source = self._config.source.model_copy(
            update={"tables": config.source.tables, "exclude": config.source.exclude}
        )
        update = {"source": source, "redact": config.redact, "suspicious": config.suspicious}
        self._config = self._config.model_copy(update=update)
        self._suspicion.use(config.suspicious.rules)
        if self._session is not None:
            self._session.reload(self._config, redaction)

    async def run(self) -> None:
        """Raises the error that stopped the daemon; returns after ``stop``, with the last block anchored or reported."""
        ticking = asyncio.create_task(self._tick())
        anchoring = asyncio.create_task(self._anchors.run())
        try:
            while not self._stopping.is_set() and await self._turn():
                self._session = None
                context.forget()
                memory.give_back()
        finally:
            await self._anchors.close()
            anchoring.cancel()
            ticking.cancel()
            self._observer.state("stopped", "the daemon was stopped")

    async def _turn(self) -> bool:
        """One session, and the wait after it; whether another one is to follow."""
        began = time.monotonic()
        session = self._session = self._new_session()
        error = await self._session_error(session)
        if session.has_streamed:
            self._streamed_until = time.monotonic()
            self._accept_gap = ""  # a reason is given for one gap, not for all to come
        if error is None:
            return session.is_superseded
        is_well = session.has_stored or time.monotonic() - began > _HEALTHY_AFTER
        self._attempt = 1 if is_well else self._attempt + 1
        await self._recover(error, self._times(error) if isinstance(error, PoisonError) else self._attempt)
        return True

    def _new_session(self) -> Session:
        return Session(
            self._config,
            self._observer,
            self._anchors,
            self._stopping.is_set,
            self._accept_gap,
            apart_until=self._poison.end_lsn if self._poison else 0,
            suspicion=self._suspicion,
            leftovers=self._leftovers,
        )

    def _times(self, poison: PoisonError) -> int:
        """How often this one has failed. The next session stores what comes before it in blocks of one transaction each: so all
        of that is stored, however soon after it the stream breaks off.
        """
        is_known = self._poison is not None and self._poison.lsn == poison.lsn
        self._poison, self._poison_times = poison, self._poison_times + 1 if is_known else 1
        return self._poison_times

    async def _session_error(self, session: Session) -> CdcAuditError | None:
        """How a session ended; stopping while it still connects ends it too."""
        running = asyncio.create_task(session.run())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                if session.has_streamed:
                    session.wake()
                else:
                    running.cancel()
            await running
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except CdcAuditError as error:
            return error
        except psycopg.Error as error:
            return explain(error, side="source")
        except OSError as error:
            return UnavailableError(f"network: {error.strerror or type(error).__name__}")
        finally:
            stopping.cancel()
        return None

    async def _recover(self, error: CdcAuditError, attempt: int) -> None:
        is_aftermath = time.monotonic() - self._streamed_until < _AFTERMATH
        if isinstance(error, AnotherDaemonError) and not self._waits and not is_aftermath:
            raise error
        decision = recovery.after(error, attempt=attempt, jitter=random.random())  # noqa: S311 - not for secrets
        if decision is None:
            if isinstance(error, PoisonError):
                error.remedy = f'cdc-audit quarantine --lsn {format_lsn(error.lsn)} --reason "..."'
            self._observer.state("stopped", error.message)
            raise error
        if isinstance(error, AnotherDaemonError):
            self._observer.state("standby", error.message)
        elif isinstance(error, LedgerMovedError):
            self._observer.informed("ledger_moved", reason=error.message)
        else:
            side = "audit" if error.message.startswith("audit") else "source"
            self._observer.state("waiting", error.message)
            remedy = {"remedy": error.remedy} if error.remedy else {}
            self._observer.warned(
                "connection_lost",
                side=side,
                reason=error.message,
                again_in=round(decision.delay, 1),
                **remedy,
            )
            self._observer.reconnected(side)
        await self._pause(decision.delay)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until told to stop. Apart from what knows the error: a time-out that was caught last keeps its frame."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _tick(self) -> None:
        while True:
            self._observer.ticked()
            await asyncio.sleep(_TICK)
