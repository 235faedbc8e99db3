"""Which values never reach the trail: those named like secrets, and what the rules say.

Names are split into words at ``_``, ``-``, spaces and changes of case: ``userPassword`` and ``user_password`` hold the word
"password", ``compassion`` does not. PostgreSQL folds names that aren't quoted, so a few words count inside a longer one too:
``userpassword``, ``accesstoken``. The last rule that matches a column decides; a rule ``keep`` overrides the names.

Keys inside JSON (json, jsonb, composites, arrays of them, contexts, events' data) are names, too, at any depth. A string in there
that is itself the text of JSON with such a key is masked whole: it may be what jsonb can't hold. Text columns aren't looked into.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import orjson

from cdc_audit.config import RedactRule
from cdc_audit.model.context import Context, Trust
from cdc_audit.model.event import Shape
from cdc_audit.model.pattern import glob, table_glob

# A value's JSON token -> what the trail has instead. Never called for ``null``.
Rewrite: TypeAlias = Callable[[bytes], bytes]
Mode: TypeAlias = Literal["keep", "mask", "hmac", "personal", "drop"]

REDACTED = b'"[redacted]"'
# 128 bits: no two values of a database share them by accident, and nobody can search for a value without the key.
_HMAC_DIGITS = 32

_WORDS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "pass",
        "secret",
        "secrets",
        "token",
        "tokens",
        "credential",
        "credentials",
    }
    | {"otp", "totp", "mfa", "cvv", "cvc", "cvv2", "pin", "ssn", "apikey"}
)
_PHRASES = ("api_key", "private_key", "access_key", "card_number", "card_no", "secret_key", "credit_card")
_IN_A_WORD = re.compile(
    r"password|passwd|pwd|passphrase|credential|(api|private|access|secret)key|cardnumber|creditcard|(secret|token)s?$"
)
_SPLIT = re.compile(r"[^0-9A-Za-z]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# One of these stands in every secret's name. The last one: a JSON text inside a string may write a key with escapes.
STEMS = tuple(b"pass pwd secret token credential otp mfa cvv cvc pin ssn key card \\u".split())
_STEM = re.compile(b"|".join(map(re.escape, STEMS)))
# In the text that jsonb prints, a string that ``: `` follows is a key. Possessive: a string may be many megabytes.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(: )?')
_KEY = re.compile(rb'"([^"]*+)": ')
_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]')
_SCALAR_END = re.compile(rb"[,}\]]")
_KEY_IN_TEXT = re.compile(r'"([^"\\]*+)\\*+"\s*+:')
_ESCAPE = re.compile(r"\\+u([0-9A-Fa-f]{4})")

# Keys that are no secrets' names: documents have the same few over and over.
_INNOCENT: set[bytes] = set()
_MAX_INNOCENT = 10_000
_MAX_INNOCENT_BYTES = 100


class Redaction(NamedTuple):
    """What is redacted besides what names tell. ``hmac_key`` is there if a rule's mode is ``hmac``.

    ``personal_context`` names what is personal in contexts (``cdc_audit.seal.personal``).
    """

    rules: tuple[RedactRule, ...] = ()
    hmac_key: bytes = b""
    personal_context: tuple[str, ...] = ()

    def mode(self, schema: str, table: str, column: str) -> Mode | None:
        """What happens to a column's values; None where neither its name nor a rule says anything."""
        mode: Mode | None = "mask" if is_secret_name(column) else None
        for rule in self.rules:
            schemas, tables = table_glob(rule.table)
            if schemas.fullmatch(schema) and tables.fullmatch(table) and glob(rule.column).fullmatch(column):
                mode = rule.mode
        return mode

    def mode_in(self, shape: Shape, column: str) -> Mode | None:
        """What happens to a column's values in rows of this shape.

        A key names its record in every row, and nothing can take it out of them later: a personal one is hashed with the key, and
        stays as it is without one.
        """
        mode = self.mode(shape.schema, shape.table, column)
        if mode == "personal" and column in shape.key:
            return "hmac" if self.hmac_key else "keep"
        return mode

    def rewrite(self, shape: Shape, column: str) -> Rewrite | None:
        """How a column's values are changed, but for commitments; None if they aren't. A dropped one becomes null: a key may
        name it.
        """
        mode = self.mode_in(shape, column)
        if mode == "hmac":
            assert self.hmac_key
            return partial(_hmac, self.hmac_key)
        if mode is None or mode == "personal":
            return mask_keys if column in shape.nested else None
        return {"mask": _mask, "drop": _drop, "keep": None}[mode]


NO_RULES = Redaction()


def is_secret_name(name: str) -> bool:
    """Whether a column's or key's name says that its value is a secret."""
    words = [word.lower() for word in _SPLIT.split(name) if word]
    joined = f"_{'_'.join(words)}_"
    return (
        not _WORDS.isdisjoint(words)
        or any(map(_IN_A_WORD.search, words))
        or any(f"_{phrase}_" in joined for phrase in _PHRASES)
    )


def mask_keys(token: bytes) -> bytes:
    """A JSON value as jsonb prints it, without the values of keys named like secrets. All other bytes stay as they are."""
    if _STEM.search(token.lower()) is None:  # an eighth of the time that IGNORECASE takes
        return token
    if b'\\"' not in token:  # nor any text of JSON inside of a string
        keys = _KEY.findall(token)
        if _INNOCENT.issuperset(keys) or not any(map(_is_secret_key, keys)):
            return token
    parts = []
    done = 0
    for string in _STRING.finditer(token):
        start = string.end()
        if start <= done:
            continue  # inside of a value that is masked already
        if string[2]:
            end = _value_end(token, start) if _is_secret_key(string[1]) else start
        else:
            start, end = string.start(), start
            if not _is_text_with_secrets(string[0]):
                continue
        if end > start and token[start:end] != b"null":
            parts += [token[done:start], REDACTED]
            done = end
    return b"".join(parts) + token[done:] if parts else token


def mask_context(context: Context) -> bytes:
    """A context's ``rest`` without secrets. What could not be read is kept only if no word in it tells of one."""
    rest = context.rest.encode()
    raw = orjson.loads(rest).get("raw") if context.trust is Trust.INVALID and rest else None
    if not isinstance(raw, str):
        return mask_keys(rest)
    if "\\u" in raw or is_secret_name(raw):
        return b'{"raw": "[redacted] %d characters"}' % len(raw)
    return rest


def _mask(_: bytes) -> bytes:
    return REDACTED


def _drop(_: bytes) -> bytes:
    return b"null"  # what record_id holds of a key that is dropped; the images leave it out


def _hmac(key: bytes, token: bytes) -> bytes:
    return b'"hmac:%b"' % hmac.digest(key, token, "sha256").hex()[:_HMAC_DIGITS].encode()


def _is_secret_key(key: bytes) -> bool:
    """Whether a key is named like a secret. ``key`` is a JSON string's text between the quotation marks."""
    if key in _INNOCENT:
        return False
    if is_secret_name(orjson.loads(b'"%b"' % key)):
        return True
    if len(key) <= _MAX_INNOCENT_BYTES:
        if len(_INNOCENT) >= _MAX_INNOCENT:
            _INNOCENT.clear()
        _INNOCENT.add(key)
    return False


def _value_end(token: bytes, at: int) -> int:
    """Where the value that begins at a position ends."""
    if token[at] not in b'"{[':
        found = _SCALAR_END.search(token, at)
        return found.start() if found else len(token)
    depth = 0
    for mark in _MARK.finditer(token, at):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(mark[0], 0)
        if not depth:
            return mark.end()
    return len(token)


def _is_text_with_secrets(token: bytes) -> bool:
    """Whether a string is the text of a JSON object or array in which a key, at any depth, is named like a secret."""
    if token[1:2] not in (b"{", b"[", b" ", b"\\"):
        return False
    text = orjson.loads(token)
    if not text.lstrip().startswith(("{", "[")):
        return False
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return any(is_secret_name(name) for name in _KEY_IN_TEXT.findall(plain))
