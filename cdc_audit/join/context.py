"""What a message says about who acts, and how far it can be believed.

Two forms are understood. A plain JSON object, from ``pg_logical_emit_message(true, 'cdc_audit.context', '{...}')``: any role that
can connect may have sent it, so it is ``asserted``. And what ``cdc_audit.set_context`` in the source sends::

    v1:<key id>:<hex of HMAC-SHA256(key, body)>:<body>

where *body* is a JSON object with ``kind`` (context or event), ``xid`` (pg_current_xact_id(), 64 bits), ``session_user``,
``application_name``, ``client_addr``, ``at``, and for a context ``context``. It is ``signed`` if the signature is right and the
xid's lower 32 bits are the transaction's own, else ``forged``: then nobody's name goes into the user columns, and what was
claimed is kept under the key "claimed".
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from cdc_audit.model.context import NO_CONTEXT, Context, ContextKey, Trust
from cdc_audit.model.jsonb import NotJsonbError, canonical
from cdc_audit.model.lsn import parse_lsn

MAX_BYTES = 8192
MAX_DEPTH = 16
_KEPT_OF_INVALID = 1024  # characters
_SIGNED = "v1:"
# An event outside of a transaction is signed with the WAL position at that moment, and written soon after.
_WAL_WINDOW = 64 * 1024 * 1024
# Room for what set_context adds around a context of MAX_BYTES.
_MAX_SIGNED_BYTES = MAX_BYTES + 4096


# How set_context's bodies begin: jsonb orders keys by length, then bytes.
_OWN = re.compile(r'\{"v": 1, "at": "([0-9T:.+-]+)", "xid": "([0-9]+)", ')
# What contexts said lately, and how that was read: users make more than one transaction.
_KNOWN: dict[tuple[Trust, str, str, bytes], Context] = {}
# The same by what follows the fields that each transaction has of its own, in signed messages that were genuine.
_SIGNED_BEFORE: dict[str, Context] = {}
_MAX_KNOWN = 4096
_MAX_KNOWN_BYTES = 1024


def forget() -> None:
    """Know nothing of earlier contexts. To be called when a session is over: a few things that are kept among many that are freed
    keep the memory of all.
    """
    _KNOWN.clear()
    _SIGNED_BEFORE.clear()
    for known in (_session_mark, inet):
        known.cache_clear()


class Said(NamedTuple):
    """A message's content: how far it can be believed, its fields ({} if it is invalid), and who the server says sent it."""

    trust: Trust
    fields: dict[str, Any]
    raw: str = ""
    db_user: str = ""
    application_name: str = ""
    at: str = ""


def key_id_of(content: str) -> str:
    """The id of the key that a message says it is signed with, or ""."""
    if not content.startswith(_SIGNED):
        return ""
    end = content.find(":", len(_SIGNED))
    return content[len(_SIGNED) : end] if end >= 0 and content.find(":", end + 1) >= 0 else ""


def context_of(content: str, *, xid: int, keys: Mapping[str, ContextKey]) -> Context:
    """``read`` of a context in the transaction ``xid`` (32 bits), then ``to_context``. Users make more than one transaction: of a
    context that was genuine before only signature and transaction are looked at.
    """
    parts = content.split(":", 3) if content.startswith(_SIGNED) else []
    own = _OWN.match(parts[3]) if len(parts) == 4 else None
    if own is None:
        return to_context(read(content, kind="context", xid=xid, keys=keys))
    shared = parts[3][own.end() :]
    context = _SIGNED_BEFORE.get(shared)
    if (
        context is not None
        and int(own[2]) & 0xFFFFFFFF == xid
        and _is_signed(parts[1], parts[2], parts[3], keys)
    ):
        return context
    said = read(content, kind="context", xid=xid, keys=keys)
    context = to_context(said)
    # Said a second time, it would be the later one that counts.
    if context.trust is Trust.SIGNED and '"xid"' not in shared and len(shared) <= _MAX_KNOWN_BYTES:
        if len(_SIGNED_BEFORE) >= _MAX_KNOWN:
            _SIGNED_BEFORE.clear()
        _SIGNED_BEFORE[shared] = context
    return context


def read(content: str, *, kind: str, xid: int | None, keys: Mapping[str, ContextKey], lsn: int = 0) -> Said:
    """What a message of ``kind`` says. ``xid`` is its transaction's (32 bits), or None outside of one: then the message's own
    position ``lsn`` tells a replay. Raises nothing.

    Without any key there is nothing to check a signature with: then a signed message counts as asserted.
    """
    if not content.startswith(_SIGNED):
        fields = _object(content, MAX_BYTES, MAX_DEPTH)
        return Said(Trust.INVALID, {}, content) if fields is None else Said(Trust.ASSERTED, fields)
    parts = content.split(":", 3)
    body = _signed_object(parts[3]) if len(parts) == 4 else None
    if body is None:
        return Said(Trust.INVALID, {}, content)
    fields = body.get("context", {}) if kind == "context" else body
    if not isinstance(fields, dict):
        return Said(Trust.INVALID, {}, content)
    if keys and not _is_genuine(parts[1], parts[2], parts[3], body, kind, xid, lsn, keys):
        return Said(Trust.FORGED, fields)
    trust = Trust.SIGNED if keys else Trust.ASSERTED
    return Said(
        trust, fields, "", _text(body, "session_user"), _text(body, "application_name"), _text(body, "at")
    )


def to_context(said: Said) -> Context:
    """The columns that a context fills. A forged or invalid one names nobody; what it said is kept in ``rest``."""
    if said.trust is Trust.INVALID:
        return Context(Trust.INVALID, rest=_rest({"raw": _printable(said.raw)}))
    fields = dict(said.fields)
    if said.trust is Trust.FORGED:
        return Context(Trust.FORGED, rest=_rest({"claimed": fields}))
    try:
        return _known_columns(said, fields)
    except NotJsonbError:
        raw = orjson.dumps(said.fields).decode("utf-8", "replace")
        return Context(Trust.INVALID, rest=_rest({"raw": _printable(raw)}))


def of_session(said: Said) -> Context:
    """What ``source install --sessions`` says where nobody else said anything: still nobody by name (trust none), but the
    server's word on database user and application; ``rest`` marks it and has the address and how far that is believed.

    A forged or invalid one is what such a context is; one that isn't signed says nothing.
    """
    if said.trust in (Trust.FORGED, Trust.INVALID):
        return to_context(said)
    if not said.db_user:
        return NO_CONTEXT
    mark = _session_mark(said.trust, _text(said.fields, "client_addr"))
    return NO_CONTEXT._replace(rest=mark, db_user=said.db_user, application_name=said.application_name)


@lru_cache(maxsize=1024)
def _session_mark(trust: Trust, address: str) -> str:
    session = {"trust": trust.value} | ({"client_addr": address} if address else {})
    return _rest({"session": session})


def _known_columns(said: Said, fields: dict[str, Any]) -> Context:
    text = orjson.dumps(fields)
    key = said.trust, said.db_user, said.application_name, text
    context = _KNOWN.get(key)
    if context is None:
        context = _columns(said, fields)
        if len(text) <= _MAX_KNOWN_BYTES:
            if len(_KNOWN) >= _MAX_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = context
    return context


def _columns(said: Said, fields: dict[str, Any]) -> Context:
    user_id = _take(fields, "user_id")
    email = _take(fields, "user_email")
    if not email:
        email = _take(fields, "email")
    address = fields.get("ip_address")
    ip_address = inet(address) if isinstance(address, str) else ""
    if ip_address:
        del fields["ip_address"]
    user_agent = _take(fields, "user_agent")
    rest = canonical(orjson.dumps(fields)).decode() if fields else ""
    return Context(
        said.trust, user_id, email, ip_address, user_agent, rest, said.db_user, said.application_name
    )


@lru_cache(maxsize=4096)
def inet(text: str) -> str:
    """The text that PostgreSQL's inet prints for an address or network, or "" if it would not take it."""
    if "%" in text:
        return ""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return ""
    address = interface.ip
    shown = str(address)
    if (
        isinstance(address, ipaddress.IPv6Address)
        and int(address) >= 0x10000
        and int(address) >> 32 in (0, 0xFFFF)
    ):
        # IPv4-compatible and IPv4-mapped addresses end in dotted form (inet_net_ntop)
        prefix = "::ffff:" if int(address) >> 32 else "::"
        shown = f"{prefix}{ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)}"
    length = interface.network.prefixlen
    return shown if length == address.max_prefixlen else f"{shown}/{length}"


def _is_genuine(
    key_id: str,
    signature: str,
    body_text: str,
    body: dict[str, Any],
    kind: str,
    xid: int | None,
    lsn: int,
    keys: Mapping[str, ContextKey],
) -> bool:
    if not _is_signed(key_id, signature, body_text, keys) or body.get("kind") != kind:
        return False
    said_xid = body.get("xid")
    if xid is None:
        try:
            return said_xid is None and 0 <= lsn - parse_lsn(_text(body, "wal")) <= _WAL_WINDOW
        except ValueError:
            return False
    return isinstance(said_xid, str) and said_xid.isdigit() and int(said_xid) & 0xFFFFFFFF == xid


def _is_signed(key_id: str, signature: str, body_text: str, keys: Mapping[str, ContextKey]) -> bool:
    key = keys.get(key_id)
    if key is None:
        return False
    inner = sha256(key.inner_pad + body_text.encode()).digest()
    expected = sha256(key.outer_pad + inner).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


def _signed_object(text: str) -> dict[str, Any] | None:
    """The body of a signed message: printed by jsonb, so without repeated keys, and mostly without fractions."""
    if len(text) > MAX_BYTES or "\\u" in text or text.count("{") + text.count("[") > MAX_DEPTH:
        return _object(text, _MAX_SIGNED_BYTES, MAX_DEPTH + 1)
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
    if not isinstance(value, dict) or _holds_float(value):
        return _object(text, _MAX_SIGNED_BYTES, MAX_DEPTH + 1)
    return value


def _holds_float(value: dict[str, Any] | list[Any]) -> bool:
    """Whether orjson has put a number through a double: one with a fraction or exponent, or beyond 64 bits."""
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is float or ((kind is dict or kind is list) and _holds_float(item)):
            return True
    return False


def _object(text: str, max_bytes: int, max_depth: int) -> dict[str, Any] | None:
    """The JSON object, or None if it isn't one, is too large or too deep, repeats a key, or holds what jsonb can't.

    Numbers that a float or a 64-bit integer might change stay as their text (orjson.Fragment).
    """
    if len(text) > max_bytes or len(text.encode("utf-8", "replace")) > max_bytes:
        return None
    if text.count("{") + text.count("[") > max_depth and _depth(text) > max_depth:
        return None
    try:
        if "\\u" in text:  # the only way in for NUL and lone surrogates
            canonical(text)
        value = json.loads(
            text,
            parse_float=orjson.Fragment,
            parse_int=_integer,
            parse_constant=_refuse,
            object_pairs_hook=_unique,
        )
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _integer(text: str) -> int | orjson.Fragment:
    return int(text) if len(text) < 18 else orjson.Fragment(text)


def _refuse(_: str) -> None:
    raise ValueError("not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    return fields


def _depth(text: str) -> int:
    """The nesting of a JSON text, counted without parsing it; characters inside strings don't count."""
    depth = deepest = 0
    inside = escaped = False
    for char in text:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _take(fields: dict[str, Any], key: str) -> str:
    """The scalar under a key, as text, and out of the fields; "" if there is none or it isn't a scalar."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    text = str(value)
    if text:
        del fields[key]
    return text


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _rest(fields: dict[str, Any]) -> str:
    try:
        return canonical(orjson.dumps(fields)).decode()
    except (NotJsonbError, TypeError):
        return '{"raw": ""}'


def _printable(text: str) -> str:
    """At most the first kilobyte of a text, without what jsonb can't hold."""
    return text[:_KEPT_OF_INVALID].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
