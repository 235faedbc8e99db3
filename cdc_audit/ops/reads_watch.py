"""How the follower of reads is doing: its log lines, metrics and readiness."""

from __future__ import annotations

import time
from collections.abc import Callable

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

from cdc_audit.ops import notify

_LIVE_SECONDS = 60.0


class ReadsWatch:
    """Is told what the follower does (``source.follower.FollowObserver``); says it to whoever asks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._log = structlog.get_logger()
        self._reason: str | None = "starting"
        self._went_round_at = clock()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        registry = self._registry
        self._lines = Counter(
            "cdc_audit_reads_lines_total", "Lines of the log that were looked at.", registry=registry
        )
        self._sent = Counter(
            "cdc_audit_reads_sent_total",
            "Lines about reads that were sent into the source.",
            registry=registry,
        )
        self._gaps = Counter(
            "cdc_audit_reads_gaps_total",
            "Places where lines may be missing; each is a row READ_GAP of the trail.",
            registry=registry,
        )
        self._behind = Gauge(
            "cdc_audit_reads_behind_bytes",
            "Bytes of log files that are not taken; up to 1 MiB without reads may stay so.",
            registry=registry,
        )
        self._ready = Gauge(
            "cdc_audit_reads_ready",
            "1 while the log is followed; 0: /readyz says why not.",
            registry=registry,
        )

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and body of ``/metrics`` for a request's Accept header."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def taken(self, lines: int, sent: int) -> None:
        """Lines were read, and reads among them sent."""
        self._lines.inc(lines)
        self._sent.inc(sent)

    def gap(self, reason: str, file: str, position: int) -> None:
        """Lines may be missing, and a row of the trail says so."""
        self._gaps.inc()
        self._log.warning("read_gap", reason=reason, file=file, position=position)

    def behind(self, size: int) -> None:
        """A round has ended, and so many bytes are waiting."""
        self._behind.set(size)
        self._went_round_at = self._clock()

    def following(self, **facts: object) -> None:
        """The source is connected and the log is followed."""
        self._reason = None
        self._ready.set(1)
        self._log.info("following", **facts)
        notify.status("following the server's log")

    def away(self, reason: str) -> None:
        """The source can't be reached, or refuses work; it is tried again."""
        if self._reason != reason:
            self._log.warning("source_away", reason=reason)
        self._reason = reason
        self._ready.set(0)
        notify.status(reason)

    def informed(self, event: str, **fields: object) -> None:
        """One line of the log."""
        self._log.info(event, **fields)

    def warned(self, event: str, **fields: object) -> None:
        """The same, as a warning."""
        self._log.warning(event, **fields)

    def trying(self) -> None:
        """A sign of life while the source is away."""
        self._went_round_at = self._clock()

    def not_ready(self) -> str | None:
        """Why the log isn't followed at this moment, or None if it is."""
        return self._reason or self.not_live()

    def not_live(self) -> str | None:
        """Why the process should be restarted, or None."""
        silent = self._clock() - self._went_round_at
        return f"the loop has not gone round for {silent:.0f} s" if silent > _LIVE_SECONDS else None
