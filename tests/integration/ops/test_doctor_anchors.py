"""Doctor on anchors that can or can't be reached, or that keep nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_audit.ops.check import Result
from tests.integration.ops.patient import Patient
from tests.support.anchor_endpoint import Endpoint
from tests.support.object_store import ObjectStore


def examined(patient: Patient, *targets: str, token_file: object = "") -> list[Result]:
    patient.configure("ledger", anchors=targets, anchor_token_file=str(token_file))
    results = patient.examine()
    return [results[f"anchor_{number}"] for number in range(1, len(targets) + 1)]


def test_no_anchor_is_told_and_fails_nothing(healthy: Patient) -> None:
    result = healthy.examine()["anchors"]
    assert (result.status, "[ledger]" in result.remedy) == ("info", True)


def test_a_file_that_can_or_cannot_be_appended_to(healthy: Patient, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    there, new, folder, lost = examined(
        healthy,
        f"file:{tmp_path}/there",
        f"file:{tmp_path}/new",
        f"file:{tmp_path}",
        f"file:{tmp_path}/lost/file",
    )
    assert (there.status, new.status, folder.status, lost.status) == ("ok", "ok", "fail", "fail")
    assert lost.remedy == f"mkdir -p {tmp_path}/lost"
    assert not (tmp_path / "new").exists(), "nothing is changed"


def test_an_endpoint_that_answers_refuses_or_is_away(healthy: Patient, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o600)
    with Endpoint(token="secret") as endpoint:
        url = f"{endpoint.url}?key=secret"
        (refused,) = examined(healthy, url)
        assert (refused.status, "anchor_token_file" in refused.remedy) == ("fail", True)
        (well,) = examined(healthy, url, token_file=token)
        assert (well.status, well.message) == ("ok", f"{endpoint.url} answers")
        token.chmod(0o644)
        assert examined(healthy, url, token_file=token)[0].status == "warn"
        endpoint.status = 501
        assert examined(healthy, endpoint.url, token_file=token)[0].status == "warn"
        endpoint.status = 404
        assert "it answered 404" in examined(healthy, endpoint.url, token_file=token)[0].message
        assert endpoint.lines == [], "nothing is posted"
    (away,) = examined(healthy, url)
    assert (away.status, "Connection refused" in away.message, "secret" in str(away)) == ("fail", True, False)


def test_a_bucket_that_locks_and_one_that_does_not(
    healthy: Patient, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    locks, plain, versions = object_store.bucket(), object_store.bucket(locks=False), None
    versions = object_store.bucket(locks=False)
    object_store.client().put_bucket_versioning(
        Bucket=versions, VersioningConfiguration={"Status": "Enabled"}
    )
    good, weak, unsaid, bare, unlocked, missing = examined(
        healthy,
        f"s3://{locks}/p?mode=COMPLIANCE&days=1",
        f"s3://{locks}/p?mode=GOVERNANCE&days=1",
        f"s3://{locks}/p",
        f"s3://{plain}/p?mode=COMPLIANCE&days=1",
        f"s3://{versions}/p?mode=COMPLIANCE&days=1",
        "s3://no-such-bucket/p",
    )
    assert [one.status for one in (good, weak, unsaid)] == ["ok", "warn", "fail"]
    assert f"s3://{locks}/p?mode=COMPLIANCE&days=2555" in unsaid.remedy
    assert (bare.status, "put-bucket-versioning" in bare.remedy) == ("fail", True)
    assert (unlocked.status, "--object-lock-enabled-for-bucket" in unlocked.remedy) == ("fail", True)
    assert (missing.status, "create-bucket" in missing.remedy) == ("fail", True)
    assert object_store.keys(locks) == [], "nothing is written"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (refused,) = examined(healthy, f"s3://{locks}/p")
    assert (refused.status, "s3:PutObject" in refused.remedy) == ("fail", True)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    (away,) = examined(healthy, f"s3://{locks}/p")
    assert (away.status, "AWS_ENDPOINT_URL_S3" in away.remedy) == ("fail", True)
