"""``archive fetch``: what is in the folder afterwards proves itself, with nothing else at hand; and nothing else gets in."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.trail.archiving import Scene, flipped
from tests.support.object_store import ObjectStore

OVER = {"RETENTION_HOT": "1 month", "RETENTION_KEEP": "1 month"}
ONE = ("--since", "2025-02", "--until", "2025-02")


@pytest.fixture
def archived(scene: Scene) -> Scene:
    """Three months in archives: nine files."""
    scene.told("archive", "run")
    return scene


def fetched(scene: Scene, *more: str) -> dict[str | None, tuple[int, int]]:
    """Fetch into ``copy``: by month, files that came and files that were here."""
    said = scene.told("archive", "fetch", str(scene.folder / "copy"), "--json", *more, AUDIT_DSN="")
    return {one["month"]: (one["files"], one["here"]) for one in map(json.loads, said.splitlines())}


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def verified(scene: Scene, *more: str) -> str:
    """What ``archive verify`` says of the copy, with neither a database nor the archives."""
    ask = (
        "archive",
        "verify",
        "--archive",
        f"file:{scene.folder / 'copy'}",
        "--public-key",
        scene.public,
        *more,
    )
    return scene.call(*ask, AUDIT_DSN="", RETENTION_ARCHIVE="").output


def test_a_copy_is_verified_when_everything_else_is_gone(archived: Scene) -> None:
    said = archived.told("archive", "fetch", str(archived.folder / "copy"), AUDIT_DSN="").splitlines()
    files = contents(archived.folder / "archive")
    assert contents(archived.folder / "copy") == files and len(files) == 9
    sizes = {
        what: sum(len(content) for name, content in files.items() if what in name)
        for what in ("manifests", "month=2025-01", "month=2025-02", "month=2025-03")
    }
    assert said[:4] == [
        f"{what.removeprefix('month=')}: {3 if what == 'manifests' else 2} files, {size:,} bytes"
        for what, size in sizes.items()
    ]
    shutil.rmtree(archived.folder / "archive")
    how = said[4].removeprefix("to verify them: cdc-audit ").replace("FILE", archived.public).split()
    assert archived.told(*how, AUDIT_DSN="", RETENTION_ARCHIVE="").endswith("\nverified\n")


def test_of_chosen_months_only_manifests_come_besides_and_the_copy_proves_just_these(archived: Scene) -> None:
    assert fetched(archived, *ONE) == {None: (3, 0), "2025-02": (2, 0)}
    files = contents(archived.folder / "archive")
    assert contents(archived.folder / "copy") == {
        name: content for name, content in files.items() if "manifests" in name or "2025-02" in name
    }
    assert verified(archived, *ONE).endswith("2 archives of other months: only their manifests\nverified\n")
    assert "month=2025-01/" in verified(archived) and "it is not here" in verified(archived)
    assert fetched(archived) == {None: (0, 3), "2025-01": (2, 0), "2025-02": (0, 2), "2025-03": (2, 0)}
    assert contents(archived.folder / "copy") == files
    next((archived.folder / "copy/audit/manifests").glob("2025-01-*")).unlink()
    assert "names as the one before is not here" in verified(archived, *ONE)


def test_what_is_cut_short_in_the_middle_of_a_file_is_no_copy_and_is_gone_on_with(archived: Scene) -> None:
    copy = archived.folder / "copy"
    rows = next((archived.folder / "archive").rglob("rows/month=2025-02/*"))
    most = rows.stat().st_size // 2

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    asked = [sys.executable, "-m", "cdc_audit", "archive", "fetch", str(copy), *ONE]
    done = subprocess.run(
        asked, env=archived.environment(), preexec_fn=limited, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 69 and "File too large" in done.stderr, done
    half = copy / rows.relative_to(archived.folder / "archive")
    assert not half.exists() and half.with_name(f"{rows.name}.part").stat().st_size == most
    assert f"{rows.name}: it is not here" in verified(archived, *ONE)
    assert fetched(archived, *ONE) == {None: (0, 3), "2025-02": (1, 1)}
    assert verified(archived, *ONE).endswith("verified\n")
    assert not list(copy.rglob("*.part"))
    half.write_bytes(rows.read_bytes()[:most])  # by whatever else copies files
    assert fetched(archived, *ONE) == {None: (0, 3), "2025-02": (1, 1)}
    flipped(half, most)
    assert fetched(archived, *ONE) == {None: (0, 3), "2025-02": (1, 1)}, "of the same size, and not the same"
    assert contents(copy / "audit/rows") == {f"month=2025-02/{rows.name}": rows.read_bytes()}


def test_a_file_that_is_not_what_its_manifest_says_is_named_and_all_others_come(archived: Scene) -> None:
    root = archived.folder / "archive"
    copy = str(archived.folder / "copy")
    altered, shorter, gone = (next(root.rglob(f"{kind}/month=2025-0{month}/*")) for kind, month in
                              (("rows", 1), ("blocks", 2), ("rows", 3)))  # fmt: skip
    flipped(altered, altered.stat().st_size // 2)
    shorter.write_bytes(shorter.read_bytes()[:-1])
    content = gone.read_bytes()
    gone.unlink()
    done = archived.call("archive", "fetch", copy)
    names = [one.relative_to(root).as_posix() for one in (altered, shorter, gone)]
    assert done.stderr.splitlines()[0] == f"{names[0]}: it is not the file whose SHA-256 its manifest says"
    assert f"{names[1]}: it has " in done.stderr and f"{names[2]}: it is not here" in done.stderr
    assert archived.refusal("archive", "fetch", copy).startswith(
        f"1 archive file:{root}: 3 files did not come: {names[0]}: it is not the file whose SHA-256"
    )
    assert len(contents(archived.folder / "copy")) == 6 and not set(names) & set(contents(Path(copy)))
    gone.write_bytes(content)
    done = archived.call("archive", "fetch", copy)
    assert "2025-03: 1 files" in done.stdout and "2 files did not come" in str(done.exception)


def test_a_manifest_that_differs_from_the_one_that_is_here_is_told_and_does_not_replace_it(
    archived: Scene,
) -> None:
    fetched(archived)
    before = contents(archived.folder / "copy")
    (path,) = (archived.folder / "archive/audit/manifests").glob("2025-02-*")
    path.write_bytes(path.read_bytes().replace(b'"slot":"s"', b'"slot":"t"'))
    said = archived.refusal("archive", "fetch", str(archived.folder / "copy"))
    assert f"{path.name}: another one is in file:{archived.folder / 'copy'}, which is not replaced" in said
    path.write_bytes(b"nonsense")
    assert "not a manifest" in archived.refusal("archive", "fetch", str(archived.folder / "copy"))
    assert contents(archived.folder / "copy") == before
    assert verified(archived).endswith("verified\n")


def test_of_what_was_purged_the_headers_come_and_the_word_that_it_was(archived: Scene) -> None:
    archived.told("archive", "purge", **OVER)
    assert fetched(archived, *ONE) == {None: (6, 0), "2025-02": (1, 0)}
    assert "1 archives were purged, their headers are here" in verified(archived, *ONE)
    assert verified(archived, *ONE).endswith("verified\n")


def test_the_same_from_a_bucket_where_a_tampered_object_is_refused(
    scene: Scene, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    bucket = object_store.bucket(locks=False)
    scene.place = f"s3://{bucket}/trail"
    scene.told("archive", "run")
    client = object_store.client()
    (key,) = (key for key in object_store.keys(bucket) if "rows/month=2025-02" in key)
    content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.put_object(Bucket=bucket, Key=key, Body=content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    said = scene.refusal("archive", "fetch", str(scene.folder / "copy"))
    assert f"1 files did not come: {key.removeprefix('trail/')}: it is not the file whose" in said
    client.put_object(Bucket=bucket, Key=key, Body=content)
    assert fetched(scene) == {None: (0, 3), "2025-01": (0, 2), "2025-02": (1, 1), "2025-03": (0, 2)}
    assert contents(scene.folder / "copy").keys() == {
        name.removeprefix("trail/") for name in object_store.keys(bucket)
    }
    assert verified(scene).endswith("verified\n")


def test_what_can_not_be_fetched_is_said(archived: Scene) -> None:
    copy = archived.folder / "copy"
    assert archived.refusal("archive", "fetch", str(copy), "--since", "2026-01").startswith(
        "2 no archived month"
    )
    assert archived.refusal("archive", "verify", "--since", "2026-01").startswith("2 no archived month")
    assert "not a month: '2026'" in archived.refusal("archive", "fetch", str(copy), "--since", "2026")
    assert "No such file or directory" in archived.refusal("archive", "fetch", str(copy / "a/b"))
    assert "is not a folder" in archived.refusal(
        "archive", "fetch", str(copy), "--archive", f"file:{copy}/away"
    )
    assert "archive in section [retention]" in archived.refusal(
        "archive", "fetch", str(copy), RETENTION_ARCHIVE=""
    )
