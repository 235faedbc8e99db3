"""What an operator should know of: DDL that hides changes of audited tables from the trail, or takes them away, and what the
configuration calls suspicious.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias


class AlertKind(StrEnum):
    """What DDL has done; also the value of the metric's label."""

    REPLICA_IDENTITY = "replica_identity"  # no longer FULL, or no longer any
    UNLOGGED = "unlogged"
    REWRITE = "rewrite"
    RENAME_OUT_OF_SCOPE = (
        "rename_out_of_scope"  # also: moved to another schema, or detached from a root in scope
    )
    DROPPED_TRIGGER = "dropped_trigger"  # also: the one that says who acts was disabled
    DROPPED_TABLE = "dropped_table"
    UNTOLD = "untold"  # the event trigger could not say what the command did
    EVENT_TRIGGER = (
        "event_trigger"  # ours were dropped, disabled or altered: noticed by looking, not by a message
    )


class DdlAlert(NamedTuple):
    """``table`` is ``schema.table`` as it was called before, or ""; ``what`` is the command's tag, e.g. ALTER TABLE, or what
    happened to which event triggers.
    """

    kind: AlertKind
    table: str
    what: str


# What a rule may ask about rows, never their values: the commit time in UTC, to the second (2026-11-22 19:19:02); the user id, or
# else the e-mail address unless that is personal; the address; whether there is a context; schema.table; the action. "" stands
# for null. A plain tuple: there is one for each small transaction.
Fact: TypeAlias = tuple[str, str, str, bool, str, str]


class SuspiciousAlert(NamedTuple):
    """A rule's finding begins. Of ``user``, ``address``, ``table`` and ``action`` those are "" that the rule does not keep apart.

    ``rows``: how many lay within the window so far; ``at`` is the commit time in UTC, to the second; ``block`` holds the row that
    was one too many.
    """

    rule: str
    kind: str
    user: str
    address: str
    table: str
    action: str
    rows: int
    at: str
    block: int
