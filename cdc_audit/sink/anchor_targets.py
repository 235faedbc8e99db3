"""The places that take anchors, each behind the same ``Target``."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cdc_audit import remote
from cdc_audit.model.anchor import AnchorKind, AnchorTarget, FileTarget, HttpTarget, S3Target


class Anchor(NamedTuple):
    """One block's anchor; ``line`` without line end."""

    schema: str
    block: int
    line: bytes


class Target(Protocol):
    """A place that takes anchors. ``name`` holds nothing secret."""

    @property
    def kind(self) -> AnchorKind:
        """What sort of place it is."""

    @property
    def name(self) -> str:
        """How it is called in the log."""

    def append(self, anchor: Anchor) -> None:
        """Add an anchor, durably. Raises OSError or CdcAuditError without secrets; may block."""


def open_target(target: AnchorTarget, token_file: str) -> Target:
    """What appends to a target; nothing is opened or looked up yet. Raises SettingError where boto3 is needed and missing."""
    match target:
        case FileTarget():
            return FileAnchor(target)
        case HttpTarget():
            return HttpAnchor(target, token_file)
        case S3Target():
            remote.require_boto3()
            return S3Anchor(target)


class FileAnchor:
    """An append-only file."""

    kind: AnchorKind = "file"

    def __init__(self, target: FileTarget) -> None:
        self.name = target.name
        self._path = Path(target.path)

    def append(self, anchor: Anchor) -> None:
        """See ``Target``."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags, 0o644), "ab", buffering=0) as file:
            torn = file.tell() > 0 and not self._ends_well()
            file.write((b"\n\n" if torn else b"") + anchor.line + b"\n")
            os.fsync(file.fileno())

    def _ends_well(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class HttpAnchor:
    """An endpoint: each anchor is the body of a POST, and any status from 200 to 299 says that it is kept."""

    kind: AnchorKind = "https"

    def __init__(self, target: HttpTarget, token_file: str) -> None:
        self.name = target.name
        self._url = target.url
        self._token_file = token_file

    def append(self, anchor: Anchor) -> None:
        """See ``Target``. The token is read each time: it may have been replaced."""
        with remote.http_answer(self._url, method="POST", token_file=self._token_file, body=anchor.line):
            pass


class S3Anchor:
    """One object per anchor, locked for as long as the target says, with its SHA-256 for S3 to check."""

    kind: AnchorKind = "s3"

    def __init__(self, target: S3Target) -> None:
        self.name = target.name
        self._target = target
        self._client: Any = None

    def append(self, anchor: Anchor) -> None:
        """See ``Target``. One attempt: the next block is the next one."""
        self._client = self._client or remote.s3_client(attempts=1)
        target, body = self._target, anchor.line + b"\n"
        lock = {}
        if target.mode:
            until = datetime.now(UTC) + timedelta(days=target.days)
            lock = {"ObjectLockMode": target.mode, "ObjectLockRetainUntilDate": until}
        with remote.s3_errors():
            self._client.put_object(
                Bucket=target.bucket,
                Key=target.key(anchor.schema, anchor.block),
                Body=body,
                ContentType="application/json",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
                **lock,
            )
