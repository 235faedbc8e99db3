"""The folder with the server's log files of JSON lines: looking, and reading. What to do with them is ``log_position``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cdc_audit.decode.pgaudit import is_log
from cdc_audit.errors import NotPermittedError, SettingError
from cdc_audit.model.read import LogFile
from cdc_audit.source.log_position import HEAD_BYTES, fingerprint, last_line_end

_SUFFIX = ".json"
_MOST_HELD = 100
_TAIL_BYTES = 65_536
_REMEDY = "log_file_mode = 0640, a log_directory outside of the data directory, and the follower's account in its group"


class LogFolder:
    """Files stay open while they are held, so that one which is removed can be read to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[bytes, tuple[int, str]] = {}
        self._known: dict[tuple[str, int, int, int], bytes] = {}

    def look(self) -> list[LogFile]:
        """What is there now, held files among it. Files that aren't such logs, or have no whole line yet, are left out.

        Raises SettingError if the folder isn't there, NotPermittedError if it or a file may not be read.
        """
        found: dict[bytes, LogFile] = {}
        known: dict[tuple[str, int, int, int], bytes] = {}
        for entry in self._entries():
            try:
                stat = entry.stat()
                key = entry.name, stat.st_ino, stat.st_mtime_ns, stat.st_size
                mark = self._known.get(key) or self._fingerprint(entry.path)
            except FileNotFoundError:
                continue
            if mark is None:
                continue
            known[key] = mark
            file = LogFile(mark, entry.name, stat.st_size, stat.st_mtime_ns)
            if mark not in found or found[mark].size < file.size:
                found[mark] = file
        self._known = known
        for file in self._still_held():
            if file.fingerprint not in found:
                found[file.fingerprint] = file
        return list(found.values())

    def hold(self, file: LogFile) -> None:
        """Keep a file open from now on, whatever becomes of its name."""
        if file.fingerprint in self._held or len(self._held) >= _MOST_HELD:
            return
        opened = self._opened(file)
        if opened is not None:
            self._held[file.fingerprint] = opened, file.name

    def release(self, mark: bytes) -> None:
        """Hold a file no longer."""
        held = self._held.pop(mark, None)
        if held is not None:
            os.close(held[0])

    def close(self) -> None:
        """Hold no file."""
        for mark in list(self._held):
            self.release(mark)

    def read(self, file: LogFile, start: int, size: int) -> bytes:
        """At most ``size`` bytes of a file from ``start``, and none of what was written after the look; b"" if it has gone."""
        held = self._held.get(file.fingerprint)
        opened = held[0] if held is not None else self._opened(file)
        if opened is None:
            return b""
        try:
            return os.pread(opened, max(min(size, file.size - start), 0), start)
        finally:
            if held is None:
                os.close(opened)

    def end(self, file: LogFile) -> int:
        """Where the last whole line of a file ends."""
        size = min(_TAIL_BYTES, file.size)
        tail = self.read(file, file.size - size, size)
        while b"\n" not in tail and size < file.size:
            size = min(size * 2, file.size)
            tail = self.read(file, file.size - size, size)
        return last_line_end(tail, file.size)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._path) as entries:
                yield from [entry for entry in entries if entry.name.endswith(_SUFFIX) and entry.is_file()]
        except PermissionError as error:
            raise NotPermittedError(
                f"[reads] directory {self._path} may not be read", remedy=_REMEDY
            ) from error
        except OSError as error:
            raise SettingError(
                f"[reads] directory {self._path}: {error.strerror}",
                remedy="let it name the server's log_directory, as this host sees it",
            ) from error

    def _fingerprint(self, path: str) -> bytes | None:
        opened = self._open(path)
        try:
            return _mark(opened)
        finally:
            os.close(opened)

    def _open(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotPermittedError(f"log file {path} may not be read", remedy=_REMEDY) from error

    def _opened(self, file: LogFile) -> int | None:
        """The file under its name, if that is still it."""
        try:
            opened = self._open(str(self._path / file.name))
        except FileNotFoundError:
            return None
        if _mark(opened) == file.fingerprint:
            return opened
        os.close(opened)
        return None

    def _still_held(self) -> list[LogFile]:
        files: list[LogFile] = []
        for mark, (opened, name) in list(self._held.items()):
            if _mark(opened) != mark:
                self.release(mark)  # it was cut off, and what it held is gone
                continue
            stat = os.fstat(opened)
            files.append(LogFile(mark, name, stat.st_size, stat.st_mtime_ns))
        return files


def _mark(opened: int) -> bytes | None:
    head = os.pread(opened, HEAD_BYTES, 0)
    return fingerprint(head) if is_log(head) else None
