r"""Who wrote a block: Ed25519 signatures (RFC 8032) over block hashes, and the succession of keys.

``key_id`` is the first 16 hexadecimal digits of SHA-256 over the raw public key (32 bytes), or null in an unsigned block. It is a
column of the header, so ``block_hash`` covers it. The column ``signature`` (64 bytes) is Ed25519 over::

    "cdc-audit block v1" 0x00 block_hash                            19 + 32 bytes

Which key a block must be signed with follows from the block before it: the same key, unless that block's kind is ``key``. A ``key``
block's detail names both keys, raw and in base64 (RFC 4648, section 4), and holds the new key's own signature::

    {"new_key_id", "old_key_id", "new_public_key", "new_signature", "old_public_key"}
    new_signature = Ed25519 by the new key over "cdc-audit key v1" 0x00 prev_hash old_public_key new_public_key

Either it replaces a key: then it is signed with the old one, and every block after it with the new one. Or it begins signing, in a
ledger whose blocks were unsigned so far: then both old fields are null, old_public_key counts as no bytes, and the block itself is
signed with the new key. Blocks before that one stay unsigned: its signature covers them through prev_hash. Signing never ends.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from typing import NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cdc_audit.errors import SettingError
from cdc_audit.model.ledger import Block

_BLOCK = b"cdc-audit block v1\0"
_KEY = b"cdc-audit key v1\0"
_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


class Signer:
    """A private key at work."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(*_RAW)
        self.key_id = key_id(self.public)

    @classmethod
    def from_pem(cls, pem: bytes) -> Signer:
        """From a PKCS#8 PEM text without password. Raises ValueError if it is anything else."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the private key is encrypted") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 private key")  # noqa: TRY004 - of the text's kind, not of a Python type
        return cls(private)

    def sign(self, block_hash: bytes) -> bytes:
        """A block's signature."""
        return self._private.sign(_BLOCK + block_hash)

    def sign_document(self, document: bytes) -> bytes:
        """The plain signature of a text for people, which any tool checks. Raises ValueError for what reads like a block or key."""
        if document.startswith((_BLOCK, _KEY)):
            raise ValueError("not a document")
        return self._private.sign(document)

    def succession(self, prev_hash: bytes, old: Signer | None) -> dict[str, object]:
        """The detail of the ``key`` block on top of ``prev_hash`` that makes this key the successor of ``old``."""
        old_public = old.public if old else b""
        return {
            "old_key_id": old.key_id if old else None,
            "new_key_id": self.key_id,
            "old_public_key": b64encode(old_public).decode() if old else None,
            "new_public_key": b64encode(self.public).decode(),
            "new_signature": b64encode(
                self._private.sign(_KEY + prev_hash + old_public + self.public)
            ).decode(),
        }


def key_id(public: bytes) -> str:
    """What a raw public key is called."""
    return sha256(public).hexdigest()[:16]


def public_from_pem(pem: bytes) -> bytes:
    """The raw public key of a PEM text (SubjectPublicKeyInfo). Raises ValueError if it is anything else."""
    public = serialization.load_pem_public_key(pem)
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")  # noqa: TRY004 - of the text's kind, not of a Python type
    return public.public_bytes(*_RAW)


def is_signed_by(public: bytes, block_hash: bytes, signature: bytes) -> bool:
    """Whether a block's signature is this raw public key's."""
    return _verifies(public, _BLOCK + block_hash, signature)


def is_document_signed_by(public: bytes, document: bytes, signature: bytes) -> bool:
    """Whether the plain signature of a text for people is this raw public key's."""
    return _verifies(public, document, signature)


def _verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class Succession(NamedTuple):
    """What a ``key`` block says: ``new`` takes over from ``old`` (key ids; "" begins signing)."""

    old: str
    new: str


def succession_of(detail: str, prev_hash: bytes) -> Succession | None:
    """What a ``key`` block's detail says, or None unless it is well formed and the new key's own signature is right."""
    try:
        said = orjson.loads(detail)
        new_public = b64decode(said["new_public_key"], validate=True)
        old_public = b64decode(said["old_public_key"] or "", validate=True)
        signature = b64decode(said["new_signature"], validate=True)
        new, old = said["new_key_id"], said["old_key_id"] or ""
    except (ValueError, KeyError, TypeError):
        return None
    is_whole = new == key_id(new_public) and old == (key_id(old_public) if old_public else "")
    if not is_whole or not _verifies(new_public, _KEY + prev_hash + old_public + new_public, signature):
        return None
    return Succession(old, new)


def key_after(last: Block) -> str:
    """The id of the key that the block on top of this one is signed with; "" where blocks are unsigned."""
    if last.kind == "key":
        found = succession_of(last.detail, last.prev_hash)
        return found.new if found else last.key_id
    return last.key_id


def begins_signing(last: Block, signer: Signer | None) -> bool:
    """Whether a ``key`` block has to come first, because nothing was signed before.

    Raises SettingError if the ledger's key is another one than the signer's, or there is no signer.
    """
    wanted, mine = key_after(last), signer.key_id if signer else ""
    if last.block < 0 or wanted == mine:
        return False
    if not mine:
        raise SettingError(
            f"the ledger is signed with key {wanted}, but no key is given",
            remedy=f"let [ledger] signing_key_file name the file of key {wanted}",
        )
    if wanted:
        raise SettingError(
            f"the ledger is signed with key {wanted}, but [ledger] signing_key_file holds key {mine}",
            remedy=f"name the file of key {wanted} there, or make the other one its successor: "
            f"cdc-audit key rotate --old FILE-OF-{wanted} --new FILE-OF-{mine}",
        )
    return True
