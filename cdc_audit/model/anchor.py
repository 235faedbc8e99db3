"""Where anchors are kept: what ``[ledger] anchors`` and ``verify --anchor`` name. Pure: nothing is opened here.

- ``file:/absolute/path``
- ``https://host/path``; ``http://`` on this machine only, for what is sent there proves something only if nobody can change
  it on its way, and the token is to stay secret
- ``s3://bucket/prefix?mode=COMPLIANCE&days=2555``: mode and days are the Object Lock retention of each object; without them
  the bucket's own default holds
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit, urlunsplit

AnchorKind: TypeAlias = Literal["file", "https", "s3"]
LockMode: TypeAlias = Literal["", "COMPLIANCE", "GOVERNANCE"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class FileTarget:
    """An append-only file."""

    path: str
    kind: ClassVar[AnchorKind] = "file"

    @property
    def name(self) -> str:
        """How it is called in logs and messages."""
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An endpoint that takes anchors by POST. Its query may hold a secret."""

    url: str
    kind: ClassVar[AnchorKind] = "https"

    @property
    def name(self) -> str:
        """How it is called in logs and messages: without its query."""
        return urlunsplit(urlsplit(self.url)._replace(query=""))


@dataclass(frozen=True, slots=True)
class S3Target:
    """Objects of a bucket. ``mode`` "" and ``days`` 0: the bucket's default retention."""

    bucket: str
    prefix: str
    mode: LockMode = ""
    days: int = 0
    kind: ClassVar[AnchorKind] = "s3"

    @property
    def name(self) -> str:
        """How it is called in logs and messages."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def folder(self, schema: str) -> str:
        """What the keys of one ledger begin with."""
        return f"{self.prefix}/{schema}/".lstrip("/")

    def key(self, schema: str, block: int) -> str:
        """The object of one block; keys sort as blocks do."""
        return f"{self.folder(schema)}{block:020}.json"


AnchorTarget: TypeAlias = FileTarget | HttpTarget | S3Target


def parse_target(text: str) -> AnchorTarget:
    """The target that a text names. Raises ValueError that says what would be right, and never shows the text."""
    scheme = text.partition(":")[0]
    if scheme == "file" and text.startswith("file:/"):
        return FileTarget(text.removeprefix("file:"))
    if scheme in {"http", "https"}:
        return _http(text)
    if scheme == "s3":
        return _s3(text)
    raise ValueError("an anchor is file:/an/absolute/path, https://host/path or s3://bucket/prefix")


def _http(text: str) -> HttpTarget:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("an anchor is https://host/path, with a host, printable ASCII only")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError(
            "an https anchor has no user, password or fragment: name a token by [ledger] anchor_token_file"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("an http:// anchor is for this machine only (127.0.0.1, localhost): say https://")
    return HttpTarget(text)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _s3(text: str) -> S3Target:
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("an s3 anchor is s3://bucket/prefix?mode=COMPLIANCE&days=2555") from None
    if not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
        raise ValueError(
            "an s3 anchor is s3://bucket/prefix, with a bucket's name and nothing else before the slash"
        )
    if not options:
        return S3Target(parts.netloc, parts.path.strip("/"))
    mode, days = options.get("mode"), options.get("days", "")
    if options.keys() != {"mode", "days"} or not days.isdecimal() or not 1 <= int(days) <= _MOST_DAYS:
        raise ValueError(f"an s3 anchor takes mode and days (1 to {_MOST_DAYS}), both or neither")
    if mode not in ("COMPLIANCE", "GOVERNANCE"):
        raise ValueError("an s3 anchor's mode is COMPLIANCE or GOVERNANCE")
    return S3Target(parts.netloc, parts.path.strip("/"), mode, int(days))  # type: ignore[arg-type]
