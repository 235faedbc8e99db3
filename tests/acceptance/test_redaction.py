"""Redaction by a key: values stay comparable, and SIGHUP reads the key again."""

from __future__ import annotations

import hmac
import json
import signal
from hashlib import sha256
from pathlib import Path

from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases

RULE = "[[redact.rules]]\ncolumn = 'ssn'\nmode = 'hmac'\n"


def hashed(key: bytes, value: object) -> str:
    return "hmac:" + hmac.new(key, json.dumps(value).encode(), sha256).hexdigest()[:32]


def test_equal_values_stay_comparable_and_sighup_reads_the_key_again(
    databases: Databases, tmp_path: Path
) -> None:
    key, file = tmp_path / "redact.key", tmp_path / "cdc-audit.toml"
    file.write_text(f"[redact]\nhmac_key_file = '{key}'\n{RULE}")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", CONFIG=str(file))
    for table in ("clients", "claims"):
        databases.source.execute(
            f"create table {table} (id int primary key, ssn text)", dbname=databases.source_name
        )
    missing = cdc_audit("run", "--check", env=env)
    assert missing.returncode == 78
    assert f"head -c 32 /dev/urandom > {key}" in missing.stderr
    key.write_bytes(b"1" * 32)
    key.chmod(0o600)
    initialised(env)
    query = "select table_name, new_data ->> 'ssn' from audit.audit_logs order by id"

    def trail() -> list[tuple[object, ...]]:
        return databases.audit.execute(query, dbname=databases.audit_name)

    def insert(table: str, number: int) -> None:
        databases.source.execute(
            f"insert into {table} values ({number}, '123-45')", dbname=databases.source_name
        )
        until(lambda: len(trail()) == number, f"{number} rows")

    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        insert("clients", 1)
        insert("claims", 2)
        key.chmod(0o644)
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reload_refused"), "a key that others may read is refused")
        insert("clients", 3)
        key.write_bytes(b"2" * 32)
        key.chmod(0o600)
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reloaded"), "it says that it has reloaded")
        insert("clients", 4)
        assert daemon.stop() == 0
    before, after = hashed(b"1" * 32, "123-45"), hashed(b"2" * 32, "123-45")
    assert trail() == [("clients", before), ("claims", before), ("clients", before), ("clients", after)]
