"""A rule of what is suspicious: what the daemon looks for as rows pass, and ``cdc-audit suspicious`` in the stored trail."""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SuspiciousRule(BaseModel):
    """One entry of ``[[suspicious.rules]]``: more than ``limit`` rows within ``span`` seconds is a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bulk", "deletions", "reads", "new_address", "outside_hours", "no_context", "ddl"] = Field(
        description="many rows of a user, table and action; many DELETE and TRUNCATE of a user; many events SELECT and READ of "
        "a user; a user's row from an address that is new for that user; a user's rows out of hours; rows without a context; DDL",
        examples=["bulk"],
    )
    name: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_]{0,40})?$",
        description="what the rule is called in alerts and metrics; empty: its kind",
        examples=["bulk_orders"],
    )
    table: str = Field(
        default="*.*",
        pattern=r"^[^.]+\.[^.]+$",
        description="schema.table, * as wildcard: the rows that count",
        examples=["shop.*"],
    )
    threshold: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="bulk, deletions, reads: more rows than this; of the others one is enough",
        examples=[100],
    )
    window: int = Field(
        default=0,
        ge=0,
        le=31_622_400,
        description="within so many seconds; of new_address: how long an address is known. 0: an hour, of new_address 90 days",
        examples=[3600],
    )
    hours: str = Field(
        default="07:00-19:00",
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$",
        description="outside_hours: when work is usual",
        examples=["07:00-19:00"],
    )
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=("mon", "tue", "wed", "thu", "fri"),
        description="outside_hours: on which days",
        examples=[["mon", "tue", "wed", "thu", "fri"]],
    )
    time_zone: str = Field(
        default="UTC", description="outside_hours: by whose clock", examples=["Europe/Berlin"]
    )
    ignore_users: tuple[str, ...] = Field(
        default=(), description="user ids whose rows don't count", examples=[["nightly-import"]]
    )

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.kind

    @property
    def limit(self) -> int:
        """More rows than this are a finding."""
        return self.threshold if self.kind in {"bulk", "deletions", "reads"} else 0

    @property
    def span(self) -> int:
        """The window in seconds."""
        return self.window or (90 * 86_400 if self.kind == "new_address" else 3600)

    @model_validator(mode="after")
    def _has_a_time(self) -> Self:
        begin, end = self.hours.split("-")
        if begin >= end:
            raise ValueError("hours must end later than they begin, on the same day: 07:00-19:00")
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise ValueError("time_zone is not known: say UTC, or a name like Europe/Berlin") from None
        return self
