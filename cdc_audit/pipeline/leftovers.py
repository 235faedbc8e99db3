"""What an earlier session of this daemon left at the servers that have not missed its connections yet.

The server of a half-open connection goes on holding the ledger's lock, or the slot, until its keepalives have told (25 s) or the
walsender's patience is over (a minute). The daemon knows its own by number and start, and ends them; nobody else's, and none that
commits.
"""

from __future__ import annotations

from cdc_audit.errors import AnotherDaemonError, UnavailableError
from cdc_audit.postgres import Backend
from cdc_audit.sink.sink import Sink
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.stream import Stream


class Leftovers:
    """Backends of this daemon that may have the lock or the slot; one for all its sessions."""

    def __init__(self) -> None:
        self._audit: list[Backend] = []
        self._stream: Backend | None = None

    async def lock(self, writer: Sink) -> None:
        """Become the ledger's one writer. Raises AnotherDaemonError; UnavailableError while an earlier session still commits."""
        mine = [writer.backend] if writer.backend else []
        earlier = self._audit
        self._audit = earlier + mine  # an answer that is lost may have been yes
        if not await writer.try_lock():
            ended = [await writer.end_backend(backend) for backend in earlier]
            if True not in ended or not await writer.try_lock():
                self._audit = earlier
                if False in ended:
                    raise UnavailableError(
                        "audit database: this daemon's last session there is still at work"
                    )
                raise AnotherDaemonError(
                    "another daemon writes this ledger", remedy="none: this one takes over when it ends"
                )
        self._audit = mine

    async def free_slot(self, sidecar: Sidecar, stream: Stream) -> None:
        """End the walsender of an earlier session, if there still is one: ``stream`` is to have the slot now."""
        if self._stream is not None:
            await sidecar.end_backend(self._stream)
        self._stream = stream.backend
