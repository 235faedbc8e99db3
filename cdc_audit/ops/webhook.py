"""Alerts to a URL: one POST of JSON each. It never holds anything up: what does not fit into its queue is dropped, and counted.

The body is an object with the keys source, rule, kind, table, action, rows, at, block, and, where the configuration says so, user
and address; "" where a rule does not keep them apart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import orjson

from cdc_audit import remote
from cdc_audit.model.alert import SuspiciousAlert

_MOST_WAITING = 1000
_LIMIT = 15.0  # seconds for an attempt, name look-up included
_PAUSES = (1.0, 5.0)  # seconds before the second and the third attempt
_LAST = 5.0  # seconds for what still waits at the stop


class Webhook:
    """``offer`` alerts; ``run`` sends them, in order, until it is cancelled. Without a URL nobody wants any."""

    def __init__(self, url: str, *, token_file: str, source: str, name_users: bool) -> None:
        self._source = source
        self.use(url, token_file=token_file, name_users=name_users)
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    def use(self, url: str, *, token_file: str, name_users: bool) -> None:
        """From the next attempt on; alerts that wait stay as they are."""
        self._url = url
        self._token_file = token_file
        self._name_users = name_users

    def offer(self, alert: SuspiciousAlert) -> bool:
        """Whether there was room for it."""
        if not self._url:
            return True
        if len(self._waiting) >= _MOST_WAITING:
            return False
        said = alert._asdict()
        if not self._name_users:
            del said["user"], said["address"]
        self._waiting.append(orjson.dumps({"source": self._source, **said}))
        self._arrived.set()
        return True

    async def run(self, failed: Callable[[str], None]) -> None:
        """Send for ever. ``failed`` is told why an alert was given up."""
        while True:
            while self._waiting:
                reason = await self._send(self._waiting[0], _PAUSES)
                self._waiting.popleft()
                if reason is not None:
                    failed(reason)
            self._arrived.clear()
            await self._arrived.wait()

    async def close(self, failed: Callable[[str], None]) -> None:
        """Send what still waits, for a moment; ``run`` has ended."""
        try:
            async with asyncio.timeout(_LAST):
                while self._waiting and await self._send(self._waiting[0], ()) is None:
                    self._waiting.popleft()
        except TimeoutError:
            pass
        for _ in self._waiting:
            failed("not sent before the stop")
        self._waiting.clear()

    async def _send(self, body: bytes, pauses: tuple[float, ...]) -> str | None:
        """Why all attempts failed, None if one did not."""
        reason = await self._attempt(body)
        for pause in pauses:
            if reason is None:
                return None
            await asyncio.sleep(pause)
            reason = await self._attempt(body)
        return reason

    async def _attempt(self, body: bytes) -> str | None:
        url, token_file = self._url, self._token_file
        if not url:
            return "taken out of the configuration"

        def post() -> None:
            with remote.http_answer(url, method="POST", token_file=token_file, body=body):
                pass

        try:
            async with asyncio.timeout(_LIMIT):
                return await remote.attempt(post, "webhook")
        except TimeoutError:
            return f"no answer within {_LIMIT:.0f} s"
        except RuntimeError as error:
            return type(error).__name__
