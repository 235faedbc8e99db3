"""Session after session: what an error means is ``recovery``'s decision, this only waits and begins again."""

from __future__ import annotations

import asyncio
import random
import time

import psycopg

from cdc_audit.config import Config
from cdc_audit.errors import AnotherDaemonError, CdcAuditError, UnavailableError
from cdc_audit.model.observer import Observer
from cdc_audit.pipeline import recovery
from cdc_audit.pipeline.session import Session
from cdc_audit.postgres import explain

_HEALTHY_AFTER = 10.0  # a session that lasted so long was well: the next failure is a first one
_TICK = 1.0


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

    def stop(self) -> None:
        """Finish the open block, acknowledge it, and return from ``run``."""
        self._stopping.set()

    def reload(self, config: Config) -> None:
        """Use the tables and redaction rules of another configuration from here on; the rest stays as it was."""
        source = self._config.source.model_copy(
            update={"tables": config.source.tables, "exclude": config.source.exclude}
        )
        self._config = self._config.model_copy(update={"source": source, "redact": config.redact})
        if self._session is not None:
            self._session.reload(self._config)

    async def run(self) -> None:
        """Raises the error that stopped the daemon; returns after ``stop``."""
        ticking = asyncio.create_task(self._tick())
        attempt = 0
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                session = self._session = Session(
                    self._config, self._observer, self._stopping.is_set, self._accept_gap
                )
                error = await self._session_error(session)
                if error is None:
                    return
                if session.has_streamed:
                    self._accept_gap = ""  # a reason is given for one gap, not for all to come
                attempt = 1 if time.monotonic() - began > _HEALTHY_AFTER else attempt + 1
                await self._recover(error, attempt)
        finally:
            ticking.cancel()
            self._observer.state("stopped", "the daemon was stopped")

    async def _session_error(self, session: Session) -> CdcAuditError | None:
        """How a session ended; stopping while it still connects ends it too."""
        running = asyncio.create_task(session.run())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not session.has_streamed:
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
        if isinstance(error, AnotherDaemonError) and not self._waits:
            raise error
        decision = recovery.after(error, attempt=attempt, jitter=random.random())  # noqa: S311 - not for secrets
        if decision is None:
            self._observer.state("stopped", error.message)
            raise error
        if isinstance(error, AnotherDaemonError):
            self._observer.state("standby", error.message)
        else:
            side = "audit" if error.message.startswith("audit") else "source"
            self._observer.state("waiting", error.message)
            self._observer.warned(
                "connection_lost", side=side, reason=error.message, again_in=round(decision.delay, 1)
            )
            self._observer.reconnected(side)
        try:
            await asyncio.wait_for(self._stopping.wait(), decision.delay)
        except TimeoutError:
            pass

    async def _tick(self) -> None:
        while True:
            self._observer.ticked()
            await asyncio.sleep(_TICK)
