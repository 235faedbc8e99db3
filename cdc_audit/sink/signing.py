"""The daemon's private key, read from its file. A key that others could have read signs nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cdc_audit.errors import SettingError
from cdc_audit.seal.signature import Signer

_MAKE = "cdc-audit key generate FILE, and name it in [ledger] signing_key_file"


def load_signer(given: str) -> Signer | None:
    """The key that ``[ledger] signing_key_file`` names, or holds itself (a credential's text); None where it is empty.

    Raises SettingError if there is no such file, if its group or others may read or write it, or if it isn't a key.
    """
    if not given:
        return None
    if given.lstrip().startswith("-----BEGIN"):
        return _parsed(given.encode(), "the signing key")
    try:
        with Path(given).open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise SettingError(
                    f"signing key {given}: others than its owner have rights on it (mode {mode:04o})",
                    remedy=f"chmod 600 {given}; if others can have read it, make a new key: cdc-audit key rotate",
                )
            return _parsed(file.read(), f"signing key {given}")
    except OSError as error:
        raise SettingError(f"signing key {given}: {error.strerror}", remedy=_MAKE) from error


def _parsed(pem: bytes, name: str) -> Signer:
    try:
        return Signer.from_pem(pem)
    except ValueError as error:
        raise SettingError(f"{name}: not an Ed25519 private key in PEM (PKCS#8)", remedy=_MAKE) from error
