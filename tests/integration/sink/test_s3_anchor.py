"""Anchors in a bucket with Object Lock: what nobody can take away, and what a verifier reads when somebody tried."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cdc_audit.model.anchor import parse_target
from cdc_audit.trail.anchor_sources import read_source
from cdc_audit.trail.verify_anchors import Anchors
from tests.integration.sink.test_http_anchor import anchored, reason
from tests.support.object_store import ObjectStore
from tests.unit.trail.test_verify_anchors import anchor

KEY = "p/audit/00000000000000000007.json"


@pytest.fixture
def store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return object_store


def read(target: str) -> Anchors:
    anchors = Anchors("audit", {})
    read_source(anchors, parse_target(target))
    return anchors


def refusal(action: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as refused:
        action(**arguments)
    return str(refused.value.response["Error"]["Code"])


def first_version(store: ObjectStore, bucket: str) -> dict[str, str]:
    versions = store.client().list_object_versions(Bucket=bucket, Prefix=KEY)["Versions"]
    return {"Bucket": bucket, "Key": KEY, "VersionId": versions[-1]["VersionId"]}


def test_an_anchor_in_compliance_mode_can_be_taken_away_by_nobody_before_its_time(store: ObjectStore) -> None:
    bucket, client = store.bucket(), store.client()
    name = f"s3://{bucket}/p"
    assert anchored(f"{name}?mode=COMPLIANCE&days=30", 7) == ("s3", name, None)
    assert store.keys(bucket) == [KEY]
    one = first_version(store, bucket)
    kept = client.get_object_retention(**one)["Retention"]
    assert kept["Mode"] == "COMPLIANCE"
    assert abs(kept["RetainUntilDate"] - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    assert refusal(client.delete_object, **one) == "AccessDenied"
    assert refusal(client.delete_object, **one, BypassGovernanceRetention=True) == "AccessDenied"
    soon = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=5)}
    assert refusal(client.put_object_retention, **one, Retention=soon) == "AccessDenied"
    suspended = {"Status": "Suspended"}
    assert refusal(client.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=suspended)
    assert (list(read(name).hashes), read(name).notes, read(name).missing) == ([7], [], [])


def test_governance_mode_is_stored_and_can_be_bypassed(store: ObjectStore) -> None:
    bucket, client = store.bucket(), store.client()
    assert reason(f"s3://{bucket}/p?mode=GOVERNANCE&days=1", 7) is None
    one = first_version(store, bucket)
    assert refusal(client.delete_object, **one) == "AccessDenied"
    client.delete_object(**one, BypassGovernanceRetention=True)
    assert read(f"s3://{bucket}/p").missing == [f"anchor s3://{bucket}/p: holds no anchor of schema audit"]


def test_without_mode_and_days_the_buckets_own_default_locks(store: ObjectStore) -> None:
    bucket, client = store.bucket(), store.client()
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    assert reason(f"s3://{bucket}/p", 7) is None
    assert refusal(client.delete_object, **first_version(store, bucket)) == "AccessDenied"


def test_what_was_deleted_without_its_version_still_counts_and_is_told(store: ObjectStore) -> None:
    bucket, name = store.bucket(), ""
    name = f"s3://{bucket}/p"
    for block in (7, 8):
        assert reason(f"{name}?mode=COMPLIANCE&days=1", block) is None
    store.client().delete_object(Bucket=bucket, Key=KEY)
    assert len(store.keys(bucket)) == 1
    anchors = read(name)
    assert (sorted(anchors.hashes), anchors.twice, anchors.missing) == ([7, 8], [], [])
    assert anchors.notes == [
        f"anchor {name}: overwritten or deleted since: 1 objects, the first is {KEY}; the oldest version of each counts"
    ]


@pytest.mark.parametrize(
    ("body", "twice"), [(anchor(7, b"x" * 32), [7]), (anchor(7, b"h" * 32), []), (b"", []), (b"junk", [])]
)
def test_of_what_was_overwritten_the_oldest_version_counts_and_another_hash_is_a_finding(
    store: ObjectStore, body: bytes, twice: list[int]
) -> None:
    bucket = store.bucket()
    name = f"s3://{bucket}/p"
    assert reason(f"{name}?mode=COMPLIANCE&days=1", 7) is None
    store.client().put_object(Bucket=bucket, Key=KEY, Body=body)
    anchors = read(name)
    assert (anchors.hashes, anchors.twice, anchors.missing) == ({7: b"h" * 32}, twice, [])
    assert "overwritten or deleted since: 1 objects" in anchors.notes[0]


def test_an_object_that_never_was_an_anchor_is_missing_evidence_and_the_others_count(
    store: ObjectStore,
) -> None:
    bucket = store.bucket()
    for number, body in enumerate((b"", b"junk", b"{}", anchor(1, b"h" * 32, "other"))):
        store.client().put_object(Bucket=bucket, Key=f"p/audit/{number}.json", Body=body)
    assert reason(f"s3://{bucket}/p", 7) is None
    anchors = read(f"s3://{bucket}/p")
    assert (list(anchors.hashes), len(anchors.missing)) == ([7], 1)
    assert "p/audit/0.json: not an anchor of schema audit, and 3 more" in anchors.missing[0]


def test_more_anchors_than_a_page_holds_are_all_read(store: ObjectStore) -> None:
    bucket, client = store.bucket(), store.client()
    target = parse_target(f"s3://{bucket}/p")
    assert target.kind == "s3"

    def put(block: int) -> None:
        key = f"p/audit/{block:020}.json"
        client.put_object(Bucket=bucket, Key=key, Body=anchor(block, bytes([block % 256]) * 32))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1010)))
    put(999)
    put(1000)
    anchors = read(f"s3://{bucket}/p")
    assert (sorted(anchors.hashes), anchors.missing, anchors.twice) == (list(range(1010)), [], [])
    assert "2 objects" in anchors.notes[0]


def test_a_bucket_that_is_not_there_does_not_lock_or_does_not_let_in_is_a_failure_with_its_reason(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = store.bucket(locks=False)
    assert reason("s3://no-such-bucket/p?mode=COMPLIANCE&days=1") is not None
    assert reason(f"s3://{plain}/p?mode=COMPLIANCE&days=1") == "PutObject was refused: InvalidRequest"
    assert read("s3://no-such-bucket/p").missing == [
        "anchor s3://no-such-bucket/p: ListObjectVersions was refused: NoSuchBucket"
    ]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    assert reason(f"s3://{plain}/p") == "PutObject was refused: SignatureDoesNotMatch"
    assert "SignatureDoesNotMatch" in read(f"s3://{plain}/p").missing[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert reason(f"s3://{plain}/p") == "S3: EndpointConnectionError"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    assert reason(f"s3://{plain}/p") == "S3: ValueError"
