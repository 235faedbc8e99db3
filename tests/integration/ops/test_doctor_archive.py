"""Doctor on the place of archives: there, keeping what it gets, and for as long as rows have to be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_audit.ops.check import Result
from tests.integration.ops.patient import Patient
from tests.support.object_store import ObjectStore


def examined(patient: Patient, place: str) -> Result:
    patient.configure("retention", archive=place, hot="1 month", keep="13 months")
    return patient.examine()["archive"]


def test_a_folder_is_there_or_is_not_and_nothing_is_checked_where_nothing_is_archived(
    healthy: Patient, tmp_path: Path
) -> None:
    assert "archive" not in healthy.examine()
    there = examined(healthy, f"file:{tmp_path}")
    assert (there.status, "Object Lock" in there.remedy) == ("info", True)
    lost = examined(healthy, f"file:{tmp_path}/lost")
    assert (lost.status, f"mkdir -p {tmp_path}/lost" in lost.remedy) == ("fail", True)


def test_a_bucket_must_keep_versions_and_lock_them_for_as_long_as_rows_have_to_be_kept(
    healthy: Patient, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    locks, plain = object_store.bucket(), object_store.bucket(locks=False)
    good = examined(healthy, f"s3://{locks}/p?mode=COMPLIANCE&days=365")
    assert (good.status, good.message) == ("ok", f"s3://{locks}/p keeps versions and locks them (COMPLIANCE)")
    short = examined(healthy, f"s3://{locks}/p?mode=COMPLIANCE&days=30")
    assert (short.status, "locked for 30 days" in short.message) == ("warn", True)
    assert "mode=COMPLIANCE&days=365" in short.remedy and "1 year more" in short.message
    long = examined(healthy, f"s3://{locks}/p?mode=COMPLIANCE&days=999")
    assert (long.status, "nobody can purge them" in long.message) == ("info", True)
    weak = examined(healthy, f"s3://{locks}/p?mode=GOVERNANCE&days=365")
    assert (weak.status, "archives are locked in mode GOVERNANCE" in weak.message) == ("warn", True)
    unsaid = examined(healthy, f"s3://{locks}/p")
    assert (unsaid.status, "[retention] archive" in unsaid.remedy) == ("fail", True)
    bare = examined(healthy, f"s3://{plain}/p?mode=COMPLIANCE&days=365")
    assert (bare.status, "archives can be overwritten" in bare.message) == ("fail", True)
    assert object_store.keys(locks) == [], "nothing is written"


def test_rows_in_the_default_partition_are_told_with_the_way_out(patient: Patient) -> None:
    columns = (
        "id, created_at, schema_name, table_name, action, context_trust, capture, commit_lsn, seq, row_hash"
    )
    values = "1, '2020-03-01', 's', 't', 'INSERT', 'none', 'full', '0/1', 1, ''"
    patient.on_audit(f"insert into audit.audit_logs ({columns}) values ({values})")
    patient.on_audit("analyze audit.audit_logs_default")
    found = patient.examine()["audit_partitions"]
    assert (found.status, found.remedy) == ("warn", "cdc-audit schema partitions --drain")
