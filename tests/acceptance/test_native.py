"""The compiled loops in a real daemon: the same trail, to the byte, and all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess, initialised
from tests.support.databases import Databases
from tests.support.oracle import Oracle, wait_for
from tests.support.workload import SCHEMAS, Workload

DIFFERENT = """
select (select count(*) from audit.audit_logs), count(*)
from ((table audit.audit_logs except all table pure.audit_logs)
      union all (table pure.audit_logs except all table audit.audit_logs)) as different
"""


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_a_compiled_daemon_stores_the_very_rows_and_hashes_of_a_pure_one(
    plugin: str, databases: Databases, native_package: Path, tmp_path: Path
) -> None:
    env = databases.environment(BATCH_FLUSH_INTERVAL="0.05", SOURCE_PLUGIN=plugin)
    pure = {**env, "CDC_AUDIT_AUDIT_SCHEMA": "pure", "CDC_AUDIT_SOURCE_SLOT": f"{databases.slot}_p"}
    compiled = {**env, "PYTHONPATH": str(native_package), "PYTHONSAFEPATH": "1"}
    Workload.install(databases.source_dsn)
    initialised(env)
    initialised(pure)
    oracle = Oracle.install(databases.source_dsn, SCHEMAS)
    with (
        DaemonProcess(compiled, tmp_path / "compiled") as one,
        DaemonProcess(pure, tmp_path / "pure") as other,
    ):
        one.until_ready()
        other.until_ready()
        assert one.events("started")[0]["compiled"], "the daemon did not find its compiled loops"
        Workload(databases.source_dsn, seed=6, transactions=1500, events=True, suppressed=False).run()
        mark = oracle.mark()
        wait_for(databases.audit_dsn, mark)
        wait_for(databases.audit_dsn, mark, schema="pure")
    difference = oracle.compare(databases.audit_dsn, has_root_truncates=plugin == "wal2json")
    assert difference.is_none, difference
    rows, different = databases.audit.execute(DIFFERENT, dbname=databases.audit_name)[0]
    assert rows > 6_000  # the sessions take turns as they come: about 12,000
    assert different == 0
