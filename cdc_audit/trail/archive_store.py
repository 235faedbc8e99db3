"""Where archives are kept: named files in a folder or, as objects, in a bucket.

Names are relative, with ``/``; a ledger's own begin with its schema's name. What is put replaces what had that name, whole or not
at all. What is deleted is deleted with all its versions, unless Object Lock keeps one of them: that nothing here ever bypasses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from cdc_audit import remote
from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError
from cdc_audit.model.anchor import FileTarget, HttpTarget, S3Target, parse_target

_ATTEMPTS = 10
_PIECE = 1 << 20
_PARTS = 3  # of 8 MB
_MISSING = {"404", "NoSuchKey", "NotFound"}
_DENIED = {"403", "AccessDenied"}


class Lock(NamedTuple):
    """What keeps a file from being deleted: Object Lock's mode, or ``legal hold`` of the store's own, and its last moment.

    A legal hold has none: ``until`` is the end of all calendars.
    """

    mode: str
    until: datetime

    def __str__(self) -> str:
        if self.until == _NEVER:
            return "locked by a legal hold of the object store, until somebody ends that"
        return f"locked until {self.until:%Y-%m-%d %H:%M} ({self.mode})"


_NEVER = datetime.max.replace(tzinfo=UTC)


class Store(Protocol):
    """A place for archives. Errors are UnavailableError and SettingError; FileNotFoundError where there is no such name."""

    @property
    def name(self) -> str:
        """How it is called; holds nothing secret."""

    def put(self, name: str, file: IO[bytes]) -> None:
        """Keep the whole file, durably, under a name."""

    def open(self, name: str) -> IO[bytes]:
        """What is kept under a name, to be read and sought in."""

    def piece(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from ``start`` to before ``end``."""

    def names(self, folder: str) -> list[str]:
        """All names that begin with this folder's, sorted; "" is all."""

    def lock(self, name: str) -> Lock | None:
        """What keeps a file, or an older version of it, from being deleted; of several the longest."""

    def delete(self, name: str) -> None:
        """Delete a file for good; nothing if there is none. NotPermittedError if it is locked, or the right is missing."""


def open_store(text: str) -> Store:
    """The place that ``[retention] archive`` names. Raises SettingError."""
    if not text:
        raise SettingError(
            "it is not said where archives are",
            remedy="set archive in section [retention] of cdc-audit.toml, or CDC_AUDIT_RETENTION_ARCHIVE, to file:/folder or s3://bucket/prefix",
        )
    try:
        target = parse_target(text)
    except ValueError:
        target = HttpTarget("")
    match target:
        case FileTarget():
            return Folder(Path(target.path))
        case S3Target():
            remote.require_boto3()
            return Bucket(target)
    raise SettingError(
        "an archive is kept in a folder or a bucket",
        remedy="say file:/an/absolute/path or s3://bucket/prefix",
    )


def digest_of(file: IO[bytes]) -> str:
    """The SHA-256 of a whole file, in hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _transfer() -> Any:
    """How large files are sent and fetched: few parts at a time, for each is held in memory."""
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(max_concurrency=_PARTS)
    config.max_in_memory_upload_chunks = config.max_in_memory_download_chunks = _PARTS
    return config


class Folder:
    """A folder; it must be there, so that a disk that is not mounted is noticed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file:{path}"

    def put(self, name: str, file: IO[bytes]) -> None:
        """See ``Store``: a file beside it, made durable, takes its place."""
        target = self._path / name
        part = target.with_name(target.name + ".part")
        with self._explained():
            if not self._path.is_dir():
                raise SettingError(f"{self.name} is not a folder", remedy=f"mkdir {self._path}, or mount it")
            target.parent.mkdir(parents=True, exist_ok=True)
            file.seek(0)
            with part.open("wb") as copy:
                shutil.copyfileobj(file, copy, _PIECE)
                copy.flush()
                os.fsync(copy.fileno())
            part.replace(target)
            for folder in (target.parent, *target.parent.relative_to(self._path).parents):
                self._sync(self._path / folder)

    def open(self, name: str) -> IO[bytes]:
        """See ``Store``."""
        with self._explained():
            return (self._path / name).open("rb")

    def piece(self, name: str, start: int, end: int) -> bytes:
        """See ``Store``."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(end - start)

    def names(self, folder: str) -> list[str]:
        """See ``Store``. Files that a process which was killed has left half are none."""
        with self._explained():
            if not self._path.is_dir():
                raise SettingError(f"{self.name} is not a folder", remedy=f"mkdir {self._path}, or mount it")
            found = (
                one for one in (self._path / folder).rglob("*") if one.is_file() and one.suffix != ".part"
            )
            return sorted(one.relative_to(self._path).as_posix() for one in found)

    def lock(self, name: str) -> Lock | None:
        """See ``Store``. A folder locks nothing."""
        del name
        return None

    def delete(self, name: str) -> None:
        """See ``Store``."""
        target = self._path / name
        with self._explained():
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                self._sync(target.parent)

    @staticmethod
    def _sync(folder: Path) -> None:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnavailableError(f"archive {self.name}: {error.strerror}") from error


class Bucket:
    """Objects of an S3 bucket, each locked for as long as the target says; S3 checks what it gets by SHA-256."""

    def __init__(self, target: S3Target) -> None:
        self._target = target
        self.name = target.name
        self._client: Any = None

    def put(self, name: str, file: IO[bytes]) -> None:
        """See ``Store``. In parts where it is large; each request is tried again."""
        target = self._target
        options: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"}
        if target.mode:
            until = datetime.now(UTC) + timedelta(days=target.days)
            options |= {"ObjectLockMode": target.mode, "ObjectLockRetainUntilDate": until}
        file.seek(0)
        client = self._connected()
        with (
            self._explained(name),
            os.fdopen(os.dup(file.fileno()), "rb") as copy,
        ):  # boto3 closes what it has sent
            client.upload_fileobj(copy, target.bucket, self._key(name), ExtraArgs=options, Config=_transfer())

    def open(self, name: str) -> IO[bytes]:
        """See ``Store``: a copy on this machine, of which nothing is left afterwards."""
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's
        client = self._connected()
        with self._explained(name):
            client.download_fileobj(self._target.bucket, self._key(name), copy, Config=_transfer())
        copy.seek(0)
        return copy

    def piece(self, name: str, start: int, end: int) -> bytes:
        """See ``Store``."""
        client = self._connected()
        with self._explained(name):
            said = client.get_object(
                Bucket=self._target.bucket, Key=self._key(name), Range=f"bytes={start}-{end - 1}"
            )
            content: bytes = said["Body"].read()
        return content

    def names(self, folder: str) -> list[str]:
        """See ``Store``."""
        found: list[str] = []
        client = self._connected()
        with self._explained(folder):
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._target.bucket, Prefix=self._key(folder)
            )
            for page in pages:
                found += [one["Key"].removeprefix(self._key("")) for one in page.get("Contents", [])]
        return sorted(found)

    def lock(self, name: str) -> Lock | None:
        """See ``Store``."""
        client, locks = self._connected(), list[Lock]()
        for version in self._versions(name):
            with self._explained(name):
                said = client.head_object(
                    Bucket=self._target.bucket, Key=self._key(name), VersionId=version["VersionId"]
                )
            if said.get("ObjectLockLegalHoldStatus") == "ON":
                locks.append(Lock("legal hold", _NEVER))
            if said.get("ObjectLockMode"):
                locks.append(Lock(said["ObjectLockMode"], said["ObjectLockRetainUntilDate"]))
        return max(locks, key=lambda one: one.until, default=None)

    def delete(self, name: str) -> None:
        """See ``Store``: with all versions, and the markers that hide them."""
        client = self._connected()
        for version in [*self._versions(name), *self._versions(name, "DeleteMarkers")]:
            try:
                with remote.s3_errors():
                    client.delete_object(
                        Bucket=self._target.bucket, Key=self._key(name), VersionId=version["VersionId"]
                    )
            except remote.RefusedError as error:
                if error.code not in _DENIED:
                    raise UnavailableError(f"archive {self.name}: {error.message}") from error
                if (lock := self.lock(name)) is not None:
                    raise NotPermittedError(
                        f"archive {self.name}: {name} is {lock}: the object store refuses to delete it",
                        remedy="wait for that day: nothing here bypasses a lock",
                    ) from error
                raise NotPermittedError(
                    f"archive {self.name}: {error.message}",
                    remedy=f"allow this identity s3:DeleteObjectVersion on {self._target.bucket}",
                ) from error
            except UnavailableError as error:
                raise UnavailableError(f"archive {self.name}: {error.message}") from error

    def _versions(self, name: str, kind: str = "Versions") -> list[Any]:
        """All versions of one object; in a bucket that keeps none, the object itself."""
        found: list[Any] = []
        client = self._connected()
        with self._explained(name):
            pages = client.get_paginator("list_object_versions").paginate(
                Bucket=self._target.bucket, Prefix=self._key(name)
            )
            for page in pages:
                found += [one for one in page.get(kind, []) if one["Key"] == self._key(name)]
        return found

    def _key(self, name: str) -> str:
        return f"{self._target.prefix}/{name}".lstrip("/")

    def _connected(self) -> Any:
        self._client = self._client or remote.s3_client(attempts=_ATTEMPTS)
        return self._client

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error

        try:
            with remote.s3_errors():
                yield
        except remote.RefusedError as error:
            if error.code in _MISSING:
                raise FileNotFoundError(name) from None
            raise UnavailableError(f"archive {self.name}: {error.message}") from error
        except UnavailableError as error:
            raise UnavailableError(f"archive {self.name}: {error.message}") from error
        except Boto3Error as error:
            raise UnavailableError(f"archive {self.name}: {type(error).__name__}") from error
