"""Doctor's checks of the source's tables: what of their changes can be captured."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import Identifier

from cdc_audit.decode.scope import Scope
from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.seal.redact import Redaction
from cdc_audit.source import publication, tables
from cdc_audit.source.tables import TableState

_MOST_NAMED = 10
_IN_STEP = "cdc-audit source tables"


def in_scope(session: Session) -> Outcome:
    """The patterns select something."""
    found = _tables(session)
    if not found:
        source = session.config.source
        return Outcome(
            "warn",
            f"no table matches {', '.join(source.tables)} (but for {', '.join(source.exclude) or 'none'})",
            "correct the patterns (schema.table, * as wildcard), unless the tables are still to be made",
        )
    return Outcome("ok", f"{len(found)} tables are in scope")


def identity(session: Session) -> Outcome:
    """UPDATE and DELETE say which row they changed."""
    found = [state for state in tables.without_identity(_tables(session)) if state.persistence == "permanent"]
    if found:
        return Outcome(
            "warn",
            f"UPDATE and DELETE can't be captured (only that they happened) of {_named(found)}",
            _set_full(found),
        )
    return Outcome("ok", "UPDATE and DELETE can be captured of all tables in scope")


def full_images(session: Session) -> Outcome:
    """UPDATE and DELETE say what was there before."""
    found = [
        state
        for state in _tables(session)
        if state.kind == "table" and state.can_capture_changes and not state.can_capture_old
    ]
    if found:
        return Outcome(
            "info",
            f"old_data holds the key only, and changed_fields is null, for {_named(found)}",
            _set_full(found),
        )
    return Outcome("ok", "old_data holds the whole old row for all tables in scope that can be captured")


def unlogged(session: Session) -> Outcome:
    """Every table in scope is in the WAL."""
    found = [state for state in _tables(session) if state.persistence == "unlogged"]
    if found:
        return Outcome("warn", f"nothing can be captured of unlogged {_named(found)}", _set_logged(found))
    return Outcome("ok", "no table in scope is unlogged")


def partitioned(session: Session) -> Outcome:
    """Rows of a partitioned table are all on this server."""
    source = session.config.source
    scope = Scope(source.tables, source.exclude)
    rows = session.rows("source", "foreign_partitions")
    found = [row.leaf for row in rows if scope.covers((row.root_schema, row.root_table))]
    if found:
        return Outcome(
            "warn",
            f"partitions that are foreign tables, whose changes are in another server's WAL: {', '.join(found[:_MOST_NAMED])}",
            "audit the server that holds them, by a daemon of its own",
        )
    roots = sum(state.kind == "partitioned" for state in _tables(session))
    return Outcome("ok", f"all partitions of the {roots} partitioned tables in scope are on this server")


def personal_keys(session: Session) -> Outcome:
    """No value that is to be erased one day names a record."""
    redact = session.config.redact
    redaction = Redaction(redact.rules)
    found = [
        f"{state.name} ({column})"
        for state in _tables(session)
        for column in state.primary_key
        if redaction.mode(state.schema, state.table, column) == "personal"
    ]
    if found and not redact.hmac_key_file:
        named = ", ".join(found[:_MOST_NAMED])
        return Outcome(
            "info",
            f"keys name their records in every row and can't be erased: mode personal leaves them as they are, in {named}",
            "let [redact] hmac_key_file name a key, and they are hashed; or give them the mode keep",
        )
    return Outcome("ok", "no key is personal and readable")


def publications(session: Session) -> Outcome:
    """What pgoutput sends, the publications hold: they are in step with the tables, and no application's UPDATE fails for them."""
    source = session.config.source
    if source.plugin != "pgoutput":
        return Outcome("ok", f"{source.plugin} needs no publication")
    found = publication.state(session.source, source.slot, source.tables, source.exclude)
    if found.refusing:
        names = ", ".join(found.refusing[:_MOST_NAMED])
        return Outcome("fail", f"the server refuses the application's UPDATE and DELETE on {names}", _IN_STEP)
    out_of_step = [*found.absent, *found.missing, *found.movable]
    if out_of_step:
        names = ", ".join(out_of_step[:_MOST_NAMED])
        return Outcome("fail", f"the publications are out of step, changes are not sent: {names}", _IN_STEP)
    return Outcome("ok", "the publications are in step with the tables in scope")


def coverage_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    there = ("source_reachable",)
    return [
        Check("tables_in_scope", "source", in_scope, there),
        Check("tables_without_identity", "source", identity, there),
        Check("tables_without_full_images", "source", full_images, there),
        Check("tables_unlogged", "source", unlogged, there),
        Check("tables_partitioned", "source", partitioned, there),
        Check("personal_keys", "source", personal_keys, there),
        Check("publications", "source", publications, there),
    ]


def _tables(session: Session) -> list[TableState]:
    source = session.config.source
    return tables.tables(session.source, source.tables, source.exclude)


def _named(states: Sequence[TableState]) -> str:
    listed = ", ".join(state.name for state in states[:_MOST_NAMED])
    more = f" and {len(states) - _MOST_NAMED} more" if len(states) > _MOST_NAMED else ""
    return f"{len(states)} {'table' if len(states) == 1 else 'tables'}: {listed}{more}"


def _set_logged(states: Sequence[TableState]) -> str:
    names = (Identifier(state.schema, state.table).as_string() for state in states[:_MOST_NAMED])
    return "\n".join(f"alter table {name} set logged;" for name in names)


def _set_full(states: Sequence[TableState]) -> str:
    return "\n".join(f"cdc-audit source tables --set-full '{state.name}'" for state in states[:_MOST_NAMED])
