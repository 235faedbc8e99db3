"""What was kept for long enough goes for good: never what is held or locked, never in silence, and the proof of the rest stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cdc_audit import failpoint
from cdc_audit.config import Redact
from cdc_audit.sink.redaction import load_redaction
from tests.integration.trail.archiving import MARCH, Scene
from tests.integration.trail.tampering import BEN
from tests.support.object_store import ObjectStore

# With this, all months of 2025 are past their time.
OVER = {"RETENTION_HOT": "1 month", "RETENTION_KEEP": "1 month"}

POINTS = ("purge-recorded", "purge-noted", "purge-deleted")  # failpoints


def archives(scene: Scene, kind: str) -> list[str]:
    """The months of an archive that have files of a kind: rows, blocks."""
    folder = scene.folder / "archive/audit" / kind
    return sorted(path.name.removeprefix("month=") for path in folder.iterdir() if list(path.iterdir()))


def planned(scene: Scene) -> dict[str, tuple[str, str, str]]:
    """Months of 2025 as ``archive plan`` sees them: where, what, why."""
    said = [json.loads(line) for line in scene.told("archive", "plan", "--json", **OVER).splitlines()]
    return {one["month"]: (one["where"], one["step"], one["why"]) for one in said if one["month"] < "2025-04"}


def test_rows_of_archives_past_their_time_go_and_headers_and_proofs_stay(scene: Scene) -> None:
    scene.told("archive", "run")
    assert scene.told("archive", "purge") == "nothing to purge: keep is 7 years\n"
    assert {one[:2] for one in planned(scene).values()} == {("archive", "purge")}
    said = scene.told("archive", "purge", "--dry-run", **OVER)
    assert said.count("would be purged") == 3 and len(archives(scene, "rows")) == 3
    assert scene.server.execute(
        "select count(*) from audit.ledger where kind = 'purge'", dbname=scene.name
    ) == [(0,)]
    assert scene.told("archive", "purge", **OVER).count(" purged, ledger block ") == 3
    assert archives(scene, "rows") == [] and archives(scene, "blocks") == ["2025-01", "2025-02", "2025-03"]
    scene.verified()
    told = scene.told("verify", "--public-key", scene.public, "--archive", scene.place)
    assert "archived: 18 rows" in told and "purged: 18 of them are nowhere any more" in told
    assert "3 archives were purged" in scene.told("archive", "verify", "--public-key", scene.public)
    assert {one[:2] for one in planned(scene).values()} == {("purged", "keep")}
    assert scene.told("archive", "list").count("purged 2") == 3
    assert scene.told("archive", "purge", **OVER).startswith("nothing to purge")
    assert "2025-02: purged, as block" in scene.call("archive", "restore", "--since", "2025-02").stderr


def test_rows_that_are_gone_without_a_purge_and_notes_that_do_not_fit_are_named(scene: Scene) -> None:
    scene.told("archive", "run")
    root = scene.folder / "archive/audit"
    rows = sorted(root.glob("rows/*/*"))
    contents = [path.read_bytes() for path in rows]
    scene.told("archive", "purge", **OVER)
    notes = sorted(root.glob("purges/*"))

    def found() -> str:
        return scene.call("archive", "verify", "--public-key", scene.public, AUDIT_DSN="").output

    kept = notes[1].read_bytes()
    notes[1].unlink()
    assert f"audit/rows/month=2025-02/{rows[1].name}: it is not here" in found()
    notes[1].write_bytes(notes[0].read_bytes())
    assert "it is the note of another archive" in found()
    for at in range(0, len(kept), 40):
        notes[1].write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
        assert f"audit/purges/{notes[1].name}: " in found()
    notes[1].write_bytes(kept)
    assert "verified" in found()
    headers = sorted(root.glob("blocks/*/*"))[1]
    headers.write_bytes(b"x" + headers.read_bytes()[1:])
    assert "it is not the file" in found()
    rows[0].write_bytes(contents[0])  # put back: read, and whole
    assert f"audit/rows/month=2025-01/{rows[0].name}" not in found()


def test_killed_at_each_step_it_is_repeated_to_its_end(scene: Scene) -> None:
    """K19: in each of the months, at each step in turn."""
    scene.told("archive", "run")
    for point in POINTS:
        env = {**scene.environment(**OVER), failpoint.VARIABLE: f"{point}:1"}
        done = subprocess.run(
            [sys.executable, "-m", "cdc_audit", "archive", "purge"], env=env, capture_output=True
        )
        assert done.returncode == -signal.SIGKILL
        scene.told("verify", "--public-key", scene.public, "--archive", scene.place)
        if point != "purge-recorded":
            scene.verified()
    scene.told("archive", "purge", **OVER)
    assert archives(scene, "rows") == []
    scene.verified()
    count = "select count(*), count(distinct detail -> 'manifest') from audit.ledger where kind = 'purge'"
    assert scene.server.execute(count, dbname=scene.name) == [(3, 3)]


@pytest.mark.parametrize(
    "hold",
    [
        ("--table", "public.orders", "--since", "2025-02-01", "--until", "2025-03-01"),
        ("--user", "ben@shop.example", "--until", "2025-12-31"),
        ("--table", "orders", "--record", "8"),
    ],
    ids=" ".join,
)
def test_an_archive_with_a_row_under_a_hold_is_not_purged_until_it_is_released(
    scene: Scene, hold: tuple[str, ...]
) -> None:
    scene.told("archive", "run")
    number = scene.told("hold", "add", *hold, "--reason", "case 2026-118").split(":")[0].split()[1]
    assert planned(scene)["2025-02"] == ("archive", "held", f"under hold {number}")
    assert f"2025-02: 6 rows stay: under hold {number}" in scene.told("archive", "purge", **OVER)
    assert "2025-02" in archives(scene, "rows") and len(archives(scene, "rows")) < 3
    scene.told("hold", "release", number, "--reason", "closed")
    scene.told("archive", "purge", **OVER)
    assert archives(scene, "rows") == []
    scene.verified()


def test_months_that_nothing_archives_go_only_if_that_is_said_and_their_personal_values_with_them(
    scene: Scene,
) -> None:
    scene.write(
        lambda writer: writer.data(2, MARCH, context=BEN),
        load_redaction(Redact(personal_context=("user_email",))),
    )
    held = (
        scene.told("hold", "add", "--table", "orders", "--record", "8", "--reason", "x")
        .split()[1]
        .rstrip(":")
    )
    assert scene.told("archive", "purge", **OVER).startswith("nothing to purge") and len(scene.months()) == 3
    said = scene.told("archive", "purge", "--without-archive", "--dry-run", **OVER)
    assert said.count("would be purged") == 2 and len(scene.months()) == 3
    said = scene.told("archive", "purge", "--without-archive", **OVER)
    assert f"2025-02: 6 rows stay: under hold {held}" in said and "2025-03: 5 rows purged" in said
    assert scene.months() == ["2025_02"]
    values = scene.server.execute(
        "select count(*), count(value) from audit.personal_values", dbname=scene.name
    )
    assert values == [(2, 0)]
    told = scene.told("verify", "--public-key", scene.public)
    assert "verified" in told and "purged: 14 of them" in told and "erased: 2 values" in told
    assert scene.told("archive", "list").count("never archived") == 2
    scene.told("hold", "release", held, "--reason", "x")
    scene.told("archive", "run")  # what goes to an archive afterwards names no manifest that isn't there
    scene.verified()


def test_the_personal_values_of_a_purged_archive_are_erased(scene: Scene) -> None:
    scene.write(
        lambda writer: writer.data(2, MARCH, context=BEN),
        load_redaction(Redact(personal_context=("user_email",))),
    )
    scene.told("archive", "run")
    scene.told("archive", "purge", **OVER)
    values = scene.server.execute(
        "select count(*), count(value) from audit.personal_values", dbname=scene.name
    )
    assert values == [(2, 0)]
    scene.verified()
    assert scene.told("erase", "--user", "u2", "--reason", "x") == "no personal values found\n"


def refused(action: Any, **options: Any) -> str:
    with pytest.raises(ClientError) as error:
        action(**options)
    return str(error.value.response["Error"]["Code"])


def test_a_bucket_in_compliance_mode_refuses_deletion_and_shortening_and_the_tool_says_so_plainly(
    scene: Scene, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    bucket, client = object_store.bucket(), object_store.client()
    scene.place = f"s3://{bucket}/trail?mode=COMPLIANCE&days=2"
    scene.told("archive", "run", "--months", "1")
    scene.place = f"s3://{bucket}/trail?mode=GOVERNANCE&days=3"
    scene.told("archive", "run", "--months", "1")
    scene.place = f"s3://{bucket}/trail"
    scene.told("archive", "run")
    now = datetime.now(UTC)
    for key in (one for one in object_store.keys(bucket) if "2025-01" in one):
        version = {
            "Bucket": bucket,
            "Key": key,
            "VersionId": client.head_object(Bucket=bucket, Key=key)["VersionId"],
        }
        for bypass in (False, True):
            assert (
                refused(client.delete_object, BypassGovernanceRetention=bypass, **version) == "AccessDenied"
            )
            for mode, days in (("COMPLIANCE", 1), ("GOVERNANCE", 2), ("GOVERNANCE", 9)):
                wanted = {"Mode": mode, "RetainUntilDate": now + timedelta(days=days)}
                code = refused(
                    client.put_object_retention, Retention=wanted, BypassGovernanceRetention=bypass, **version
                )
                assert code == "AccessDenied"
    plan = planned(scene)
    for month, mode, days in (("2025-01", "COMPLIANCE", 2), ("2025-02", "GOVERNANCE", 3)):
        until = max(
            client.get_object_retention(Bucket=bucket, Key=key)["Retention"]["RetainUntilDate"]
            for key in object_store.keys(bucket)
            if month in key
        )
        assert abs(until - now - timedelta(days=days)) < timedelta(minutes=5)
        assert plan[month][1:] == ("locked", f"locked until {until:%Y-%m-%d %H:%M} ({mode})")
    assert plan["2025-03"][1] == "purge"
    key = next(one for one in object_store.keys(bucket) if "/rows/month=2025-03" in one)
    client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "ON"})
    why = "locked by a legal hold of the object store, until somebody ends that"
    assert planned(scene)["2025-03"][1:] == ("locked", why)
    client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "OFF"})
    said = scene.told("archive", "purge", **OVER).splitlines()
    assert [line.partition(" rows ")[2][:12] for line in said] == [
        "stay: locked",
        "stay: locked",
        "purged, ledg",
    ]
    left = [
        one
        for one in client.list_object_versions(Bucket=bucket).get("Versions", [])
        if "/rows/" in one["Key"]
    ]
    assert len(left) == 2
    scene.verified()
