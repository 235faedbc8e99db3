"""The daemon's private key, read from its file. A key that others could have read signs nothing."""

from __future__ import annotations

from cdc_audit.errors import SettingError
from cdc_audit.seal.signature import Signer
from cdc_audit.sink.key_file import read_private

_MAKE = "cdc-audit key generate FILE, and name it in [ledger] signing_key_file"


def load_signer(given: str) -> Signer | None:
    """The key that ``[ledger] signing_key_file`` names, or holds itself (a credential's text); None where it is empty.

    Raises SettingError if there is no such file, if its group or others may read or write it, or if it isn't a key.
    """
    if not given:
        return None
    if given.lstrip().startswith("-----BEGIN"):
        return _parsed(given.encode(), "the signing key")
    pem = read_private(
        given,
        "signing key",
        make=f"cdc-audit key generate {given}",
        replace="make a new key: cdc-audit key rotate",
    )
    return _parsed(pem, f"signing key {given}")


def _parsed(pem: bytes, name: str) -> Signer:
    try:
        return Signer.from_pem(pem)
    except ValueError as error:
        raise SettingError(f"{name}: not an Ed25519 private key in PEM (PKCS#8)", remedy=_MAKE) from error
