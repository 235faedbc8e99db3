"""The daemon's own machine: full disks, no file descriptors, a clock that jumps, a name that isn't known, a long sleep."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import psycopg

from tests.faults.scene import advance, check, prepared, under_load
from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases


def end_sessions(databases: Databases) -> None:
    """End the daemon's sessions on the source."""
    databases.source.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and application_name like 'cdc-audit%%'",
        (databases.source_name,),
    )


def test_no_room_for_a_large_transaction_is_waited_for(databases: Databases, tmp_path: Path) -> None:
    """pgoutput's transactions wait in a file for their COMMIT. A limit on files stands for the full disk: no root needed."""
    env, oracle = prepared(databases, SOURCE_PLUGIN="pgoutput")
    with under_load(databases, suppressed=False) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        assert daemon.process is not None
        unlimited = resource.prlimit(
            daemon.process.pid, resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY)
        )
        databases.source.execute(
            "insert into app.things (name) select repeat('n', 60000) from generate_series(1, 300)",
            dbname=databases.source_name,
        )
        until(lambda: "larger than memory" in daemon.get("/readyz")[1], "it says what is full", 60)
        assert "TMPDIR" in daemon.log_text()
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        workload.stop()
        workload.join()
        check(databases, oracle, env, has_root_truncates=False)
        assert daemon.stop() == 0


def test_a_full_disk_under_log_and_anchors_stops_nothing(databases: Databases, tmp_path: Path) -> None:
    env, oracle = prepared(databases, LEDGER_ANCHORS="file:/dev/full")
    with under_load(databases) as workload, DaemonProcess(env, Path("/dev/full")) as daemon:
        daemon.until_ready()
        advance(workload, 20)
        end_sessions(databases)  # something to say
        until(lambda: daemon.metric("reconnects_total", side="source") >= 1, "a new session")
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.metric("anchor_failures_total", kind="file") >= 1
        assert daemon.stop() == 0


def test_a_daemon_without_file_descriptors_waits_for_some(databases: Databases, tmp_path: Path) -> None:
    env, oracle = prepared(databases)
    with under_load(databases) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        assert daemon.process is not None
        limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        end_sessions(databases)
        # It can't even answer on its metrics port; the next session's first connection is that to the audit database.
        until(lambda: any(e["side"] == "audit" for e in daemon.events("connection_lost")), "it says so")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        advance(workload, 5)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


CLOCK = """
import datetime, os, pathlib
Real = datetime.datetime
class Jumping(Real):
    @classmethod
    def now(cls, tz=None):
        hours = float(pathlib.Path(os.environ["TEST_CLOCK"]).read_text())
        return Real.now(tz) + datetime.timedelta(hours=hours)
datetime.datetime = Jumping
"""


def test_a_clock_that_jumps_changes_nothing_but_what_is_said_of_the_time(
    databases: Databases, tmp_path: Path
) -> None:
    """Order comes from positions, never from a clock: here the daemon's goes an hour forth, then three back."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    clock = tmp_path / "clock"

    def turn_to(hours: str) -> None:
        """By a rename: the daemon may read at any moment, and never half a file."""
        (tmp_path / "turned").write_text(hours)
        (tmp_path / "turned").rename(clock)

    turn_to("0")
    env, oracle = prepared(databases)
    jumping = {**env, "PYTHONPATH": str(tmp_path), "TEST_CLOCK": str(clock)}
    with under_load(databases) as workload, DaemonProcess(jumping, tmp_path / "log") as daemon:
        daemon.until_ready()
        for hours in ("1", "-3", "0"):
            advance(workload, 15)
            turn_to(hours)
        advance(workload, 15)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0
    jumps = databases.audit.execute(
        "select max(written_at) > now() + interval '30 minutes', min(written_at) < now() - interval '2 hours'"
        " from audit.ledger",
        dbname=databases.audit_name,
    )
    assert jumps == [(True, True)], "the clock did jump"


def test_a_name_that_is_not_known_any_more_is_waited_for(databases: Databases, tmp_path: Path) -> None:
    """A service file stands for the DNS: where a name leads can be changed while the daemon runs."""
    service = tmp_path / "services"

    def lead_to(host: str) -> None:
        given = psycopg.conninfo.conninfo_to_dict(databases.source_dsn)
        lines = [f"{key}={value}" for key, value in {**given, "host": host}.items()]
        service.write_text("\n".join(["[source]", *lines, ""]))

    right = str(psycopg.conninfo.conninfo_to_dict(databases.source_dsn)["host"])
    lead_to(right)
    env, oracle = prepared(databases)
    named = {**env, "CDC_AUDIT_SOURCE_DSN": "service=source", "PGSERVICEFILE": str(service)}
    with under_load(databases) as workload, DaemonProcess(named, tmp_path / "log") as daemon:
        daemon.until_ready()
        lead_to("gone.invalid")
        end_sessions(databases)
        until(lambda: "gone.invalid" in daemon.get("/readyz")[1], "it says which name")
        lead_to(right)
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again", 60)
        advance(workload, 5)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


def test_a_daemon_that_slept_past_the_walsenders_patience_goes_on(
    databases: Databases, tmp_path: Path
) -> None:
    env, oracle = prepared(
        databases,
        SOURCE_DSN=psycopg.conninfo.make_conninfo(databases.source_dsn, options="-c wal_sender_timeout=1000"),
    )
    with under_load(databases) as workload, DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        advance(workload, 10)
        daemon.signal(signal.SIGSTOP)
        given_up = "terminating walsender process due to replication timeout"
        before = databases.source.log_text().count(given_up)
        until(lambda: databases.source.log_text().count(given_up) > before, "the server gives it up")
        daemon.signal(signal.SIGCONT)
        until(lambda: daemon.metric("reconnects_total", side="source") >= 1, "it notices")
        until(lambda: daemon.get("/readyz")[0] == 200, "streaming again")
        advance(workload, 10)
        workload.stop()
        workload.join()
        check(databases, oracle, env)
        assert daemon.stop() == 0


BUG = """
from cdc_audit.seal.builder import BlockBuilder
add = BlockBuilder.add
def broken(self, stretch):
    for change in stretch.changes:
        raise ValueError(change)
    return add(self, stretch)
BlockBuilder.add = broken
"""


def test_a_bug_stops_the_daemon_before_anything_is_stored_or_said_that_should_not_be(
    databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BUG)
    env = databases.environment(BATCH_FLUSH_INTERVAL="0")
    databases.source.execute("create table t (v text primary key)", dbname=databases.source_name)
    initialised(env)
    databases.source.execute("insert into t values ('canary'), ('other')", dbname=databases.source_name)
    with DaemonProcess({**env, "PYTHONPATH": str(tmp_path)}, tmp_path / "log") as daemon:
        assert daemon.wait(30) == 70
        assert "internal error: ValueError" in daemon.log_text()
        assert "canary" not in daemon.log_text()
    stored = "select record_id from audit.audit_logs order by id"
    assert databases.audit.execute(stored, dbname=databases.audit_name) == []
    with DaemonProcess(env, tmp_path / "log") as daemon:
        both = [("canary",), ("other",)]
        until(lambda: databases.audit.execute(stored, dbname=databases.audit_name) == both, "without it")
        assert daemon.stop() == 0
