"""SIGKILL at each place where a block's life can end: nothing lost, doubled, wrong, reordered or attributed to another.

K1 to K18 are the places of a list that was made before the program; the docstrings say where each is here.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from random import Random

from cdc_audit import failpoint
from tests.acceptance.test_lake import POINTS as LAKE
from tests.faults.scene import POISON, advance, check, kinds, prepared, under_load
from tests.integration.trail.archiving import POINTS as ARCHIVING
from tests.integration.trail.test_purge import POINTS as PURGING
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases

PACKAGE = Path(str(failpoint.__file__)).parent
# Places that a daemon under load passes, and at which passing it is killed there.
UNDER_LOAD = {
    "reconciled": 1,
    "stream-started": 1,
    "mid-transaction": 1,
    "block-closed": 3,
    "partition-made": 1,
    "before-begin": 3,
    "after-begin": 3,
    "mid-copy": 3,
    "after-copy": 3,
    "block-signed": 4,
    "before-commit": 4,
    "after-commit": 4,
    "acknowledged": 4,
    "before-anchor": 1,
}
ELSEWHERE = {
    "reconciling",
    "migrating",
    "slot-moved",
    "quarantining",
    "snapshot-adopted",
    *ARCHIVING,
    *LAKE,
    *PURGING,
}


def armed(env: dict[str, str], point: str) -> dict[str, str]:
    return {**env, failpoint.VARIABLE: point}


def killed_at(point: str, *arguments: str, env: dict[str, str]) -> None:
    """A command that dies at a failpoint."""
    done = cdc_audit(*arguments, env=armed(env, point))
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    assert f"failpoint {point}: kill" in done.stderr


def test_every_failpoint_in_the_program_is_listed_once_and_has_its_test() -> None:
    passed = [
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r'failpoint\.reached\("([^"]+)"\)', file.read_text(encoding="utf-8"))
    ]
    assert sorted(passed) == sorted(failpoint.POINTS)
    assert UNDER_LOAD.keys() | ELSEWHERE == set(failpoint.POINTS)


def test_a_failpoint_that_does_not_exist_is_refused_and_none_is_armed_without_the_variable(
    databases: Databases,
) -> None:
    env = databases.environment()
    done = cdc_audit("run", "--check", env=armed(env, "nowhere"))
    assert done.returncode == 78 and "no such failpoint" in done.stderr
    assert cdc_audit("run", "--check", env=env).returncode == 0


def test_daemons_killed_at_each_failpoint_in_turn_under_load_lose_and_repeat_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    """K1 to K7, K9 to K13 and K16. Each daemon goes on where a failpoint has ended the one before, in a random order."""
    key = tmp_path / "key.pem"
    made = cdc_audit("key", "generate", str(key), env=databases.environment())
    assert made.returncode == 0, made.stderr
    env, oracle = prepared(
        databases,
        LEDGER_SIGNING_KEY_FILE=str(key),
        LEDGER_ANCHORS=f"file:{tmp_path / 'anchors'}",
        BATCH_MAX_ROWS="200",
    )
    forget_partition(databases)
    points = [point for point in UNDER_LOAD if point != "partition-made"]
    Random(1).shuffle(points)
    with under_load(databases) as workload:
        # The partition can only be made while no row of its month is in another one.
        for point in ("partition-made", *points):
            with DaemonProcess(armed(env, f"{point}:{UNDER_LOAD[point]}"), tmp_path / "log") as daemon:
                if point == "mid-transaction":
                    large_transaction(databases)
                assert daemon.wait(60) == -signal.SIGKILL, f"{point}: {daemon.log_text()[-2000:]}"
                assert f"failpoint {point}: kill" in daemon.log_text()
        with DaemonProcess(env, tmp_path / "log") as daemon:
            daemon.until_ready()
            advance(workload, 50)
            workload.stop()
            workload.join()
            check(databases, oracle, env, "--public-key", f"{key}.pub")
            assert daemon.stop() == 0


def test_a_failpoint_can_also_fail_or_halt_the_daemon(databases: Databases, tmp_path: Path) -> None:
    env, oracle = prepared(databases)
    with under_load(databases) as workload:
        with DaemonProcess(armed(env, "after-copy:2=error"), tmp_path / "log") as daemon:
            until(lambda: "failpoint after-copy" in daemon.get("/readyz")[1], "it fails")
            until(lambda: daemon.get("/readyz")[0] == 200, "and goes on")
            assert daemon.stop() == 0
        with DaemonProcess(armed(env, "after-commit:2=stop"), tmp_path / "log2") as daemon:
            assert daemon.process is not None
            state = Path(f"/proc/{daemon.process.pid}/stat")
            until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it halts")
            daemon.signal(signal.SIGCONT)
            advance(workload, 5)
            workload.stop()
            workload.join()
            check(databases, oracle, env)
            assert daemon.stop() == 0


def large_transaction(databases: Databases) -> None:
    """One that isn't held back until its COMMIT: its first rows are on their way before."""
    databases.source.execute(
        "insert into app.things (name) select repeat('n', 60000) from generate_series(1, 400)",
        dbname=databases.source_name,
    )


def forget_partition(databases: Databases) -> None:
    """This month's partition, empty until now, isn't there, as on the first day of a month that nobody prepared."""
    databases.audit.execute(
        "do $$ begin execute 'drop table audit.audit_logs_' || to_char(now() at time zone 'UTC', 'YYYY_MM'); end $$",
        dbname=databases.audit_name,
    )


def test_a_daemon_killed_before_it_records_a_gap_records_it_the_next_time(
    databases: Databases, tmp_path: Path
) -> None:
    """K16, at a start."""
    env = databases.environment()
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    databases.source.execute("insert into t values (1)", dbname=databases.source_name)
    databases.source.execute(
        f"select pg_logical_slot_get_changes('{databases.slot}', null, null)", dbname=databases.source_name
    )
    killed_at("reconciling", "run", "--accept-gap", "a test took it", env=env)
    assert kinds(databases) == ["genesis"]
    killed_at("reconciled", "run", "--accept-gap", "a test took it", env=env)
    assert kinds(databases) == ["genesis", "gap"]
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        assert daemon.stop() == 0
    assert kinds(databases) == ["genesis", "gap"]


def test_init_killed_in_the_middle_of_a_migration_is_repeated(databases: Databases) -> None:
    """K17."""
    env = databases.environment()
    killed_at("migrating", "init", env=env)
    nothing = databases.audit.execute("select to_regnamespace('audit')", dbname=databases.audit_name)
    assert nothing == [(None,)], "a migration is whole or not there"
    initialised(env)
    assert kinds(databases) == ["genesis"]


def test_a_slot_moved_by_a_command_that_dies_before_it_says_so_is_noticed(
    databases: Databases, tmp_path: Path
) -> None:
    env = databases.environment()
    databases.source.execute("create table t (id int primary key)", dbname=databases.source_name)
    initialised(env)
    databases.source.execute("insert into t values (1)", dbname=databases.source_name)
    advancing = ("slot", "advance", "--to", "now", "--reason", "test", "--yes")
    killed_at("slot-moved", *advancing, env=env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        assert daemon.wait() == 78
        assert "ahead of the ledger" in daemon.log_text()
    assert cdc_audit(*advancing, env=env).returncode == 0
    assert kinds(databases) == ["genesis", "gap"]
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        assert daemon.stop() == 0


def test_a_quarantine_killed_before_it_says_what_is_lost_is_repeated(databases: Databases) -> None:
    """K18."""
    env = databases.environment()
    databases.source.execute(POISON, dbname=databases.source_name)
    initialised(env)
    databases.source.execute("insert into poisoned values (1, '4242')", dbname=databases.source_name)
    asked = cdc_audit("quarantine", "--lsn", "0/1", "--reason", "which one?", env=env)
    found = re.search(r"what fails is at ([0-9A-F]+/[0-9A-F]+)", asked.stderr)
    assert found, asked.stderr
    quarantine = ("quarantine", "--lsn", found[1], "--reason", "ticket 1")
    killed_at("quarantining", *quarantine, env=env)
    assert kinds(databases) == ["genesis"]
    until(lambda: cdc_audit(*quarantine, env=env).returncode == 0, "the killed one's connection is gone")
    assert kinds(databases) == ["genesis", "poison"]
