r"""Manifests of archives: what was archived, in which files, and whose word that is.

An archive is one month's rows in one file, and the headers of their blocks in another. Its manifest is three lines::

    cdc-audit archive v1
    {"blocks": ..., ...}
    <key_id> <128 hexadecimal digits>

The second one is the ``Manifest`` as JSON: keys sorted, no space, UTF-8, all that is not ASCII as it is. The signature is plain
Ed25519 over the first two lines with their line ends, so openssl checks it, too. A text that differs from this in one byte is no
manifest.

The ledger's ``retention`` block that takes an archived month's rows out names the manifest by its hash (``retired_of``).

When its rows are purged, manifest and headers stay, and a note takes the place of the rows: the same three lines, under the title
``cdc-audit purge v1``, with a ``Purge`` for the manifest. It names the manifest by its hash, and the ledger's ``purge`` block.

``root`` is the RFC 6962 root over the ``rows_root`` of the archived blocks, in order. ``previous`` is the SHA-256 of the manifest
whose ``retention`` block came before, or "": so a manifest that is gone is missed by the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import orjson

from cdc_audit.model.ledger import Block
from cdc_audit.seal.signature import Signer, is_document_signed_by

_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_NOT_OURS = "not a manifest as cdc-audit writes it"


class File(NamedTuple):
    """A file of an archive: its name below the archives' place, its size and its SHA-256 in hexadecimal digits."""

    name: str
    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """What an archive holds. ``ids`` are inclusive ranges, rising; times and LSNs as PostgreSQL prints them."""

    schema: str
    schema_version: int
    system_identifier: str
    slot: str
    month: str
    ids: list[tuple[int, int]]
    rows: int
    first_block: int
    last_block: int
    blocks: int
    start_lsn: str
    end_lsn: str
    since: str
    until: str
    tables: dict[str, int]
    root: str
    previous: str
    made_at: str
    rows_file: File
    blocks_file: File

    def overlaps(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether rows of the time from ``since`` to before ``until`` can be in it; None: without end."""
        first, last = datetime.fromisoformat(self.since), datetime.fromisoformat(self.until)
        return (since is None or since <= last) and (until is None or first < until)


class Purge(NamedTuple):
    """That an archive's rows were deleted: whose, as which ``purge`` block says, and when."""

    schema: str
    month: str
    manifest: str
    manifest_sha256: str
    rows_file: str
    block: int
    purged_at: str


_Signed = TypeVar("_Signed", Manifest, Purge)
_TITLES = {Manifest: b"cdc-audit archive v1\n", Purge: b"cdc-audit purge v1\n"}


def write(manifest: Manifest | Purge, signer: Signer) -> bytes:
    """The text of a manifest or a note."""
    document = _document(manifest)
    return document + f"{signer.key_id} {signer.sign_document(document).hex()}\n".encode()


def file_name(schema: str, kind: str, month: str, first_id: int) -> str:
    """Where an archive's file of ``kind`` (rows, blocks) is: as engines expect it of a dataset that is parted by month."""
    return f"{schema}/{kind}/month={month}/{first_id:020}.parquet"


def name_of(manifest: Manifest) -> str:
    """Where an archive's manifest is."""
    return f"{manifest.schema}/manifests/{manifest.month}-{manifest.ids[0][0]:020}.txt"


def note_name(manifest: Manifest) -> str:
    """Where the note is that an archive's rows were purged."""
    return f"{manifest.schema}/purges/{manifest.month}-{manifest.ids[0][0]:020}.txt"


def hash_of(text: bytes) -> str:
    """What a ``retention`` block and the next manifest call a manifest by."""
    return sha256(text).hexdigest()


def read(text: bytes, keys: Mapping[str, bytes]) -> Manifest:
    """The manifest of a text that is signed with one of the raw public keys, by key id; with no keys given, of any well-formed one.

    Raises ValueError that says what is wrong with it.
    """
    return _read(text, keys, _parsed)


def read_note(text: bytes, keys: Mapping[str, bytes]) -> Purge:
    """The same of a note that rows were purged."""
    return _read(text, keys, lambda said: Purge(**said))


def _read(text: bytes, keys: Mapping[str, bytes], parse: Callable[[Any], _Signed]) -> _Signed:
    try:
        (_, body, signed, _) = text.split(b"\n")
        manifest = parse(orjson.loads(body))
        key_id, digits = signed.decode().split(" ")
        document, signature = _document(manifest), bytes.fromhex(digits)
    except (ValueError, TypeError, KeyError):
        raise ValueError(_NOT_OURS) from None
    if text != document + f"{key_id} {signature.hex()}\n".encode():
        raise ValueError(_NOT_OURS)
    if keys and key_id not in keys:
        raise ValueError("signed with a key that was not given")
    if keys and not is_document_signed_by(keys[key_id], document, signature):
        raise ValueError("the signature is not that key's for this text")
    return manifest


class Retired(NamedTuple):
    """What a ``retention`` block says: these rows were taken out, and are in the archive of that manifest ("": of none)."""

    block: int
    month: str
    ids: tuple[tuple[int, int], ...]
    rows: int
    manifest: str
    sha256: str


def retired_of(block: Block) -> Retired:
    """What a ``retention`` block says. Raises ValueError unless it is well formed and names rows before the block only."""
    try:
        said = orjson.loads(block.detail)
        ids = tuple((int(first), int(last)) for first, last in said["ids"])
        where = said["manifest"]
        found = Retired(
            block.block, str(said["month"]), ids, int(said["rows"]), str(where["name"]), str(where["sha256"])
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError("not a retention's detail") from None
    bounds = [bound for one in ids for bound in one]
    count = sum(last - first + 1 for first, last in ids)
    if not ids or bounds != sorted(bounds) or bounds[-1] >= block.first_id or count != found.rows:
        raise ValueError("a retention of rows that are not before it")
    return found


def purged_of(block: Block) -> tuple[str, int]:
    """The manifest whose archive a ``purge`` block says was purged, and its rows. Raises ValueError if it is not well formed."""
    try:
        said = orjson.loads(block.detail)
        return str(said["manifest"]["name"]), int(said["rows"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("not a purge's detail") from None


def _document(said: Manifest | Purge) -> bytes:
    body = said._asdict()
    if isinstance(said, Manifest):
        body |= {"rows_file": said.rows_file._asdict(), "blocks_file": said.blocks_file._asdict()}
    return _TITLES[type(said)] + orjson.dumps(body, option=orjson.OPT_SORT_KEYS) + b"\n"


def _parsed(said: Any) -> Manifest:
    known = {name: said[name] for name in Manifest._fields}
    known["ids"] = [(int(first), int(last)) for first, last in known["ids"]]
    known |= {name: File(**known[name]) for name in ("rows_file", "blocks_file")}
    times = [datetime.fromisoformat(known[name]) for name in ("since", "until")]
    if not _MONTH.fullmatch(known["month"]) or any(one.tzinfo is None for one in times):
        raise ValueError
    return Manifest(**known)
