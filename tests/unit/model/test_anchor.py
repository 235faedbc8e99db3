"""What may be named as an anchor, and how it is called where others read."""

from __future__ import annotations

import pytest

from cdc_audit.model.anchor import FileTarget, HttpTarget, S3Target, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("file:/mnt/a b", FileTarget("/mnt/a b")),
        ("https://host.example:8443/path?key=1", HttpTarget("https://host.example:8443/path?key=1")),
        ("http://localhost/x", HttpTarget("http://localhost/x")),
        ("http://127.0.0.2:80", HttpTarget("http://127.0.0.2:80")),
        ("http://[::1]:80/", HttpTarget("http://[::1]:80/")),
        ("s3://bucket", S3Target("bucket", "")),
        ("s3://bucket/a/b/", S3Target("bucket", "a/b")),
        ("s3://bucket/a?mode=COMPLIANCE&days=2555", S3Target("bucket", "a", "COMPLIANCE", 2555)),
        ("s3://bucket/a?days=1&mode=GOVERNANCE", S3Target("bucket", "a", "GOVERNANCE", 1)),
    ],
)
def test_a_target_is_a_file_an_endpoint_or_a_bucket(text: str, target: object) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "file:/an/absolute/path, https://"),
        ("/secret", "file:/an/absolute/path, https://"),
        ("file:secret", "file:/an/absolute/path, https://"),
        ("ftp://secret/x", "file:/an/absolute/path, https://"),
        ("https://", "with a host"),
        ("https://secret:port/", "with a host"),
        ("https://secret/a b", "with a host"),
        ("https://secret/\u00e4", "with a host"),
        ("https://user:secret@host/", "anchor_token_file"),
        ("https://host/#secret", "anchor_token_file"),
        ("http://secret.example/", "say https://"),
        ("http://10.0.0.1/secret", "say https://"),
        ("http://localhost.secret.example/", "say https://"),
        ("s3://", "s3://bucket/prefix"),
        ("s3://se:cret@bucket/x", "s3://bucket/prefix"),
        ("s3://bucket/x#secret", "s3://bucket/prefix"),
        ("s3://bucket/x?mode=COMPLIANCE", "both or neither"),
        ("s3://bucket/x?mode=COMPLIANCE&days=0", "both or neither"),
        ("s3://bucket/x?mode=COMPLIANCE&days=36501", "both or neither"),
        ("s3://bucket/x?mode=COMPLIANCE&days=1&secret=1", "both or neither"),
        ("s3://bucket/x?mode=secret&days=1", "COMPLIANCE or GOVERNANCE"),
        ("s3://bucket/x?secret", "mode=COMPLIANCE"),
    ],
)
def test_what_is_no_target_is_refused_with_what_would_be_right_and_is_not_shown(
    text: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_target(text)
    assert reason in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_name_holds_no_query() -> None:
    assert parse_target("https://host/path?key=secret").name == "https://host/path"
    assert parse_target("s3://bucket/a?mode=COMPLIANCE&days=1").name == "s3://bucket/a"
    assert parse_target("s3://bucket").name == "s3://bucket"
    assert parse_target("file:/a?b").name == "file:/a?b"


def test_keys_of_blocks_sort_as_the_blocks_do() -> None:
    target = S3Target("bucket", "a/b")
    keys = [target.key("audit", block) for block in (0, 9, 10, 2**63 - 1)]
    assert keys == sorted(keys)
    assert keys[1] == "a/b/audit/00000000000000000009.json"
    assert S3Target("bucket", "").key("audit", 1) == "audit/00000000000000000001.json"
