"""The checker is checked: a daemon that breaks a rule is found out, in the way that the rule is about; the sound one isn't.

Each scene is played twice, by the same steps: with ``cdc-audit`` and with the variant of ``broken`` that it is made for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.chaos.broken import VARIANTS
from tests.faults.scene import prepared
from tests.faults.test_source_changes import promote, twin
from tests.support.comparison import Difference
from tests.support.daemon import DaemonProcess, cdc_audit, until
from tests.support.databases import Databases, new_databases
from tests.support.oracle import Oracle, wait_for
from tests.support.servers import Server

TITLE = "Broken daemons and what the oracle says of them"
HEADER = ("variant", "said of the variant", "also", "said of cdc-audit")
THINGS = "insert into app.things (name) select 'n' || n from generate_series(1, 20) n"
ALICE = (
    "select pg_logical_emit_message(true, 'cdc_audit.context', '{\"user_id\": \"alice\"}');"
    "insert into oracle.claim (claimed_user, trust) values ('alice', 'asserted');"
)
CONFIRMED = "select confirmed_flush_lsn from pg_replication_slots where slot_name = %s"
RECEIVED = "select write_lsn from pg_stat_replication where application_name like 'cdc-audit%%stream'"
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into%ledger%'"
END_WAITING = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"


@dataclass
class Scene:
    """Databases of its own, the oracle, and a daemon that is ``variant`` or, where that is "", sound."""

    databases: Databases
    env: dict[str, str]
    oracle: Oracle
    log: Path
    variant: str
    also: list[str] = field(default_factory=list)  # what else gave the variant away

    def daemon(self, *arguments: str, **more: str) -> DaemonProcess:
        env = {
            **self.env,
            **{f"CDC_AUDIT_{key}": value for key, value in more.items()},
            "BROKEN": self.variant,
        }
        module = "tests.chaos.broken" if self.variant else "cdc_audit"
        return DaemonProcess(env, self.log, *arguments, module=module)

    def run(self, statements: str) -> str:
        """One transaction of the application; the source's position after it."""
        self.databases.source.execute(statements, dbname=self.databases.source_name)
        return str(self.databases.source.execute("select pg_current_wal_lsn()")[0][0])

    def is_past(self, query: str, parameters: tuple[str, ...], lsn: str) -> bool:
        """Whether the one position that a query on the source gives has reached ``lsn``."""
        rows = self.databases.source.execute(query, parameters)
        return bool(rows) and bool(
            self.databases.source.execute("select %s::pg_lsn >= %s::pg_lsn", (str(rows[0][0]), lsn))[0][0]
        )

    def confirmed(self, lsn: str) -> None:
        until(
            lambda: self.is_past(CONFIRMED, (self.databases.slot,), lsn), "the variant confirms the position"
        )

    def waiting(self) -> int:
        """Sessions that wait to append to the ledger."""
        return int(self.databases.audit.execute(WAITING)[0][0])

    def compared(self, *, has_gap: bool = False) -> Difference:
        """Let a daemon come to the end, and ask the oracle. ``has_gap``: this daemon won't start before a gap is accepted."""
        if has_gap:
            refused = cdc_audit("run", env=self.env)
            assert refused.returncode == 78 and "slot is ahead" in refused.stderr
            self.also.append("the next start: exit 78, the slot is ahead of the ledger")
        with self.daemon(*(("--accept-gap", "to compare") if has_gap else ())):
            wait_for(self.databases.audit_dsn, self.oracle.mark())
        difference = self.oracle.compare(self.databases.audit_dsn)
        verified = cdc_audit("verify", env=self.env)
        if verified.returncode:
            self.also.append(f"verify exits {verified.returncode}")
        return difference


def told_before_commit(scene: Scene) -> Difference:
    """The audit database dies with a block that it was given and had not committed."""
    with psycopg.connect(scene.databases.audit_dsn) as audit, scene.daemon() as daemon:
        daemon.until_ready()
        audit.execute("lock table audit.ledger in exclusive mode")
        lsn = scene.run(THINGS)
        until(lambda: scene.waiting() == 1, "the block waits for the ledger")
        if scene.variant:
            scene.confirmed(lsn)
        daemon.kill()
        scene.databases.audit.execute(END_WAITING)
        until(lambda: scene.waiting() == 0, "the block is rolled back")
    return scene.compared(has_gap=bool(scene.variant))


def pending_rows(scene: Scene) -> Difference:
    """The daemon dies with rows that wait for their block to be full."""
    with scene.daemon(BATCH_FLUSH_INTERVAL="60") as daemon:
        daemon.until_ready()
        lsn = scene.run(THINGS)
        until(lambda: scene.is_past(RECEIVED, (), lsn), "the daemon has received them")
        if scene.variant:
            scene.confirmed(lsn)
        daemon.kill()
    return scene.compared(has_gap=bool(scene.variant))


def old_session(scene: Scene) -> Difference:
    """A daemon dies in a COMMIT that takes for ever, and its successor begins while that session still lives."""
    with psycopg.connect(scene.databases.audit_dsn) as audit, scene.daemon() as daemon:
        daemon.until_ready()
        audit.execute("lock table audit.ledger in exclusive mode")
        scene.run(THINGS)
        until(lambda: scene.waiting() == 1, "the block waits for the ledger")
        daemon.kill()
        daemon.start()
        if scene.variant:
            until(lambda: scene.waiting() == 2, "so does its successor's")
        else:
            until(lambda: "another daemon" in daemon.get("/readyz")[1], "its successor waits for its turn")
        audit.rollback()
        until(lambda: scene.waiting() == 0, "all is written")
    return scene.compared()


def promoted(scene: Scene) -> Difference:
    """A standby that lacks what the trail has becomes the primary: its positions repeat. What comes after that is compared."""
    source, audit = scene.databases.source, scene.databases.audit
    settled(scene)
    scene.oracle.compare(scene.databases.audit_dsn)
    scene.oracle.forget()
    source.execute("checkpoint")
    source.stop("fast")
    with twin(source) as standby:
        standby.stop()
        source.start()
        scene.run(";".join(THINGS for _ in range(20)))
        settled(scene)
        source.stop("immediate")
        ((last_id,),) = audit.execute(
            "select max(id) from audit.audit_logs", dbname=scene.databases.audit_name
        )
        promote(standby)
        oracle = Oracle(standby.dsn(scene.databases.source_name), scene.oracle.slot)
        with psycopg.connect(oracle.dsn) as application:
            application.execute(THINGS)
        # From here on new positions are past the old primary's, so that either daemon has something to store.
        standby.execute("select pg_switch_wal()")
        end = "insert into app.stock (item, qty) values ('end', 1)"
        standby.execute(end, dbname=scene.databases.source_name)
        with scene.daemon(SOURCE_DSN=oracle.dsn):
            stored = "select 1 from audit.audit_logs where table_name = 'stock' and record_id = 'end'"
            until(lambda: audit.execute(stored, dbname=scene.databases.audit_name), "the last row")
        difference = oracle.compare(scene.databases.audit_dsn, after_id=last_id)
    source.start()
    return difference


def settled(scene: Scene) -> None:
    """A daemon comes to the end of what there is, and stops."""
    with scene.daemon() as daemon:
        daemon.until_ready()
        wait_for(scene.databases.audit_dsn, scene.oracle.mark())
        assert daemon.stop() == 0


def nobody_after_somebody(scene: Scene) -> Difference:
    """A transaction says who acts, the next one doesn't."""
    with scene.daemon() as daemon:
        daemon.until_ready()
        for _ in range(5):
            scene.run(f"{ALICE} {THINGS}")
            scene.run(THINGS)
    return scene.compared()


SCENES: dict[str, tuple[Callable[[Scene], Difference], str]] = {
    "acknowledges-early": (told_before_commit, "lost"),
    "acknowledges-wal-end": (pending_rows, "lost"),
    "has-no-fence": (old_session, "duplicated"),
    "ignores-timelines": (promoted, "lost"),
    "carries-contexts": (nobody_after_somebody, "misattributed"),
}


@pytest.fixture
def own(
    source_cluster: Server,
    audit_cluster: Server,
    private_cluster: Callable[..., Server],
    tmp_path: Path,
) -> Iterator[Callable[[str, bool], Scene]]:
    """Makes a scene in databases of its own, and if it ruins its source, on a source of its own."""
    made: list[Databases] = []

    def make(variant: str, is_ruinous: bool) -> Scene:
        source = private_cluster("source") if is_ruinous else source_cluster
        databases = new_databases(source, audit_cluster)
        made.append(databases)
        # A daemon reports at least three times as often.
        source.execute(f"alter database {databases.source_name} set wal_sender_timeout = '3s'")
        env, oracle = prepared(databases)
        return Scene(databases, env, oracle, tmp_path / f"log {variant}", variant)

    yield make
    for databases in made:
        databases.drop()


def test_each_variant_has_a_scene() -> None:
    assert SCENES.keys() == VARIANTS.keys()


@pytest.mark.parametrize("variant", SCENES)
def test_a_broken_daemon_is_found_out_and_the_sound_one_is_not(
    variant: str, own: Callable[[str, bool], Scene], record_property: Callable[[str, object], None]
) -> None:
    play, kind = SCENES[variant]
    is_ruinous = play is promoted
    broken, sound = own(variant, is_ruinous), own("", is_ruinous)
    of_broken, of_sound = play(broken), play(sound)
    assert getattr(of_broken, kind) > 0, of_broken
    assert of_sound.is_none, of_sound
    assert not sound.also
    row = (variant, counts(of_broken), "; ".join(broken.also) or "-", counts(of_sound))
    record_property("table", (TITLE, HEADER, row))


def counts(difference: Difference) -> str:
    return str(difference).partition(" of ")[0]
