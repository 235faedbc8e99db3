"""Every type's values through the whole way, against what ordinary triggers saw: byte for byte.

The source database's own settings are as hostile to plain output as they can be.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.decode.type_zoo import BEYOND_JSONB, EXTENSIONS, TYPES, ZOO
from tests.support.databases import new_databases
from tests.support.live import HOSTILE_SETTINGS, Change, Live, noted, running
from tests.support.proof import check_proof
from tests.support.servers import Server

# What wal2json 2.5 turns into null; domains over these and arrays of them are exact. Nothing else may differ.
LOST = {
    ("numeric", "NaN"), ("numeric", "Infinity"), ("numeric", "-Infinity"), ("numeric(10,2)", "NaN"),
    ("real", "NaN"), ("real", "Infinity"), ("real", "-Infinity"),
    ("double precision", "NaN"), ("double precision", "Infinity"), ("double precision", "-Infinity"),
}  # fmt: skip


@pytest.fixture(scope="module", params=["wal2json", "pgoutput"])
def live(
    request: pytest.FixtureRequest,
    source_cluster: Server,
    audit_cluster: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """A daemon that has seen the whole zoo inserted, updated and deleted."""
    databases = new_databases(source_cluster, audit_cluster)
    for name, value in HOSTILE_SETTINGS.items():
        databases.source.execute(f"alter database {databases.source_name} set {name} = '{value}'")
    try:
        with running(databases, tmp_path_factory.mktemp("daemon") / "log", plugin=request.param) as live:
            _release_the_animals(live)
            live.settle()
            yield live
    finally:
        databases.drop()


def _release_the_animals(live: Live) -> None:
    """Each value inserted; updated to the next one, and to itself; deleted. One table a type."""
    with psycopg.connect(live.databases.source_dsn, autocommit=True) as source:
        source.execute("set search_path = public")
        for statement in (*EXTENSIONS, *TYPES):
            source.execute(statement)
        for number, (type_name, _) in enumerate(ZOO):
            source.execute(f"create table zoo_{number} (n int primary key, v {type_name})".encode())
            source.execute(f"alter table zoo_{number} replica identity full".encode())
            source.execute(
                f'create trigger "A_oracle_row" after insert or update or delete on zoo_{number}'
                " for each row execute function oracle.note()".encode()
            )
        live.publish()
        for number, (type_name, literals) in enumerate(ZOO):
            table = f"zoo_{number}"
            with source.transaction():
                for n, literal in enumerate(literals):
                    if literal is not None and literal.startswith("SQL:"):
                        source.execute(f"insert into {table} select %s, {literal[4:]}".encode(), (n,))
                    else:
                        statement = f"insert into {table} values (%s, %s::text::{type_name})"
                        source.execute(statement.encode(), (n, literal))
            count = f"(select count(*) from {table})"
            update = f"update {table} t set v = o.v from {table} o where o.n = (t.n + 1) % {count}"
            source.execute((update if len(literals) > 1 else f"update {table} set v = null").encode())
            source.execute(f"update {table} set n = n".encode())
        for number in range(len(ZOO)):
            # the texts feed other tables; all are there until now
            source.execute(f"delete from zoo_{number}")


def _found(live: Live) -> list[tuple[Change, list[str] | None, str]]:
    rows = live.audit.execute(
        "select action, table_name, old_data::text, new_data::text, changed_fields, capture"
        " from audit.audit_logs where table_name like 'zoo_%' order by id"
    )
    return [(Change(*row[:4]), row[4], row[5]) for row in rows]


def _value(image: str | None) -> str:
    """The text of v: it is the second of two keys."""
    return "" if image is None else image.partition(', "v": ')[2][:-1]


def test_every_value_of_the_zoo_is_stored_as_a_trigger_sees_it(live: Live) -> None:
    """Cases 46 to 56, 58, 59, 60: 0 differences but for the listed losses."""
    wanted, found = noted(live.source, ["public"]), _found(live)
    wanted = [change for change in wanted if change.table.startswith("zoo_")]
    assert len(found) == len(wanted)
    assert len(wanted) > 4 * sum(len(literals) for _, literals in ZOO) - len(ZOO)
    lost = set()
    for want, (have, _, _) in zip(wanted, found, strict=True):
        assert have[:2] == want[:2]
        for ours, theirs in ((have.old, want.old), (have.new, want.new)):
            if ours == theirs:
                continue
            type_name = ZOO[int(want.table.removeprefix("zoo_"))][0]
            value = _value(theirs)
            assert ours == str(theirs).replace(f'"v": {value}}}', '"v": null}'), type_name
            lost.add((type_name, value.strip('"')))
    assert lost == (LOST if live.plugin == "wal2json" else set())


def test_changed_fields_name_what_differs_between_the_stored_images(live: Live) -> None:
    """Case 34: nothing, where an update changes nothing."""
    seen = set()
    for change, fields, capture in _found(live):
        assert capture == "full"
        if change.action == "UPDATE":
            assert fields == (["v"] if _value(change.old) != _value(change.new) else [])
            seen.add(bool(fields))
        else:
            assert fields is None
    assert seen == {True, False}


def test_a_lost_number_in_a_not_null_column_marks_its_row(live: Live) -> None:
    """Case 46."""
    scene = live.scene()
    scene.run("create table strict (id int primary key, f real not null, d numeric not null, x float8)")
    scene.run("alter table strict replica identity full")
    scene.watch("strict")
    live.publish()
    scene.run("insert into strict values (1, 1.5, 2, 3), (2, 'NaN', 1, null), (3, 1, 'Infinity', 1)")
    scene.run("insert into strict values (4, 1, 1, 'NaN')")
    scene.run("update strict set f = 7 where id in (1, 2)")
    scene.run("update strict set f = 8 where id = 2")
    scene.run("delete from strict where id = 3")
    marks = [row[0] for row in scene.trail("capture")]
    if live.plugin == "wal2json":
        assert marks == ["full", "lossy", "lossy", "full", "full", "lossy", "full", "lossy"]
    else:
        assert marks == ["full"] * 8
        scene.check()


def test_a_mark_needs_a_constraint_that_still_holds(live: Live) -> None:
    scene = live.scene()
    scene.run("create table loosened (id int primary key, d numeric not null)")
    live.publish()
    scene.run("insert into loosened values (1, 'NaN')")
    first = scene.trail("capture")
    scene.run("alter table loosened alter d drop not null")
    scene.run("insert into loosened values (2, null)")
    marks = [row[0] for row in scene.trail("capture")]
    assert first == ([("lossy",)] if live.plugin == "wal2json" else [("full",)])
    assert marks[1] == "full"


def test_json_that_jsonb_cannot_hold_is_stored_as_a_string_of_its_text(live: Live) -> None:
    """Case 53: a trigger that writes to_jsonb(NEW) would make the application's statement fail."""
    scene = live.scene()
    scene.run("create table beyond (n int primary key, v json)")
    live.publish()
    for n, text in enumerate(BEYOND_JSONB):
        live.source.execute("insert into beyond values (%s, %s)", (n, text))
    wanted = live.source.execute("select n, to_jsonb(v::text)::text from beyond order by n").fetchall()
    assert scene.trail("(new_data ->> 'n')::int, (new_data -> 'v')::text") == wanted


def test_every_stored_line_hash_root_and_block_follows_from_what_is_stored(live: Live) -> None:
    """COPY of the stored rows gives exactly the lines that were hashed."""
    live.settle()
    assert check_proof(live.databases.audit_dsn) > 2000
