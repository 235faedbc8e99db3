"""Doctor's check of the place of archives: it is there, and keeps what it is given for as long as ``[retention]`` says."""

from __future__ import annotations

import importlib.util
import os
import shlex
from pathlib import Path

from cdc_audit.config import Config
from cdc_audit.model.anchor import FileTarget, S3Target, parse_target
from cdc_audit.model.retention import Policy, span_text
from cdc_audit.ops.anchor_checks import Kept, bucket
from cdc_audit.ops.check import Check, Outcome, Session

_DAYS = 30.4  # a month
_KEPT = Kept("archives", "[retention] archive")


def archive_checks(config: Config) -> list[Check]:
    """None where nothing is archived."""
    return [Check("archive", "audit", _check)] if config.retention.archive else []


def _check(session: Session) -> Outcome:
    if importlib.util.find_spec("pyarrow") is None:
        return Outcome(
            "fail", "archives need pyarrow, which is not installed", "pip install 'cdc-audit[archive]'"
        )
    retention = session.config.retention
    match parse_target(retention.archive):
        case FileTarget() as folder:
            return _folder(folder)
        case S3Target() as target:
            found = bucket(target, _KEPT)
            return found if found.status == "fail" else _locked_for(target, retention.policy, found)
    return Outcome(
        "fail", "an archive is kept in a folder or a bucket", "say file:/folder or s3://bucket/prefix"
    )


def _folder(folder: FileTarget) -> Outcome:
    path = Path(folder.path)
    if not path.is_dir():
        return Outcome(
            "fail", f"{folder.name} is not a folder", f"mount it, or mkdir -p {shlex.quote(str(path))}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        remedy = (
            f"chown {os.geteuid()} {shlex.quote(str(path))}\nor let doctor run as the user of archive run"
        )
        return Outcome("warn", f"{folder.name}: this user may not write to it", remedy)
    return Outcome(
        "info",
        f"{folder.name} can be written to; whoever may write there can delete archives, which verify --archive tells",
        "a bucket with Object Lock keeps them: s3://bucket/prefix?mode=COMPLIANCE&days=2555",
    )


def _locked_for(target: S3Target, policy: Policy, found: Outcome) -> Outcome:
    """Whether the lock fits what has to be kept: from when a month is archived, until it may be purged."""
    months = policy.keep - policy.hot
    days = round(months * _DAYS)
    if target.mode and target.days < days - 31:
        return Outcome(
            "warn",
            f"{target.name}: archives are locked for {target.days} days, but when they are made they have to be kept for "
            f"{span_text(months)} more",
            f'say "{target.name}?mode={target.mode}&days={days}" in [retention] archive',
        )
    if target.mode and target.days > days + 31 and found.status == "ok":
        what = f"{target.name} locks archives for {target.days} days, longer than keep: until then nobody can purge them"
        return Outcome("info", what, f"days={days}, if they are to go when keep says")
    return found
