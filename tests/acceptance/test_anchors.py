"""Anchors of a real daemon at three places: each shows what a superuser took from the trail; one that fails harms nothing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.support.anchor_endpoint import Endpoint
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases
from tests.support.object_store import ObjectStore


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(token="bearer-secret") as running:
        yield running


class Places:
    """A file, an endpoint and a bucket, as the daemon and as a verifier name them."""

    def __init__(self, folder: Path, endpoint: Endpoint, store: ObjectStore) -> None:
        self.endpoint, self.store, self.bucket = endpoint, store, store.bucket()
        self.file, self.token = folder / "anchors.jsonl", folder / "token"
        self.token.write_text("bearer-secret\n")
        url = endpoint.url
        self.targets = f"file:{self.file},{url}?key=query-secret,s3://{self.bucket}/p?mode=COMPLIANCE&days=1"
        self.sources = [str(self.file), url, f"s3://{self.bucket}/p"]

    def environment(self, databases: Databases, **more: str) -> dict[str, str]:
        given = databases.environment(
            BATCH_FLUSH_INTERVAL="0",
            LEDGER_ANCHORS=self.targets,
            LEDGER_ANCHOR_TOKEN_FILE=str(self.token),
            **more,
        )
        return {**given, **self.store.environment}

    def verify(
        self, env: dict[str, str], source: str, *more: str
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
        token = ("--anchor-token-file", str(self.token)) if source.startswith("http") else ()
        done = cdc_audit("verify", "--anchor", source, *token, *more, "--json", env=env)
        return done, json.loads(done.stdout) if done.stdout else {}


@pytest.fixture
def places(tmp_path: Path, endpoint: Endpoint, object_store: ObjectStore) -> Places:
    return Places(tmp_path, endpoint, object_store)


def change(databases: Databases, rows: int) -> None:
    """Change rows, each in a transaction of its own, and wait until they are in the trail."""
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        source.execute("create table if not exists pets (id serial primary key, name text)")
        for _ in range(rows):
            source.execute("insert into pets (name) values ('rex')")
        (total,) = source.execute("select count(*) from pets").fetchone() or (0,)
    with psycopg.connect(databases.audit_dsn, autocommit=True) as audit:
        until(
            lambda: audit.execute("select count(*) from audit.audit_logs").fetchone() == (total,),
            f"{total} rows",
        )


def run(databases: Databases, env: dict[str, str], log: Path, rows: int, *arguments: str) -> None:
    with DaemonProcess(env, log, *arguments) as daemon:
        daemon.until_ready()
        change(databases, rows)
        assert daemon.stop() == 0, daemon.log_text()
    assert daemon.events("anchor_failed") == []


def as_superuser(databases: Databases, *statements: str) -> None:
    with psycopg.connect(databases.audit_dsn) as audit:
        audit.execute("set session_replication_role = replica")
        for table in ("ledger", "audit_logs"):
            audit.execute(f"alter table audit.{table} disable trigger user")
        for statement in statements:
            audit.execute(statement)


def test_a_tail_that_a_superuser_cut_off_is_found_by_each_kind_of_anchor(
    databases: Databases, places: Places, tmp_path: Path
) -> None:
    env = places.environment(databases)
    initialised(env)
    run(databases, env, tmp_path / "log", 5)
    for source in places.sources:
        done, said = places.verify(env, source)
        assert (done.returncode, said["missing"], said["anchor_notes"]) == (0, [], []), done.stderr
        assert said["anchored"] == len({json.loads(line)["block"] for line in places.endpoint.lines})
    ((first_id, block),) = databases.audit.execute(
        "select first_id, block from audit.ledger where row_count > 0 order by block desc limit 1",
        dbname=databases.audit_name,
    )
    as_superuser(
        databases,
        f"delete from audit.audit_logs where id >= {first_id}",
        f"delete from audit.ledger where block >= {block}",
    )
    assert cdc_audit("verify", env=env).returncode == 0, "without an anchor it can't be seen"
    for source in places.sources:
        done, said = places.verify(env, source)
        assert (done.returncode, said["verdict"]) == (1, "tampered"), source
        assert "tail cut off" in done.stdout, source
    places.store.client().delete_objects(
        Bucket=places.bucket, Delete={"Objects": [{"Key": key} for key in places.store.keys(places.bucket)]}
    )
    done, said = places.verify(env, places.sources[2])
    assert (done.returncode, "deleted since" in str(said["anchor_notes"])) == (1, True)


def test_an_older_backup_in_place_of_the_trail_is_found_by_each_kind_of_anchor_also_when_work_went_on(
    databases: Databases, places: Places, tmp_path: Path
) -> None:
    env = places.environment(databases)
    initialised(env)
    run(databases, env, tmp_path / "log", 3)
    backup, audit = f"{databases.audit_name}_backup", databases.audit
    audit.execute(f'create database "{backup}" template "{databases.audit_name}"')
    run(databases, env, tmp_path / "log", 3)
    audit.execute(f'drop database "{databases.audit_name}" with (force)')
    audit.execute(f'alter database "{backup}" rename to "{databases.audit_name}"')

    assert cdc_audit("verify", env=env).returncode == 0, "an older state is a valid one"
    for source in places.sources:
        done, _ = places.verify(env, source)
        assert (done.returncode, "tail cut off" in done.stdout) == (1, True), source

    refused = cdc_audit("run", env=env)
    assert (refused.returncode, "--accept-gap" in refused.stderr) == (78, True)
    with DaemonProcess(env, tmp_path / "log", "--accept-gap", "restored") as daemon:
        daemon.until_ready()
        with psycopg.connect(databases.source_dsn, autocommit=True) as source_db:
            for _ in range(12):
                source_db.execute("insert into pets (name) values ('tom')")
        with psycopg.connect(databases.audit_dsn, autocommit=True) as audit_db:
            query = "select count(*) from audit.audit_logs"
            until(lambda: audit_db.execute(query).fetchone() == (15,), "15 rows")
        assert daemon.stop() == 0
    for source in places.sources:
        done, said = places.verify(env, source)
        assert (done.returncode, said["verdict"]) == (1, "tampered"), source
        assert "anchored" in done.stdout, source


def anchored_since(daemon: DaemonProcess, kind: str, began: float) -> bool:
    return daemon.metric("last_anchor_timestamp_seconds", kind=kind) >= began - 1


def test_one_anchor_that_fails_is_told_by_log_and_metric_and_everything_else_goes_on(
    databases: Databases, places: Places, tmp_path: Path
) -> None:
    env = places.environment(databases)
    places.endpoint.status = 500
    initialised(env)
    began = time.time()
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases, 3)
        until(lambda: daemon.metric("anchor_failures_total", kind="https") == 1, "a counted failure")
        for kind in ("file", "s3"):
            until(partial(anchored_since, daemon, kind, began), kind)
            assert daemon.metric("anchor_failures_total", kind=kind) == 0
        assert daemon.metric("last_anchor_timestamp_seconds", kind="https") == 0
        assert daemon.metric("warnings_total", event="anchor_failed") == 1
        change(databases, 3)
        places.endpoint.status = 200
        assert daemon.get("/readyz")[0] == 200
        assert daemon.stop() == 0
        (failure,) = daemon.events("anchor_failed")
        facts = {key: failure[key] for key in ("kind", "target", "reason")}
        assert facts == {"kind": "https", "target": places.endpoint.url, "reason": "it answered 500"}
    said = [json.loads(line)["block"] for line in places.endpoint.lines]
    ((last,),) = databases.audit.execute("select max(block) from audit.ledger", dbname=databases.audit_name)
    assert said == [last], "the next block, at the stop, is there"
    assert places.verify(env, places.endpoint.url)[0].returncode == 0
    assert "secret" not in daemon.log_text()


def test_an_endpoint_that_never_answers_holds_the_stop_up_for_no_longer_than_ten_seconds(
    databases: Databases, places: Places, tmp_path: Path
) -> None:
    env = places.environment(databases)
    places.endpoint.stall = True
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        change(databases, 1)
        until(lambda: places.endpoint.requests, "a request that gets no answer")
        change(databases, 5)
        asked = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - asked < 15
    assert {event["kind"] for event in daemon.events("anchor_failed")} == {"https"}
    ((last,),) = databases.audit.execute("select max(block) from audit.ledger", dbname=databases.audit_name)
    assert json.loads(places.file.read_text().splitlines()[-1])["block"] == last
    assert places.store.keys(places.bucket)[-1].endswith(f"{last:020}.json")


def test_a_source_of_anchors_that_is_away_or_empty_is_incomplete_evidence(
    databases: Databases, places: Places, tmp_path: Path
) -> None:
    env = places.environment(databases)
    initialised(env)
    for source in (*places.sources, "s3://no-such-bucket/p"):
        done, said = places.verify(env, source)
        assert (done.returncode, said["verdict"]) == (3, "incomplete evidence"), source
        assert source in str(said["missing"]), source
    places.endpoint.stop()
    done, said = places.verify(env, places.endpoint.url)
    assert (done.returncode, "Connection refused" in str(said["missing"])) == (3, True)
    assert places.verify(env, "http://elsewhere.example/")[0].returncode == 2
    refused = cdc_audit("verify", "--anchor", places.endpoint.url, env=env)
    assert (refused.returncode, "secret" in refused.stderr) == (3, False)
