"""A real daemon's ledger: signed, anchored, its key rotated; verified by both verifiers."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from cdc_audit.seal.signature import public_from_pem
from tests.support import second_verifier as second
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases


def change(databases: Databases, rows: int) -> None:
    """Change some rows, and wait until they are in the trail."""
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("create table if not exists pets (id int primary key, name text)")
        (before,) = source.execute("select count(*) from pets").fetchone() or (0,)
        source.execute(
            "insert into pets select n, E'tab \\t and \\\\ ' || n from generate_series(%s::int, %s::int) n",
            (before + 1, before + rows),
        )
    with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
        until(
            lambda: audit.execute("select count(*) from audit.audit_logs").fetchone() == (before + rows,),
            f"{before + rows} rows",
        )


def generated(path: Path) -> str:
    assert cdc_audit("key", "generate", str(path), env={}).returncode == 0
    return str(path)


def test_a_daemons_ledger_is_signed_anchored_and_whole_through_a_rotation(
    databases: Databases, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.jsonl"
    first, second_key = generated(tmp_path / "first.pem"), generated(tmp_path / "second.pem")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LEDGER_ANCHORS=f"file:{anchors}")
    initialised(env)  # begins unsigned
    signed = {**env, "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": first}
    with DaemonProcess(signed, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases, 10)
        assert daemon.stop() == 0
    assert cdc_audit("key", "rotate", "--old", first, "--new", second_key, env=signed).returncode == 0
    refused = cdc_audit("run", "--no-standby", env=signed)
    assert (refused.returncode, "cdc-audit key rotate --old" in refused.stderr) == (78, True)
    unsigned = cdc_audit("run", "--no-standby", env=env)
    assert (unsigned.returncode, "signing_key_file" in unsigned.stderr) == (78, True)
    with DaemonProcess({**env, "CDC_AUDIT_LEDGER_SIGNING_KEY_FILE": second_key}, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases, 5)
        assert daemon.stop() == 0

    keys = ["--public-key", f"{first}.pub", "--public-key", f"{second_key}.pub"]
    done = cdc_audit("verify", *keys, "--anchor", str(anchors), "--json", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["rows"], said["signed"], said["anchored"] >= 2) == (15, said["blocks"] - 1, True)
    lines = [json.loads(line) for line in anchors.read_text().splitlines()]
    assert lines[-1]["block"] == said["last_block"], "the last block is anchored at the stop"
    hashes = {line["block"]: line["hash"] for line in lines}
    public = [public_from_pem(Path(name).read_bytes()) for name in keys[1::2]]
    assert second.verify(databases.audit_dsn, "audit", public, hashes) == []


def test_an_anchor_that_fails_warns_and_stops_nothing(databases: Databases, tmp_path: Path) -> None:
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", LEDGER_ANCHORS=f"file:{tmp_path}/missing/anchors")
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases, 3)
        until(lambda: daemon.events("anchor_failed"), "a warning")
        change(databases, 3)
        assert daemon.stop() == 0
    assert daemon.events("anchor_failed")[0]["reason"] == "No such file or directory"


def test_what_cannot_sign_or_anchor_is_refused_before_anything_starts(
    databases: Databases, tmp_path: Path
) -> None:
    key = Path(generated(tmp_path / "key.pem"))
    key.chmod(0o644)
    for variables, remedy in (
        ({"LEDGER_SIGNING_KEY_FILE": str(key)}, f"chmod 600 {key}"),
        ({"LEDGER_SIGNING_KEY_FILE": f"{key}.no"}, "cdc-audit key generate"),
        ({"LEDGER_SIGNING_KEY_FILE": f"{key}.pub"}, ""),
        ({"LEDGER_ANCHORS": "http://elsewhere.example"}, "https://"),
        ({"LEDGER_ANCHORS": "https://user:secret@elsewhere.example"}, "anchor_token_file"),
        ({"LEDGER_ANCHORS": "s3://bucket/x?mode=COMPLIANCE"}, "both or neither"),
        ({"LEDGER_ANCHORS": "file:relative"}, "file:/"),
    ):
        refused = cdc_audit("run", "--check", env=databases.environment(**variables))
        assert refused.returncode == 78, refused.stderr
        assert remedy in refused.stderr, refused.stderr
        assert "secret" not in refused.stderr
