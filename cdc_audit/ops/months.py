"""What months need, made beside the daemon's work on a connection of its own: look-up indexes when they are over, digests of the
rows of those that are not, and to be counted.
"""

from __future__ import annotations

import asyncio
import time

from cdc_audit.errors import CdcAuditError
from cdc_audit.ops.tiers import survey
from cdc_audit.ops.watch import Watch
from cdc_audit.postgres import connect_async
from cdc_audit.schema.partitions import build_index, digest_some_rows

_INTERVAL_S = 600.0
_PATIENCE_S = 60.0  # a start has other work


async def tend(
    dsn: str,
    schema: str,
    watch: Watch,
    *,
    hot: int,
    first_after: float = _PATIENCE_S,
    interval: float = _INTERVAL_S,
) -> None:
    """Every ten minutes count what is where (``hot``: months after which one is due to go), look for what is missing and make it;
    each index is told. Runs until it is cancelled, which ends a building.

    What can't be done now is told and tried again: questions are slower meanwhile, and nothing else.
    """
    await asyncio.sleep(first_after)
    while True:
        try:
            async with await connect_async(
                dsn, side="audit", application_name="cdc-audit index"
            ) as connection:
                watch.surveyed(await survey(connection, schema, hot))
                began = time.monotonic()
                while name := await build_index(connection, schema):
                    watch.informed("index_built", index=name, seconds=round(time.monotonic() - began, 1))
                    began = time.monotonic()
                while await digest_some_rows(connection, schema):
                    pass
        except CdcAuditError as error:
            watch.informed("index_postponed", reason=error.message)
        await asyncio.sleep(interval)
