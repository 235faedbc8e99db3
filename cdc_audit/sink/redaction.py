"""What the configuration says is redacted, with the key that it names read from its file."""

from __future__ import annotations

import shlex

from cdc_audit.config import Redact
from cdc_audit.errors import SettingError
from cdc_audit.seal.redact import Redaction
from cdc_audit.sink.key_file import read_private

_KEY_BYTES = 32
_DEFAULT_FILE = "/etc/cdc-audit/hmac.key"


def load_redaction(settings: Redact) -> Redaction:
    """The rules, ready for use. The key is read only if a rule's mode is ``hmac``, or ``personal``, which keys are hashed for.

    Raises SettingError if there is no key then, if others than its owner have rights on its file, or if it is too short.
    """
    path = settings.hmac_key_file
    modes = {rule.mode for rule in settings.rules}
    if "hmac" not in modes and not (path and "personal" in modes):
        return Redaction(settings.rules, personal_context=settings.personal_context)
    make = _make(path or _DEFAULT_FILE)
    if not path:
        raise SettingError(
            "a rule in [[redact.rules]] has mode hmac, but [redact] hmac_key_file names no key",
            remedy=f'{make}, then hmac_key_file = "{_DEFAULT_FILE}" under [redact]',
        )
    key = read_private(
        path, "redaction key", make=make, replace="make a new one: values then compare only with later ones"
    )
    if len(key) < _KEY_BYTES:
        raise SettingError(
            f"redaction key {path}: {len(key)} bytes, at least {_KEY_BYTES} are needed", remedy=make
        )
    return Redaction(settings.rules, key, settings.personal_context)


def _make(path: str) -> str:
    return f"(umask 077 && head -c {_KEY_BYTES} /dev/urandom > {shlex.quote(path)})"
