"""``cdc-audit archive verify``: archives by themselves, with nothing but public keys. Needs no database.

What is looked at, of each archive:

1.  Its manifest is one, to the byte, and signed with a given key (``cdc_audit.seal.manifest``).
2.  Its two files are there, and have the size and the SHA-256 that the manifest says.
3.  Each header is signed with a given key, or unsigned as it was in the ledger; the rows are those of the headers' blocks, each
    gives its row_hash, and together they give their rows_root (``cdc_audit.trail.verify_rows``).
4.  Blocks, ids, counts and root are those that the manifest says.

Of archives that are not wanted, the manifest only. Where the rows are not there any more, and a note signed with a given key says
that they were purged, all of this but the rows.

And of all together: the manifest that one names as ``previous`` is there. A newest manifest that was taken away is not missed that
way: the ledger's ``retention`` block misses it (``cdc-audit verify --archive``), and its files belong to no manifest then, which is
said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from cdc_audit import memory
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn
from cdc_audit.seal import manifest, parquet
from cdc_audit.seal.block import header_hash, parse_header
from cdc_audit.seal.manifest import File, Manifest, Retired
from cdc_audit.seal.merkle import MerkleTree
from cdc_audit.seal.signature import is_signed_by
from cdc_audit.trail.archive_store import Store, digest_of
from cdc_audit.trail.verify_findings import Findings
from cdc_audit.trail.verify_rows import Rows, Span

_MOST = 1000  # harms of one archive that are kept


class Harm(NamedTuple):
    """What is wrong with a file, by its name."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


@dataclass(slots=True)
class Verified:
    """What was found. ``missing``: why the evidence is not complete. Of ``purged`` archives only headers are left; of ``others``,
    which were not wanted, only manifests were looked at.
    """

    archives: list[Manifest] = field(default_factory=list)
    purged: list[Manifest] = field(default_factory=list)
    others: list[Manifest] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def verify_archives(
    store: Store, schema: str, keys: Mapping[str, bytes], wanted: Callable[[Manifest], bool] = lambda _: True
) -> Verified:
    """Verify all manifests of a ledger, and those archives that are wanted. Raises UnavailableError and SettingError as the store
    does.
    """
    parquet.require_pyarrow()
    verified = Verified()
    names = store.names(f"{schema}/")
    folder = f"{schema}/manifests/"
    hashes: set[str] = set()
    belonging: set[str] = set()
    previous: list[tuple[str, str]] = []
    for name in (one for one in names if one.startswith(folder)):
        with store.open(name) as file:
            text = file.read()
        hashes.add(manifest.hash_of(text))
        try:
            said = manifest.read(text, keys)
        except ValueError as error:
            verified.harms.append(Harm(name, str(error)))
            continue
        note = manifest.note_name(said)
        belonging |= {said.rows_file.name, said.blocks_file.name, note}
        previous.append((name, said.previous))
        if not is_in_place(name, said, schema):
            verified.archives.append(said)
            verified.harms.append(Harm(name, "it is the manifest of another archive"))
            continue
        if note in names and (wrong := _wrong_note(store, note, said, manifest.hash_of(text), keys)):
            verified.harms.append(Harm(note, wrong))
        if not wanted(said):
            verified.others.append(said)
            continue
        is_purged = note in names and said.rows_file.name not in names
        (verified.purged if is_purged else verified.archives).append(said)
        verified.harms += check_archive(store, said, keys, is_purged=is_purged)
        memory.give_back()
    for name, before in previous:
        if before and before not in hashes:
            verified.harms.append(Harm(name, "the manifest that it names as the one before is not here"))
    _look_for_more(verified, {one for one in names if not one.startswith(folder)} - belonging, keys)
    return verified


def check_retirements(store: Store, retirements: Iterable[Retired]) -> list[Harm]:
    """What is wrong with the manifests that ``retention`` blocks name; the archives' files are not looked at."""
    harms: list[Harm] = []
    for one in (retired for retired in retirements if retired.manifest):
        try:
            with store.open(one.manifest) as file:
                text = file.read()
        except FileNotFoundError:
            harms.append(Harm(one.manifest, f"it is not here, but block {one.block} names it"))
            continue
        if manifest.hash_of(text) != one.sha256:
            harms.append(Harm(one.manifest, f"it is not the manifest that block {one.block} names"))
    return harms


def _wrong_note(store: Store, name: str, said: Manifest, sha256: str, keys: Mapping[str, bytes]) -> str:
    """What is wrong with a note that an archive's rows were purged, or ""."""
    with store.open(name) as file:
        text = file.read()
    try:
        note = manifest.read_note(text, keys)
    except ValueError as error:
        return str(error)
    is_right = (note.schema, note.month, note.manifest) == (said.schema, said.month, manifest.name_of(said))
    if not is_right or (note.manifest_sha256, note.rows_file) != (sha256, said.rows_file.name):
        return "it is the note of another archive"
    return ""


def _look_for_more(verified: Verified, strays: set[str], keys: Mapping[str, bytes]) -> None:
    if not keys:
        verified.missing.append("no public key was given (--public-key)")
    if not any((verified.archives, verified.purged, verified.others, verified.harms)):
        verified.missing.append("there is no archive")
    if strays and not verified.harms:
        some = ", ".join(sorted(strays)[:3])
        verified.missing.append(
            f"{len(strays)} files belong to no manifest: an archive run was cut short (it will repeat itself), "
            f"or a manifest was taken away ({some})"
        )


def is_in_place(name: str, said: Manifest, schema: str) -> bool:
    """Whether manifest and files have the names that follow from what they hold: no other file is ever read, or written."""
    if said.schema != schema or not said.ids or name != manifest.name_of(said):
        return False
    kinds = (("rows", said.rows_file), ("blocks", said.blocks_file))
    return all(
        file.name == manifest.file_name(schema, kind, said.month, said.ids[0][0]) for kind, file in kinds
    )


def check_archive(
    store: Store, said: Manifest, keys: Mapping[str, bytes], *, is_purged: bool = False
) -> list[Harm]:
    """What is wrong with the files of a manifest, which is believed. With no keys given, signatures are not looked at."""
    harms: list[Harm] = []
    with ExitStack() as stack:
        blocks_file = opened(store, said.blocks_file, stack, harms)
        rows_file = None if is_purged else opened(store, said.rows_file, stack, harms)
        if not harms and blocks_file:
            harms += _Content(said, keys).check(blocks_file, rows_file)
    return harms


def opened(store: Store, file: File, stack: ExitStack, harms: list[Harm]) -> IO[bytes] | None:
    """A file of an archive, to be read until the stack is closed; None if it is not there. What is wrong is added to ``harms``."""
    try:
        content = stack.enter_context(store.open(file.name))
    except FileNotFoundError:
        harms.append(Harm(file.name, "it is not here"))
        return None
    size = content.seek(0, 2)
    content.seek(0)
    if size != file.bytes:
        harms.append(Harm(file.name, f"it has {size:,} bytes, its manifest says {file.bytes:,}"))
    elif digest_of(content) != file.sha256:
        harms.append(Harm(file.name, "it is not the file whose SHA-256 its manifest says"))
    content.seek(0)
    return content


class _Content:
    """Checks headers and rows of one archive, side by side, in memory that does not grow with them."""

    def __init__(self, said: Manifest, keys: Mapping[str, bytes]) -> None:
        self._said = said
        self._keys = keys
        self._harms: list[Harm] = []
        self._roots = MerkleTree()
        self._ids: list[tuple[int, int]] = []
        self._first: Block | None = None
        self._last: Block | None = None
        self._blocks = 0

    def check(self, blocks_file: IO[bytes], rows_file: IO[bytes] | None) -> list[Harm]:
        said = self._said
        findings = Findings()
        try:
            if rows_file is None:
                count = sum(span.end - span.first for span in self._spans(blocks_file))
            else:
                rows = Rows(findings, self._spans(blocks_file), [])
                rows.check(parquet.read_rows(rows_file))
                rows.finish()
                count = rows.rows
        except ValueError as error:
            return [*self._harms, Harm(manifest.name_of(said), f"its files can't be read: {error}")]
        self._harms += [Harm(said.rows_file.name, str(one)) for one in findings.sorted()]
        first, last = self._first, self._last
        held = said._replace(
            rows=count,
            ids=self._ids,
            blocks=self._blocks,
            first_block=first.block if first else -1,
            last_block=last.block if last else -1,
            start_lsn=format_lsn(first.start_lsn) if first else "",
            end_lsn=format_lsn(last.end_lsn) if last else "",
            root=self._roots.root().hex(),
        )
        wrong = [key for key in Manifest._fields if getattr(held, key) != getattr(said, key)]
        if wrong:
            self._harms.append(
                Harm(manifest.name_of(said), f"its files are not what it says: {', '.join(wrong)}")
            )
        return self._harms

    def _spans(self, file: IO[bytes]) -> Iterator[Span]:
        """The blocks that a file of headers holds."""
        for block_number, line, signature in parquet.read_blocks(file):
            block = parse_header(line)
            if (
                block.block != block_number
                or block.row_count < 1
                or (self._last and not _follows(self._last, block))
            ):
                self._harm(block_number, "its header is out of place")
            if wrong := self._wrong_signature(block, header_hash(line), signature):
                self._harm(block_number, wrong)
            self._first, self._last = self._first or block, block
            self._blocks += 1
            self._roots.extend([block.rows_root])
            end = block.first_id + block.row_count
            if self._ids and self._ids[-1][1] == block.first_id - 1:
                self._ids[-1] = (self._ids[-1][0], end - 1)
            else:
                self._ids.append((block.first_id, end - 1))
            yield Span(block.block, block.first_id, end, block.rows_root, True)

    def _wrong_signature(self, block: Block, hash_: bytes, signature: bytes) -> str:
        if not self._keys or not (block.key_id or signature):
            return ""
        if block.key_id not in self._keys:
            return f"its header is signed with key {block.key_id or '-'}, which was not given"
        is_right = is_signed_by(self._keys[block.key_id], hash_, signature)
        return "" if is_right else f"the signature is not key {block.key_id}'s for its header"

    def _harm(self, block: int, what: str) -> None:
        if len(self._harms) < _MOST:
            self._harms.append(Harm(self._said.blocks_file.name, f"block {block}: {what}"))


def _follows(before: Block, block: Block) -> bool:
    return block.block > before.block and block.first_id >= before.first_id + before.row_count
