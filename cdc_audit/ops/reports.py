"""What ``ops.watch`` reads of ``pipeline.observer``'s reports, since siblings don't import each other.

The type checker holds both together, wherever a ``Watch`` is given to the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Counts(Protocol):
    """The side of ``BlockCounts`` that is read here."""

    @property
    def transactions(self) -> int: ...  # noqa: D102 - see there
    @property
    def rows_by_action(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def rows_by_trust(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def suppressed_by_table(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def untrusted_by_table(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def redacted_values(self) -> int: ...  # noqa: D102


class Slot(Protocol):
    """The side of ``SlotState`` that is read here."""

    @property
    def active(self) -> bool: ...  # noqa: D102 - see there
    @property
    def wal_status(self) -> str: ...  # noqa: D102
    @property
    def lag_bytes(self) -> int: ...  # noqa: D102
    @property
    def retained_bytes(self) -> int: ...  # noqa: D102
    @property
    def safe_wal_bytes(self) -> int | None: ...  # noqa: D102
    @property
    def confirmed_flush_lsn(self) -> int: ...  # noqa: D102
    @property
    def tables_without_identity(self) -> int: ...  # noqa: D102
