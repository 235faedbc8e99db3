"""What is suspicious, and who is told: by the daemon as rows pass, and by ``cdc-audit suspicious`` of the stored trail."""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdc_audit.model.anchor import HttpTarget, parse_target


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


class Suspicious(BaseModel):
    """``[suspicious]``: what the daemon raises an alert for as rows pass, and what cdc-audit suspicious looks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook: str = Field(
        default="",
        description="each alert is also POSTed there, as JSON",
        examples=["https://alerts.example.org/cdc-audit"],
    )
    webhook_token_file: str = Field(
        default="",
        description="the bearer token for it; read each time",
        examples=["/etc/cdc-audit/webhook-token"],
    )
    name_users: bool = Field(
        default=False,
        description="name the user, and of new_address the address, in the log's line and to the webhook; "
        "else only cdc-audit suspicious does",
    )
    rules: tuple[SuspiciousRule, ...] = Field(
        default=(), description="what is suspicious; no rule: nothing is"
    )

    @field_validator("webhook")
    @classmethod
    def _is_http(cls, value: str) -> str:
        try:
            is_http = not value or isinstance(parse_target(value), HttpTarget)
        except ValueError:
            is_http = False
        if not is_http:
            raise ValueError(
                "must be https://host/path, without user or password; http:// on this machine only"
            )
        return value

    @field_validator("rules")
    @classmethod
    def _are_told_apart(cls, value: tuple[SuspiciousRule, ...]) -> tuple[SuspiciousRule, ...]:
        labels = [rule.label for rule in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two rules are called {label}: give each a name of its own")
        return value
