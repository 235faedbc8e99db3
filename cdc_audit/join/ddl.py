"""DDL, as the event triggers of a hardened source tell it (``source.hardening``): rows of the trail, and what of it hides changes.

Content as for contexts (``join.context``), with ``event`` (ddl_command_end, sql_drop, table_rewrite), ``tag``, ``object_type``,
``identity``, ``schema`` and ``table`` (the one concerned, if there is one); of a table also ``persistence``,
``replica_identity``, ``has_identity``, ``root`` ([schema, table], of a partition), ``context_trigger`` and ``session_trigger``
(true where one says who acts, ``source install --guc``, or whose session it is, ``--sessions``), and under ``was`` those of
them that the command changed; of a rewrite its ``reason``. Never the query's text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from cdc_audit.join import context as read_context
from cdc_audit.join.event import ReadEvent
from cdc_audit.model.alert import AlertKind, DdlAlert
from cdc_audit.model.context import ContextKey, Trust
from cdc_audit.model.event import ApplicationEvent
from cdc_audit.model.jsonb import NotJsonbError, canonical

ACTION = "DDL"
# What has a column of its own, or is of use for the signature only.
_NOT_DATA = frozenset({"v", "kind", "xid", "at", "session_user", "application_name", "schema", "table"})

# Whether a table is audited that goes by these names: its own, and its root's (``decode.scope.Scope.covers``).
Covers = Callable[..., bool]


def read_ddl(content: str, *, xid: int | None, keys: Mapping[str, ContextKey]) -> ReadEvent:
    """The DDL in a message. ``trust`` in its data says how far the message itself can be believed.

    A forged one names no object, what it claimed is kept; of one that can't be read the text is kept, as an invalid context.
    """
    said = read_context.read(content, kind="ddl", xid=xid, keys=keys)
    fields = said.fields
    schema, table = _names(fields)
    data: dict[str, Any] = {
        key: value for key, value in fields.items() if key not in _NOT_DATA and value is not None
    }
    if said.trust is Trust.FORGED:
        schema, table, data = "", "", {"claimed": fields}
    text = b""
    if said.trust is not Trust.INVALID:
        try:
            text = canonical(orjson.dumps({**data, "trust": said.trust.value}))
        except NotJsonbError:
            pass
    if not text:
        invalid = read_context.to_context(read_context.Said(Trust.INVALID, {}, content))
        return ReadEvent(ApplicationEvent(ACTION, "", "", b""), invalid, Trust.INVALID)
    event = ApplicationEvent(ACTION, table, "", text, schema)
    return ReadEvent(event, None, said.trust, said.db_user, said.application_name)


def alerts(event: ApplicationEvent, covers: Covers) -> list[DdlAlert]:
    """What of a DDL event hides changes of audited tables from the trail, or takes them away. Raises nothing."""
    # Numbers say nothing here, and anybody may have sent some that are too long for a parser.
    data = json.loads(event.data, parse_int=str, parse_float=str) if event.data else {}
    was = data.get("was")
    was = was if isinstance(was, dict) else {}
    schema = event.schema or ""
    before = (_text(was.get("schema")) or schema, _text(was.get("table")) or event.table)
    was_covered = covers(before, *_root(was["root"] if "root" in was else data.get("root")))
    is_covered = covers((schema, event.table), *_root(data.get("root")))
    kinds: list[AlertKind] = []
    if "untold" in data or "omitted" in data:
        kinds.append(AlertKind.UNTOLD)
    elif data.get("event") == "sql_drop" and data.get("object_type") == "table" and "persistence" not in data:
        kinds += [AlertKind.DROPPED_TABLE] * was_covered
    elif data.get("event") == "sql_drop" and data.get("object_type") == "trigger":
        kinds += [AlertKind.DROPPED_TRIGGER] * is_covered
    elif data.get("event") == "table_rewrite":
        kinds += [AlertKind.REWRITE] * (is_covered and data.get("reason") != ["persistence"])
    elif was_covered:
        kinds += _lost(data, was, is_covered=is_covered)
    return [DdlAlert(kind, ".".join(before) if before[1] else "", _text(data.get("tag"))) for kind in kinds]


def _lost(data: Mapping[str, Any], was: Mapping[str, Any], *, is_covered: bool) -> list[AlertKind]:
    """What an audited table has lost by a change of its facts."""
    kinds = [] if is_covered else [AlertKind.RENAME_OUT_OF_SCOPE]
    if was.get("persistence") == "permanent" and data.get("persistence") == "unlogged":
        kinds.append(AlertKind.UNLOGGED)
    lost_identity = was.get("has_identity") is True and data.get("has_identity") is False
    if lost_identity or was.get("replica_identity") == "full":
        kinds.append(AlertKind.REPLICA_IDENTITY)
    if was.get("context_trigger") is True or was.get("session_trigger") is True:
        kinds.append(AlertKind.DROPPED_TRIGGER)
    return kinds


def _names(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Schema and table concerned; without a table the object's own name, as its identity spells it."""
    schema, table = _text(fields.get("schema")), _text(fields.get("table"))
    identity = _text(fields.get("identity"))
    quoted = '"' + schema.replace('"', '""') + '"'
    return schema, table or identity.removeprefix(f"{schema}.").removeprefix(f"{quoted}.")


def _root(root: object) -> list[tuple[str, str]]:
    return [(_text(root[0]), _text(root[1]))] if isinstance(root, list) and len(root) == 2 else []


def _text(value: object) -> str:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else ""
