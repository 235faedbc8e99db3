"""Doctor's checks of the anchors: each can be reached by the daemon's own means, and keeps what it is given."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cdc_audit import remote
from cdc_audit.config import Config
from cdc_audit.errors import UnavailableError
from cdc_audit.model.anchor import AnchorTarget, FileTarget, HttpTarget, S3Target, parse_target
from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.sink.key_file import most_rights

_NO_SUCH_METHOD = {"405", "501"}  # HEAD isn't known there: somebody answered, which is what was asked
_TOKEN = "[ledger] anchor_token_file"  # noqa: S105 - a key's name


class Kept(NamedTuple):
    """What a bucket is to keep, and the key that names it."""

    what: str
    key: str


_ANCHORS = Kept("anchors", "[ledger] anchors")


def anchor_checks(config: Config) -> list[Check]:
    """One check for each target, in the configuration's order; one that says so where there is none."""
    targets = [parse_target(target) for target in config.ledger.anchors]
    if not targets:
        return [Check("anchors", "audit", _none)]
    return [Check(f"anchor_{number}", "audit", _check(one)) for number, one in enumerate(targets, 1)]


def _none(session: Session) -> Outcome:
    del session
    return Outcome(
        "info",
        "no anchors: a tail that is cut off the trail, or an older state of it, could not be told",
        'anchors = ["file:/mnt/elsewhere/anchors.jsonl"] in section [ledger] of cdc-audit.toml; or https://, s3://',
    )


def _check(target: AnchorTarget) -> Callable[[Session], Outcome]:
    def run(session: Session) -> Outcome:
        match target:
            case FileTarget():
                return _file(target)
            case HttpTarget():
                return _http(target, session.config.ledger.anchor_token_file)
            case S3Target():
                return bucket(target, _ANCHORS)

    return run


def _file(target: FileTarget) -> Outcome:
    path = Path(target.path)
    place = path if path.exists() else path.parent
    if not path.parent.is_dir():
        return Outcome(
            "fail", f"{target.name}: its folder is not there", f"mkdir -p {shlex.quote(str(path.parent))}"
        )
    if path.exists() and not path.is_file():
        return Outcome("fail", f"{target.name} is not a file", "name a file in [ledger] anchors")
    if not os.access(place, os.W_OK):
        message = f"{target.name}: this user may not write to {place}"
        remedy = f"chown {os.geteuid()} {shlex.quote(str(place))}\nor let doctor run as the daemon's user"
        return Outcome("fail", message, remedy)
    return Outcome("ok", f"{target.name} can be appended to")


def _http(target: HttpTarget, token_file: str) -> Outcome:
    try:
        with remote.http_answer(target.url, method="HEAD", token_file=token_file):
            pass
    except remote.RefusedError as error:
        if error.code in {"401", "403"}:
            return Outcome(
                "fail", f"{target.name}: {error.message}", f"put the endpoint's token into {_TOKEN}"
            )
        if error.code not in _NO_SUCH_METHOD:
            return Outcome(
                "warn",
                f"{target.name}: {error.message} to HEAD; whether it takes a POST is seen when the daemon runs",
                "let the endpoint answer POST and HEAD with 200",
            )
    except UnavailableError as error:
        remedy = f"start the endpoint, or correct [ledger] anchors and {_TOKEN}; for a certificate of your own: SSL_CERT_FILE"
        return Outcome("fail", f"{target.name}: {error.message}", remedy)
    if token_file:
        found = Path(token_file).stat()
        most = most_rights(found.st_uid)
        if stat.S_IMODE(found.st_mode) & ~most:
            message = f"{_TOKEN} {token_file}: others than its owner have rights on it"
            return Outcome("warn", message, f"chmod {most & ~0o100:o} {shlex.quote(token_file)}")
    return Outcome("ok", f"{target.name} answers")


def bucket(target: S3Target, kept: Kept) -> Outcome:
    """Whether a bucket is there, keeps versions and locks what is written."""
    bucket, name = target.bucket, target.name
    try:
        client = remote.s3_client(attempts=1)
        with remote.s3_errors():
            client.head_bucket(Bucket=bucket)
    except remote.RefusedError as error:
        remedy = f"aws s3api create-bucket --object-lock-enabled-for-bucket --bucket {bucket}"
        if error.code != "404":
            remedy = f"allow the daemon's identity s3:ListBucket, s3:PutObject and s3:PutObjectRetention on {bucket}"
        return Outcome("fail", f"{name}: {error.message}", remedy)
    except UnavailableError as error:
        remedy = "give credentials and region by AWS_* variables or a profile; another store than AWS by AWS_ENDPOINT_URL_S3"
        return Outcome("fail", f"{name}: {error.message}", remedy)
    return _s3_keeps(client, target, kept)


def _s3_keeps(client: Any, target: S3Target, kept: Kept) -> Outcome:
    """Whether what is written stays: versions, and a lock on each."""
    bucket, name = target.bucket, target.name
    new = f"aws s3api create-bucket --object-lock-enabled-for-bucket --bucket {bucket}-locked, and name it in {kept.key}"
    try:
        with remote.s3_errors():
            versioning = client.get_bucket_versioning(Bucket=bucket).get("Status")
            if versioning != "Enabled":
                remedy = f"aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled"
                return Outcome(
                    "fail", f"{name}: the bucket keeps no versions: {kept.what} can be overwritten", remedy
                )
            lock = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    except remote.RefusedError as error:
        if error.code == "ObjectLockConfigurationNotFoundError":
            return Outcome("fail", f"{name}: the bucket has no Object Lock: {kept.what} can be deleted", new)
        remedy = f"allow s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration on {bucket}"
        return Outcome(
            "warn", f"{name}: whether it keeps what is written can't be seen: {error.message}", remedy
        )
    default = lock.get("Rule", {}).get("DefaultRetention", {})
    if not target.mode and not default:
        remedy = f'say "{name}?mode=COMPLIANCE&days=2555" in {kept.key}'
        return Outcome(
            "fail", f"{name}: neither target nor bucket says how long {kept.what} are locked", remedy
        )
    mode = target.mode or default.get("Mode", "")
    if mode != "COMPLIANCE":
        remedy = f"mode=COMPLIANCE, if nobody at all is to delete {kept.what} before their time"
        return Outcome(
            "warn", f"{name}: {kept.what} are locked in mode {mode}, which a permission bypasses", remedy
        )
    return Outcome("ok", f"{name} keeps versions and locks them ({mode})")
