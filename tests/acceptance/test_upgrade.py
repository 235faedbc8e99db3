"""An upgrade under load: the schema is migrated while the daemon of the release before goes on writing."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

from cdc_audit import __version__
from tests.support.daemon import DaemonProcess, cdc_audit, until
from tests.support.databases import Databases

# The program as a release knew the audit schema that ended with the first migration. Everything else is today's: what
# the daemon writes without rules for personal values is what that release wrote.
_RELEASED = """
from cdc_audit.schema import migrate
from cdc_audit.sink import ledger
migrate._MIGRATIONS = migrate._MIGRATIONS[:1]
migrate.LATEST = ledger.SCHEMA_VERSION = 1
from cdc_audit.cli import main
main()
"""
_INSERT = "insert into orders select i, i from generate_series(%s::int, %s::int) as i"
_LATE = "select detail ->> 'reason' from audit.ledger where kind = 'gap'"


def test_a_migration_neither_stops_nor_delays_an_older_daemon_and_the_new_one_takes_over(
    databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "released.py").write_text(_RELEASED)
    today = databases.environment(BATCH_FLUSH_INTERVAL="0")
    released = {**today, "PYTHONPATH": str(tmp_path)}
    databases.source.execute("create table orders (id int primary key, n int)", dbname=databases.source_name)
    done = run([sys.executable, "-m", "released", "init"], env=released, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stored = 0

    def change() -> None:
        """Fifty transactions, all of which are in the trail before it goes on."""
        nonlocal stored
        for number in range(stored, stored + 50):
            databases.source.execute(_INSERT, (number, number), dbname=databases.source_name)
        stored += 50
        until(lambda: rows() == stored, f"{stored} rows in the trail")

    def rows() -> int:
        return int(
            databases.audit.execute("select count(*) from audit.audit_logs", dbname=databases.audit_name)[0][
                0
            ]
        )

    with DaemonProcess(released, tmp_path / "old.log", module="released") as old:
        old.until_ready()
        change()
        migrated = cdc_audit("schema", "migrate", env=today)
        assert migrated.returncode == 0, migrated.stderr
        assert "applied 0002_personal" in migrated.stdout
        change()
        assert old.events("state_changed")[-1]["state"] == "streaming"
        (started,) = old.events("started")
        assert (started["version"], started["slot"]) == (__version__, databases.slot)
        with DaemonProcess(today, tmp_path / "new.log") as new:
            until(lambda: new.events("state_changed"), "the new one waits for the old one's end")
            assert old.stop() == 0
            new.until_ready()
            change()
            assert new.stop() == 0
    assert databases.audit.execute(_LATE, dbname=databases.audit_name) == []
    verified = cdc_audit("verify", env=today)
    assert verified.returncode in {0, 3}, verified.stdout + verified.stderr


def test_a_daemon_older_than_the_schema_stops_when_it_connects_again_and_says_why(
    databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "released.py").write_text(_RELEASED)
    today = databases.environment()
    assert cdc_audit("init", env=today).returncode == 0
    released = {**today, "PYTHONPATH": str(tmp_path)}
    with DaemonProcess(released, tmp_path / "log", module="released") as old:
        assert old.wait() == 78
        assert "upgrade cdc-audit on this machine" in old.log_text()
