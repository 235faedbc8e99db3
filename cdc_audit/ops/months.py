"""The look-up indexes of months that are over, built beside the daemon's work on a connection of their own."""

from __future__ import annotations

import asyncio
import time

from cdc_audit.errors import CdcAuditError
from cdc_audit.ops.watch import Watch
from cdc_audit.postgres import connect_async
from cdc_audit.schema.partitions import build_index

_INTERVAL_S = 3600.0
_PATIENCE_S = 60.0  # a start has other work


async def tend(
    dsn: str, schema: str, watch: Watch, *, first_after: float = _PATIENCE_S, interval: float = _INTERVAL_S
) -> None:
    """Look for missing indexes once an hour and build them; each is told. Runs until it is cancelled, which ends a building.

    What can't be done now is told and tried again: questions are slower meanwhile, and nothing else.
    """
    await asyncio.sleep(first_after)
    while True:
        try:
            async with await connect_async(
                dsn, side="audit", application_name="cdc-audit index"
            ) as connection:
                began = time.monotonic()
                while name := await build_index(connection, schema):
                    watch.informed("index_built", index=name, seconds=round(time.monotonic() - began, 1))
                    began = time.monotonic()
        except CdcAuditError as error:
            watch.informed("index_postponed", reason=error.message)
        await asyncio.sleep(interval)
