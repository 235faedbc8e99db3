"""Log files that are rotated, renamed, cut off and removed: each line is sent once, and what may be missing is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc_audit.errors import UnavailableError
from cdc_audit.source import install, reads
from cdc_audit.source.follower import PATIENCE_S, Follower
from cdc_audit.source.log_files import LogFolder
from tests.support.databases import Databases

SENT = "select data from pg_logical_slot_get_changes(%s, null, null) where data like 'message:%%prefix: cdc_audit.read%%'"


class Scene:
    """A folder, a follower of it, and what it has sent."""

    def __init__(self, databases: Databases, folder: Path, connection: psycopg.Connection) -> None:
        self.databases, self.folder, self.connection = databases, folder, connection
        self.now = 0.0
        self.gaps: list[str] = []
        self.follower = self.restarted()

    def restarted(self) -> Follower:
        """Another process, as far as the follower can tell."""
        self.follower = Follower(LogFolder(self.folder), "here", "full", self, clock=lambda: self.now)
        self.follower.connect(self.connection, reads.facts(self.connection), from_start=True)
        return self.follower

    def write(self, name: str, *lines: bytes, mode: str = "ab") -> Path:
        path = self.folder / name
        last = max((other.stat().st_mtime_ns for other in self.folder.iterdir()), default=0)
        with path.open(mode) as file:
            file.write(b"".join(lines))
        os.utime(
            path, ns=(last + 1_000_000, last + 1_000_000)
        )  # later than any other, however coarse the clock is
        return path

    def line(self, session: str, number: int, xid: int = 0) -> bytes:
        said = {
            "timestamp": "2026-11-28 12:00:00.000 UTC",
            "user": "nurse",
            "dbname": self.databases.source_name,
        }
        said |= {"pid": 1, "session_id": session, "line_num": number, "txid": xid, "error_severity": "LOG"}  # type: ignore[dict-item]
        said["message"] = (
            f"AUDIT: SESSION,{number},1,READ,SELECT,TABLE,shop.a,\"select\n'{number}'\",<none>,1"
        )
        return json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def rounds(self, count: int = 4) -> list[str]:
        """What is sent by so many rounds: session and number of each read, or why lines may be missing."""
        for _ in range(count):
            self.follower.round()
        found = []
        for (data,) in self.connection.execute(SENT, (self.databases.slot,)).fetchall():
            read = json.loads(data.partition(" content:")[2].split(":", 3)[3])["read"]
            found.append(read["gap"] if "gap" in read else f"{read['session']}{read['line']}")
        return found

    def taken(self, lines: int, sent: int) -> None: ...
    def behind(self, size: int) -> None: ...
    def gap(self, reason: str, file: str, position: int) -> None:
        self.gaps.append(reason)


@pytest.fixture
def scene(databases: Databases, tmp_path: Path) -> Iterator[Scene]:
    with psycopg.connect(databases.source_dsn, autocommit=True) as connection:
        install.install(connection)
        reads.install(connection, "postgres")
        connection.execute(
            "select pg_create_logical_replication_slot(%s, 'test_decoding')", (databases.slot,)
        )
        yield Scene(databases, tmp_path, connection)


def test_a_line_is_sent_when_its_end_has_come_and_after_a_restart_not_again(scene: Scene) -> None:
    whole = scene.line("a", 2)
    scene.write("pg.json", scene.line("a", 1), whole[:50])
    assert scene.rounds() == ["a1"]
    scene.restarted()
    assert scene.rounds() == []
    scene.write("pg.json", whole[50:-1])
    assert scene.rounds() == []
    scene.write("pg.json", b"\n", scene.line("a", 3))
    assert scene.rounds() == ["a2", "a3"]
    assert scene.gaps == []


def test_names_that_do_not_sort_come_in_the_order_of_writing_and_a_finished_file_may_go(scene: Scene) -> None:
    first = scene.write("z.json", scene.line("a", 1))
    scene.write("b.json", scene.line("b", 1))
    scene.write("k.json", scene.line("c", 1))
    assert scene.rounds() == ["a1", "b1", "c1"]
    first.unlink()
    assert scene.rounds() == []
    scene.restarted()
    assert (scene.rounds(), scene.gaps) == ([], [])


def test_a_name_that_is_used_again_is_another_file_and_a_renamed_or_copied_one_is_not(scene: Scene) -> None:
    monday = scene.write("Mon.json", scene.line("a", 1), scene.line("a", 2))
    scene.write("Tue.json", scene.line("b", 1))
    assert scene.rounds() == ["a1", "a2", "b1"]
    scene.write(
        "Mon.json", scene.line("c", 1), scene.line("c", 2), scene.line("c", 3), mode="wb"
    )  # truncate_on_rotation
    assert scene.rounds() == ["c1", "c2", "c3"]
    scene.write("Tue.json", scene.line("b", 2))  # without it: taken up again
    assert scene.rounds() == ["b2"]
    shutil.copy(monday, scene.folder / "copy.json")
    monday.rename(scene.folder / "renamed.json")
    assert scene.rounds() == []
    scene.restarted()
    scene.write("renamed.json", scene.line("c", 4))
    assert scene.rounds() == ["c4"]
    assert scene.gaps == []


def test_a_file_that_is_removed_while_it_is_followed_is_read_to_its_end(scene: Scene) -> None:
    path = scene.write("pg.json", scene.line("a", 1))
    with path.open("ab") as server:
        assert scene.rounds() == ["a1"]
        path.unlink()
        server.write(scene.line("a", 2))
        server.flush()
        assert scene.rounds() == ["a2"]
    assert scene.gaps == []


def test_a_file_that_went_away_unread_is_said_once(scene: Scene) -> None:
    path = scene.write("pg.json", scene.line("a", 1))
    assert scene.rounds() == ["a1"]
    scene.write("pg.json", scene.line("a", 2))
    scene.follower.round()  # a2 is sent, and more may have come before the file went
    path.unlink()
    scene.restarted()
    assert scene.rounds(8) == ["a2", "file removed before it was over"]
    scene.restarted()
    assert scene.rounds(8) == []
    assert scene.gaps == ["file removed before it was over"]


def test_a_file_that_a_crash_of_the_machine_has_cut_off_is_said_and_goes_on(scene: Scene) -> None:
    path = scene.write("pg.json", scene.line("a", 1), scene.line("a", 2))
    assert scene.rounds() == ["a1", "a2"]
    scene.restarted()
    os.truncate(path, len(scene.line("a", 1)))
    assert scene.rounds() == ["file cut off"]
    scene.write("pg.json", scene.line("b", 1))
    assert scene.rounds() == ["b1"]
    scene.restarted()
    text = path.read_bytes()
    path.write_bytes(text[:-20] + scene.line("b", 2) * 2)  # longer again, but not what it was
    assert scene.rounds() == ["file cut off"]


def test_a_torn_line_is_said_and_an_unended_one_is_taken_when_the_file_is_over(scene: Scene) -> None:
    whole = scene.line("a", 2)
    scene.write("pg.json", scene.line("a", 1), whole[:90], scene.line("a", 3), scene.line("a", 4)[:-1])
    assert scene.rounds() == ["a1", "line can't be read"]
    scene.write("next.json", scene.line("b", 1))
    assert scene.rounds() == ["a4", "b1"]
    assert scene.gaps == ["line can't be read"]


def test_files_that_are_no_such_log_and_other_databases_are_left_alone(scene: Scene) -> None:
    scene.write("package.json", b'{\n "name": "x"\n}\n')
    other = scene.line("a", 1).replace(scene.databases.source_name.encode(), b"other")
    scene.write("pg.json", other, scene.line("a", 2))
    assert (scene.rounds(), scene.gaps) == (["a2"], [])


def test_a_read_waits_for_its_transaction_but_not_for_ever(scene: Scene) -> None:
    with psycopg.connect(scene.databases.source_dsn) as reading:
        row = reading.execute("select pg_current_xact_id()::text::bigint & 4294967295").fetchone()
        assert row is not None
        scene.write("pg.json", scene.line("a", 1), scene.line("a", 2, xid=row[0]), scene.line("a", 3))
        assert scene.rounds() == ["a1"]
        was_waiting = scene.follower.is_waiting
        reading.commit()
        assert scene.rounds() == ["a2", "a3"]
        assert (was_waiting, scene.follower.is_waiting) == (True, False)
        row = reading.execute("select pg_current_xact_id()::text::bigint & 4294967295").fetchone()
        assert row is not None
        scene.write("pg.json", scene.line("a", 4, xid=row[0]))
        assert scene.rounds() == []
        scene.now += PATIENCE_S + 1
        assert scene.rounds() == ["a4"]


def test_of_two_followers_of_one_name_none_sends_what_the_other_has_sent(scene: Scene) -> None:
    scene.write("pg.json", scene.line("a", 1))
    assert scene.rounds() == ["a1"]
    mine = scene.follower
    scene.restarted()
    scene.write("pg.json", scene.line("a", 2))
    assert scene.rounds() == ["a2"]
    with pytest.raises(UnavailableError):
        mine.round()
    mine.connect(scene.connection, reads.facts(scene.connection))
    scene.follower = mine
    assert scene.rounds() == []


def test_a_first_start_begins_where_the_files_end(scene: Scene) -> None:
    scene.write("pg.json", scene.line("a", 1), scene.line("a", 2)[:30])
    later = Follower(LogFolder(scene.folder), "there", "full", scene)
    assert later.connect(scene.connection, reads.facts(scene.connection))
    scene.write("pg.json", scene.line("a", 2)[30:])
    scene.write("new.json", scene.line("b", 1))
    scene.follower = later
    assert scene.rounds() == ["a2", "b1"]
    assert not later.connect(scene.connection, reads.facts(scene.connection))
