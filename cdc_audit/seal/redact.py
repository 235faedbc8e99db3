"""Which columns' values never reach the trail: those named like secrets, and what the rules say.

Names are split into words at ``_``, ``-``, spaces and changes of case: ``userPassword`` and ``user_password`` hold the word
"password", ``compassion`` does not. The last rule that matches a column decides; a rule ``keep`` overrides the names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from cdc_audit.config import RedactRule
from cdc_audit.model.pattern import glob, table_glob

REDACTED = b'"[redacted]"'
Mode = Literal["keep", "mask", "drop"]
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
_SPLIT = re.compile(r"[^0-9A-Za-z]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_secret_name(name: str) -> bool:
    """Whether a column's or key's name says that its value is a secret."""
    words = [word.lower() for word in _SPLIT.split(name) if word]
    joined = f"_{'_'.join(words)}_"
    return not _WORDS.isdisjoint(words) or any(f"_{phrase}_" in joined for phrase in _PHRASES)


def mode_for(rules: Sequence[RedactRule], schema: str, table: str, column: str) -> Mode:
    """What happens to a column's values."""
    mode: Mode = "mask" if is_secret_name(column) else "keep"
    for rule in rules:
        schemas, tables = table_glob(rule.table)
        if schemas.fullmatch(schema) and tables.fullmatch(table) and glob(rule.column).fullmatch(column):
            mode = rule.mode
    return mode
