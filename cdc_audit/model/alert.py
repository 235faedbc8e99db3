"""DDL that an operator should know of: it hides changes of audited tables from the trail, or takes them away."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


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
