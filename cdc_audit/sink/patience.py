"""Waiting for the audit database: for as long as it is at work, but not for one that does not hear what it is asked.

A COMMIT may wait for a lock, a full disk's administrator or a synchronous standby without end, and giving it up would help nobody.
A half-open connection looks the same from here. The server knows which it is, and another connection asks it: a backend that
waits for its client, which waits for it, never got what was sent, or its answer is lost. Unless it is only slow on its way: then
the backend has taken in more of an open COPY from one question to the next (``pg_stat_progress_copy``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from cdc_audit.errors import CdcAuditError, UnavailableError
from cdc_audit.postgres import ANSWER_LIMIT, PromptConnection, answered, connect_async
from cdc_audit.sink import ledger

_ASK_LIMIT = 3.0  # seconds for the other connection and its answer
_ASK_AGAIN = 2.0


class Patience:
    """``dsn`` is what ``connection`` was opened with; one wait at a time."""

    def __init__(self, connection: PromptConnection, dsn: str, schema: str) -> None:
        self._connection = connection
        self._dsn = connection.address(dsn)
        self._schema = schema
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._is_deaf = False
        self._copied: int | None = None  # bytes, when it was last asked

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """Around what is waited for; call what it gives after each step. Breaks the connection off if the server doesn't hear it:
        UnavailableError.
        """
        self._renew()
        try:
            yield self._renew
        except psycopg.OperationalError as error:
            if self._is_deaf:
                raise UnavailableError(
                    f"audit database: no answer within {ANSWER_LIMIT:.0f} s, and its server works on none"
                ) from error
            raise
        finally:
            self._rest()

    def _renew(self) -> None:
        self._rest()
        self._copied = None
        self._timer = asyncio.get_running_loop().call_later(ANSWER_LIMIT, self._begin_to_ask)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _begin_to_ask(self) -> None:
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        if await self._is_at_work():
            self._timer = asyncio.get_running_loop().call_later(_ASK_AGAIN, self._begin_to_ask)
        else:
            self._is_deaf = True
            self._connection.hang_up()

    async def _is_at_work(self) -> bool:
        """True, too, where the server answers, but not that: it may take no more connections, or none of the role's."""
        other = None
        try:
            async with answered("audit", _ASK_LIMIT):
                other = await connect_async(self._dsn, side="audit", application_name="cdc-audit patience")
                asked = ledger.statement("is_at_work", self._schema), (self._connection.info.backend_pid,)
                row = await (await other.execute(*asked)).fetchone()
            is_busy, copied = row or (False, None)
            before, self._copied = self._copied, copied
            return bool(is_busy) or copied != before
        except (UnavailableError, psycopg.OperationalError) as error:
            return "FATAL" in str(error)  # the server's word, where libpq gives no SQLSTATE
        except CdcAuditError:
            return True
        finally:
            if other is not None:
                await other.close()
