"""``cdc-audit archive fetch``: archives copied into a folder, for who verifies them elsewhere. Needs no database and no key.

All manifests come, since each names the one before, and all notes of purges; then the files of the archives that are wanted. So a
copy that was cut short lacks files that its manifests name, and is not taken for a whole one.

A file comes under its name only if it is the one whose SHA-256 its manifest says; if that is here, it is not fetched again. A
manifest or note that is here is never replaced by another: which of the two can be believed, their signatures tell, not which came
last.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from cdc_audit.seal import manifest
from cdc_audit.seal.manifest import File, Manifest
from cdc_audit.trail.archive import keep_text
from cdc_audit.trail.archive_store import Folder, Store
from cdc_audit.trail.archive_verify import Harm, is_in_place, opened


@dataclass(slots=True)
class Fetched:
    """Files that came, their bytes, files that were here already, and what is wrong with those that did not come."""

    files: int = 0
    bytes: int = 0
    here: int = 0
    harms: list[Harm] = field(default_factory=list)


class Fetching:
    """From a store into a folder, which is there. Methods raise UnavailableError and SettingError as the stores do."""

    def __init__(self, store: Store, schema: str, into: Folder) -> None:
        self._store = store
        self._schema = schema
        self._into = into
        self._names = store.names(f"{schema}/")

    def manifests(self) -> tuple[list[Manifest], Fetched]:
        """Fetch all manifests and notes. The well-formed manifests that are here now, by month."""
        folder = f"{self._schema}/manifests/"
        known: list[Manifest] = []
        fetched = Fetched()
        for name in (one for one in self._names if one.startswith(folder)):
            text = self._read(name)
            try:
                said = manifest.read(text, {})
            except ValueError as error:
                fetched.harms.append(Harm(name, str(error)))
                continue
            if not is_in_place(name, said, self._schema):
                fetched.harms.append(Harm(name, "it is the manifest of another archive"))
            elif self._fetch_text(name, text, fetched):
                known.append(said)
        for note in {manifest.note_name(said) for said in known}.intersection(self._names):
            self._fetch_text(note, self._read(note), fetched)
        return known, fetched

    def archive(self, said: Manifest) -> Fetched:
        """Fetch the files of an archive; of one that was purged, what is left."""
        is_purged = manifest.note_name(said) in self._names and said.rows_file.name not in self._names
        fetched = Fetched()
        for file in (said.blocks_file,) if is_purged else (said.blocks_file, said.rows_file):
            self._fetch_file(file, fetched)
        return fetched

    def _fetch_text(self, name: str, text: bytes, fetched: Fetched) -> bool:
        """Whether this text is here now."""
        try:
            with self._into.open(name) as file:
                is_same = file.read() == text
        except FileNotFoundError:
            keep_text(self._into, name, text)
            fetched.files += 1
            fetched.bytes += len(text)
            return True
        if is_same:
            fetched.here += 1
        else:
            fetched.harms.append(Harm(name, f"another one is in {self._into.name}, which is not replaced"))
        return is_same

    def _fetch_file(self, file: File, fetched: Fetched) -> None:
        with ExitStack() as stack:
            wrong: list[Harm] = []
            if opened(self._into, file, stack, wrong) and not wrong:
                fetched.here += 1
                return
            harms: list[Harm] = []
            content = opened(self._store, file, stack, harms)
            if content is None or harms:
                fetched.harms += harms
                return
            self._into.put(file.name, content)
            fetched.files += 1
            fetched.bytes += file.bytes

    def _read(self, name: str) -> bytes:
        with self._store.open(name) as file:
            return file.read()
