"""A person is erased from the trail while the daemon works: the proof stays whole, the values are gone from tables and files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from cdc_audit.seal.signature import public_from_pem
from tests.support import second_openings
from tests.support import second_verifier as second
from tests.support.canaries import Canaries, files
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

SCHEMA = """
create schema crm;
create table crm.people (id int primary key, name text, home jsonb, income numeric, phones text[], plan text);
alter table crm.people replica identity full;
create table crm.visits (id int primary key, note text);
"""
RULES = """
[redact]
personal_context = ["user_email", "ip_address", "user_agent", "device"]
[[redact.rules]]
table = "crm.people"
column = "*"
mode = "personal"
[[redact.rules]]
table = "crm.people"
column = "plan"
mode = "keep"
"""
INCOME = "81234567890123456.70"
LARGE = 100_000


@pytest.fixture
def alone(source_cluster: Server, private_cluster: Callable[..., Server]) -> Iterator[Databases]:
    """Databases whose audit server holds nothing else."""
    databases = new_databases(source_cluster, private_cluster("erasure"))
    yield databases
    databases.drop()


def environment(databases: Databases, folder: Path, **more: str) -> dict[str, str]:
    """A source with people, a signing key, and rules that say what is personal; initialised."""
    databases.source.execute(SCHEMA, dbname=databases.source_name)
    (folder / "cdc-audit.toml").write_text(RULES)
    assert cdc_audit("key", "generate", str(folder / "signing.pem"), env={}).returncode == 0
    env = databases.environment(
        CONFIG=str(folder / "cdc-audit.toml"),
        BATCH_FLUSH_INTERVAL="0",
        LEDGER_SIGNING_KEY_FILE=str(folder / "signing.pem"),
        **more,
    )
    initialised(env)
    return env


def called(env: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = cdc_audit(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def verified(env: dict[str, str], databases: Databases, folder: Path) -> dict[str, Any]:
    """What verify says of a whole trail; the second verifier finds nothing, too."""
    key = folder / "signing.pem.pub"
    report = called(env, "verify", "--public-key", str(key))
    assert report["verdict"] == "verified", report
    assert second.verify(databases.audit_dsn, "audit", [public_from_pem(key.read_bytes())], {}) == []
    assert second_openings.verify(databases.audit_dsn, "audit") == []
    return report


@contextmanager
def visitors(databases: Databases) -> Iterator[list[int]]:
    """Transactions of other people all the while; the list grows with each one that is committed."""
    done: list[int] = []
    stopping = threading.Event()

    def work() -> None:
        with psycopg.connect(databases.source_dsn) as source:
            while not stopping.is_set():
                source.execute(
                    "select cdc_audit.set_context(%s)", (Jsonb({"user_id": "u1", "user_email": "a@b.c"}),)
                )
                source.execute("insert into crm.visits values (%s, 'x')", (len(done),))
                source.commit()
                done.append(len(done))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join()


def live_a_life(source: psycopg.Connection, canaries: Canaries) -> None:
    """Person 7 comes, moves and goes; user u7 does it, and another row of somebody else's."""
    name, street = canaries.plain("text"), canaries.plain("json")
    word = canaries.plain
    context = {
        "user_id": "u7",
        "user_email": word("e-mail"),
        "ip_address": "203.0.113.77",
        "user_agent": word("user agent"),
        "device": {"id": word("device"), "size": 12.50},
        "request_id": "r1",
    }
    with source.transaction():
        source.execute("select cdc_audit.set_context(%s)", (Jsonb(context),))
        source.execute(
            "insert into crm.people values (7, %s, %s, %s, %s, 'free'), (8, 'Ben', '{}', 1.10, '{}', 'free')",
            (
                f"Zoë \\ {name}\t\U0001f600",
                Jsonb({"street": street, "password": "hunter2"}),
                INCOME,
                ["+49", word("array")],
            ),
        )
    with source.transaction():
        source.execute("select cdc_audit.set_context(%s)", (Jsonb(context),))
        source.execute("update crm.people set home = null, plan = 'paid' where id = 7")
    with source.transaction():
        source.execute("select cdc_audit.set_context(%s)", (Jsonb({"user_id": "u1"}),))
        source.execute("delete from crm.people where id = 7")


def rows(databases: Databases, table: str) -> int:
    query = "select count(*) from audit.audit_logs where table_name = %s"
    return int(databases.audit.execute(query, (table,), dbname=databases.audit_name)[0][0])


def look_in_files(databases: Databases, canaries: Canaries, place: str) -> None:
    for path, data in files(databases.audit.dsn()):
        if path.startswith("base/"):
            canaries.look(place, data)


def test_a_person_is_erased_under_load_and_the_proof_stays_whole(alone: Databases, tmp_path: Path) -> None:
    canaries = Canaries()
    env = environment(alone, tmp_path)
    with DaemonProcess(env, tmp_path / "log", "--no-standby") as daemon, visitors(alone) as visited:
        daemon.until_ready()
        with psycopg.connect(alone.source_dsn, autocommit=True) as source:
            live_a_life(source, canaries)
        until(lambda: rows(alone, "people") == 4, "all changes of people")
        before = verified(env, alone, tmp_path)
        assert before["erased_values"] == 0
        record = ("--table", "crm.people", "--record", "7")
        shown = cdc_audit("log", *record, "--json", env=env).stdout
        assert all(word in shown for word in canaries.plain_values.values())
        assert INCOME in shown
        assert "hunter2" not in shown
        look_in_files(alone, canaries, "before")

        planned = called(env, "erase", *record, "--user", "u7", "--reason", "request 118", "--dry-run")
        assert planned["values"] == (4 + 4 + 3 + 3) + 3 * 4  # of images, where null has no value; of contexts
        assert verified(env, alone, tmp_path)["erasures"] == 0
        done = called(env, "erase", *record, "--user", "u7", "--reason", "request 118")
        assert (done["values"], len(done["blocks"])) == (planned["values"], 2)

        count = len(visited)
        until(lambda: len(visited) > count + 20, "more visitors after the erasure")
        until(lambda: rows(alone, "visits") > count + 20, "and they are stored")
        assert daemon.is_running
        after = verified(env, alone, tmp_path)
    assert (after["erased_values"], after["erasures"]) == (planned["values"], 2)
    assert after["erased_rows"] == 4

    shown = cdc_audit("log", *record, "--json", env=env).stdout
    assert shown.count("[erased]") == planned["values"] - 4  # row 8 is another record's
    for table in ("audit_logs", "ledger", "personal_values"):
        text = alone.audit.execute(
            f"select string_agg(t::text, ' ') from audit.{table} t", dbname=alone.audit_name
        )
        canaries.look(table, text[0][0])
        assert INCOME not in text[0][0]
    # A plain VACUUM leaves the bytes of what it removes in the pages, until something else is written there.
    alone.audit.execute("vacuum full audit.personal_values", dbname=alone.audit_name)
    look_in_files(alone, canaries, "after")
    print(canaries.table())
    for path in canaries.plain_values:
        assert canaries.places_of(path) == {"before"}, canaries.table()


def test_erasing_again_and_again_beside_the_daemon_loses_and_doubles_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    env = environment(databases, tmp_path)
    with DaemonProcess(env, tmp_path / "log", "--no-standby") as daemon, visitors(databases) as visited:
        daemon.until_ready()
        for _ in range(5):
            until(lambda: rows(databases, "visits") > 0, "visits")
            said = called(env, "erase", "--user", "u1", "--reason", "again")
            stored, erased = rows(databases, "visits"), said["values"]
            assert erased > 0
            until(lambda: rows(databases, "visits") > stored, "the daemon goes on", 5)  # noqa: B023
        assert daemon.is_running
        assert daemon.metric("state", state="streaming") in {0, 1}
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()  # all may be stored already: a signal must not meet a process that only starts
        until(lambda: rows(databases, "visits") == len(visited), "all visits")
        assert daemon.stop() == 0
    ids = databases.audit.execute(
        "select record_id::int from audit.audit_logs where table_name = 'visits' order by id",
        dbname=databases.audit_name,
    )
    assert [number for (number,) in ids] == visited
    report = verified(env, databases, tmp_path)
    assert report["erasures"] == 5
    print(f"{len(visited)} transactions, {len(daemon.events('ledger_moved'))} times the ledger had moved")
    assert daemon.events("connection_lost") == []


def test_a_large_transaction_of_personal_values_goes_through_in_flat_memory(
    databases: Databases, tmp_path: Path
) -> None:
    env = environment(databases, tmp_path)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute(
            "insert into crm.people select n, 'name ' || n, jsonb_build_object('street', n), n * 1.10, array['+49', n::text], 'x'"
            " from generate_series(1, %s) n",
            (LARGE,),
            dbname=databases.source_name,
        )
        until(lambda: rows(databases, "people") == LARGE, "all rows", 300)
        peak = daemon.resident_bytes()
        print(f"{LARGE} rows with 4 personal values each: peak resident memory {peak / 1048576:.0f} MiB")
        assert peak < 150 * 1024 * 1024
        assert daemon.stop() == 0
    count = databases.audit.execute(
        "select l.row_count, (detail -> 'personal' ->> 'count')::int, (select count(*) from audit.personal_values)"
        " from audit.ledger l where kind = 'data'",
        dbname=databases.audit_name,
    )
    assert count == [(LARGE, 4 * LARGE, 4 * LARGE)]
    verified(env, databases, tmp_path)
    said = called(env, "erase", "--table", "people", "--record", str(LARGE), "--reason", "one of many")
    assert said["values"] == 4
    assert verified(env, databases, tmp_path)["erased_rows"] == 1


def test_what_makes_no_sense_or_is_not_there_is_said(databases: Databases, tmp_path: Path) -> None:
    env = environment(databases, tmp_path)
    for arguments in (
        [],
        ["--table", "crm.people"],
        ["--record", "7"],
        ["--user", "u1", "--reason", " "],
        ["--user", "u1", "--reason", "x" * 1001],
    ):
        given = arguments if "--reason" in arguments else [*arguments, "--reason", "why"]
        assert cdc_audit("erase", *given, env=env).returncode == 2
    assert "Missing option" in cdc_audit("erase", "--user", "u1", env=env).stderr
    none = cdc_audit("erase", "--user", "nobody", "--reason", "why", env=env)
    assert (none.returncode, none.stdout) == (0, "no personal values found\n")
    unsigned = {**env, "CDC_AUDIT_AUDIT_ADMIN_DSN": databases.audit.dsn(databases.audit_name, "audit_writer")}
    refused = cdc_audit("erase", "--user", "u1", "--reason", "why", env=unsigned)
    assert (refused.returncode, "admin_dsn" in refused.stderr) == (77, True)
