"""What the pipeline writes to, wherever the trail is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cdc_audit.config import Audit
from cdc_audit.model.ledger import Block, Receipt
from cdc_audit.postgres import Backend
from cdc_audit.seal.signature import Signer
from cdc_audit.sink.lake import LakeWriter
from cdc_audit.sink.writer import Writer


class Sink(Protocol):
    """What ``writer.Writer`` and ``lake.LakeWriter`` have in common; see there."""

    @property
    def backend(self) -> Backend | None: ...  # noqa: D102
    async def try_lock(self) -> bool: ...  # noqa: D102
    async def end_backend(self, backend: Backend) -> bool | None: ...  # noqa: D102
    def look(self) -> None: ...  # noqa: D102
    async def ping(self) -> None: ...  # noqa: D102
    async def last_block(self) -> tuple[Block, bytes] | None: ...  # noqa: D102
    async def details(self, kinds: Sequence[str]) -> list[tuple[int, str, dict[str, Any]]]: ...  # noqa: D102
    async def write(self, lines: bytes, month: str, openings: bytes = b"") -> None: ...  # noqa: D102
    async def commit(self, block: Block, block_hash: bytes) -> Receipt: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


async def open_sink(audit: Audit, *, application_name: str, signer: Signer | None) -> Sink:
    """Open what ``[audit] kind`` says. Raises SettingError, NotPermittedError, UnavailableError."""
    if audit.kind == "iceberg":
        return await LakeWriter.open(audit.catalog, audit.audit_schema, signer=signer)
    return await Writer.open(audit.dsn, audit.audit_schema, application_name=application_name, signer=signer)
