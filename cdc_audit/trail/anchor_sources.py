"""Where a verifier's anchors come from: a file, an endpoint that gives back what it was sent, a bucket with all its versions.

The source is the verifier's choice and opened with the verifier's credentials; nothing of it is taken from the audit database.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from cdc_audit import remote
from cdc_audit.errors import IncompleteEvidenceError, UnavailableError, UsageError
from cdc_audit.model.anchor import AnchorTarget, FileTarget, HttpTarget, S3Target, parse_target
from cdc_audit.trail.verify_anchors import Anchors

_THREADS = 16
_AT_ONCE = 1000


def parse_source(given: str) -> AnchorTarget:
    """A path, or a target as ``[ledger] anchors`` has it. Raises UsageError."""
    if not given.startswith(("file:", "https:", "http:", "s3:")):
        return FileTarget(given)
    try:
        return parse_target(given)
    except ValueError as error:
        raise UsageError(f"--anchor: {error}") from None


def read_source(anchors: Anchors, source: AnchorTarget, token_file: str = "") -> None:
    """Add what a source holds. If it can't be read, holds what is no anchor, or none of this ledger: ``anchors.missing``.

    Raises SettingError where boto3 is needed and missing.
    """
    name = source.name.removeprefix("file:")
    try:
        match source:
            case FileTarget(path):
                with Path(path).open("rb") as lines:
                    count = anchors.read(lines, name)
            case HttpTarget(url):
                count = _read_answer(anchors, url, name, token_file)
            case S3Target():
                count = _read_bucket(anchors, source)
    except IncompleteEvidenceError as error:
        anchors.missing.append(error.message)
    except UnavailableError as error:
        anchors.missing.append(f"anchor {name}: {error.message}")
    except (OSError, HTTPException) as error:
        anchors.missing.append(f"anchor {name}: {getattr(error, 'strerror', None) or type(error).__name__}")
    else:
        if not count:
            anchors.missing.append(f"anchor {name}: holds no anchor of schema {anchors.schema}")


def _read_answer(anchors: Anchors, url: str, name: str, token_file: str) -> int:
    with remote.http_answer(url, method="GET", token_file=token_file) as answer:
        count = anchors.read(answer, name)
        if answer.length:  # what was promised and did not come: readline() keeps quiet about that
            raise IncompleteEvidenceError(f"anchor {name}: the answer broke off")
    return count


class _Version(NamedTuple):
    """One version of an object; ``is_first``: the oldest of its key, which is what the daemon wrote."""

    key: str
    version: str
    is_first: bool


def _read_bucket(anchors: Anchors, source: S3Target) -> int:
    """The oldest version of each object counts; a later one with another hash makes the block anchored twice.

    Overwriting and deleting in a bucket with versions only add versions and markers: they are told in ``notes``.
    """
    client = remote.s3_client(attempts=3)
    with remote.s3_errors():
        versions, touched = _list(client, source, anchors.schema)
        if touched:
            anchors.notes.append(
                f"anchor {source.name}: overwritten or deleted since: {len(touched):,} objects, the first is {touched[0]}; "
                "the oldest version of each counts"
            )
        count, wrong = 0, list[str]()
        for one, body in _bodies(client, source.bucket, versions):
            name = f"{source.name}: {one.key}"
            try:
                fits = anchors.read([body.strip() + b"\n"], name)
                reason = "" if fits else f"anchor {name}: not an anchor of schema {anchors.schema}"
            except IncompleteEvidenceError as error:
                fits, reason = 0, error.message
            count += fits
            if reason and one.is_first:
                wrong.append(reason)
    if wrong:
        others = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise IncompleteEvidenceError(wrong[0] + others)
    return count


def _list(client: Any, source: S3Target, schema: str) -> tuple[list[_Version], list[str]]:
    """All versions, the oldest of a key before its later ones; and the keys that somebody touched after they were written."""
    by_key: dict[str, list[str]] = {}
    touched: set[str] = set()
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=source.bucket, Prefix=source.folder(schema)
    )
    for page in pages:
        for version in page.get("Versions", ()):  # the newest of a key first
            by_key.setdefault(version["Key"], []).append(version["VersionId"])
        touched.update(marker["Key"] for marker in page.get("DeleteMarkers", ()))
    touched.update(key for key, ids in by_key.items() if len(ids) > 1)
    versions = [
        _Version(key, id_, number == 0)
        for key, ids in by_key.items()
        for number, id_ in enumerate(reversed(ids))
    ]
    return versions, sorted(touched)


def _bodies(client: Any, bucket: str, versions: list[_Version]) -> Iterator[tuple[_Version, bytes]]:
    def body(one: _Version) -> bytes:
        answer = client.get_object(Bucket=bucket, Key=one.key, VersionId=one.version)
        read: bytes = answer["Body"].read()
        return read

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(versions), _AT_ONCE):
            some = versions[start : start + _AT_ONCE]
            yield from zip(some, pool.map(body, some), strict=True)
