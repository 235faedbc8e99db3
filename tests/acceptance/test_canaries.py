"""Secrets sent along every path are in nothing that cdc-audit writes: not in the audit server's files, nor in log, metrics, proofs.

Ordinary values, sent along too, are found in the same files by the same search; but in the daemon's own words they aren't either.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from cdc_audit.seal import proof
from cdc_audit.trail.verify import reading
from cdc_audit.trail.verify_proof import prove
from tests.support.canaries import Canaries, files
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server

SCHEMA = """
create type login as (name text, password text);
create table accounts (
    id int primary key, password text, "apiKey" json, client_secret jsonb, pin bigint, access_token bytea, tokens text[],
    note text, picture bytea, doc jsonb, list jsonb, odd json, login login, logins login[]
);
alter table accounts replica identity full;
create table big (id int primary key, n int, secret text);
alter table big alter secret set storage external;
create table people (id int primary key, masked text, dropped text, hashed text, doc jsonb);
alter table people replica identity full;
create table by_name (pin text primary key);
create table by_mask (code text primary key);
create table by_drop (code text primary key);
create table by_hmac (code text primary key);
create table by_pair (a text, b text, primary key (a, b));
create table visits (day date not null, password text) partition by range (day);
create table visits_2026 partition of visits for values from ('2026-01-01') to ('2027-01-01');
create table loose (password text);
create table marks (id text primary key, note text);
"""
RULES = """
[redact]
hmac_key_file = "{key}"
[[redact.rules]]
table = "public.people"
column = "masked"
mode = "mask"
[[redact.rules]]
table = "*.people"
column = "dropped"
mode = "drop"
[[redact.rules]]
column = "hashed"
mode = "hmac"
[[redact.rules]]
table = "public.by_mask"
column = "code"
mode = "mask"
[[redact.rules]]
table = "public.by_drop"
column = "code"
mode = "drop"
[[redact.rules]]
table = "public.by_*"
column = "b"
mode = "mask"
[[redact.rules]]
table = "public.by_hmac"
column = "code"
mode = "hmac"
[[redact.rules]]
table = "public.by_pair"
column = "a"
mode = "hmac"
"""
TRAIL = {"base", "pg_wal", "proofs", "log json", "log csv"}


def change_accounts(source: psycopg.Connection, canaries: Canaries) -> None:
    """Columns and keys named like secrets, of every type: inserted, updated, deleted."""
    insert = (
        "insert into accounts values (%(id)s, %(password)s, %(json)s::json, %(jsonb)s, %(pin)s, %(bytes)s, %(array)s,"
        " %(note)s, %(picture)s, %(doc)s, %(list)s, %(odd)s::json, row('n', %(login)s)::login,"
        " array[row('n', %(logins)s)::login])"
    )

    def values(when: str) -> dict[str, object]:
        def word(path: str) -> str:
            return canaries.secret(f"{path}, {when}")

        return {
            "id": 1,
            "password": word("text column"),
            "json": json.dumps({"a": word("json column")}),
            "jsonb": Jsonb([word("jsonb column")]),
            "pin": canaries.number(f"bigint column, {when}"),
            "bytes": word("bytea column").encode(),
            "array": [word("array column")],
            "note": canaries.plain(f"text column, {when}, ordinary"),
            "picture": canaries.plain(f"bytea column, {when}, ordinary").encode(),
            "doc": Jsonb(
                {"a": {"b": {"userPassword": word("jsonb, nested")}}, "s": json.dumps({"pin": word("jsonb, text")})}
            ),
            "list": Jsonb([1.50, [{"token": {"x": [word("jsonb, array of objects")]}}]]),
            "odd": json.dumps({"nul": "\0", "password": word("json that jsonb can't hold")}),
            "login": word("composite"),
            "logins": word("array of composites"),
        }  # fmt: skip

    source.execute(insert, values("inserted"))
    source.execute("delete from accounts where id = 2")
    source.execute(insert, {**values("updated"), "id": 2})
    source.execute(
        'update accounts a set (password, "apiKey", client_secret, pin, access_token, tokens, note, picture, doc, list, odd,'
        ' login, logins) = (select password, "apiKey", client_secret, pin, access_token, tokens, note, picture, doc, list,'
        " odd, login, logins from accounts where id = 2) where id = 1"
    )
    source.execute("delete from accounts")


def change_by_rules(source: psycopg.Connection, canaries: Canaries) -> None:
    """What rules say, keys, partitions, TOASTed values, tables without identity."""
    columns = ("masked", "dropped", "hashed")
    for when in ("inserted", "updated"):
        words = [canaries.secret(f"rule: {column}, {when}") for column in columns]
        if when == "inserted":
            doc = Jsonb({"otp": canaries.secret("rule: jsonb beside")})
            source.execute("insert into people values (1, %s, %s, %s, %s)", (*words, doc))
        else:
            source.execute("update people set masked = %s, dropped = %s, hashed = %s", words)
    source.execute("delete from people")
    for table, column in (("by_name", "pin"), ("by_mask", "code"), ("by_drop", "code"), ("by_hmac", "code")):
        old, new = canaries.secret(f"key {table}, old"), canaries.secret(f"key {table}, new")
        source.execute(f"insert into {table} values ('{old}')")
        source.execute(f"update {table} set {column} = '{new}'")
        source.execute(f"delete from {table}")
    pair = (canaries.secret("composite key, hmac"), canaries.secret("composite key, mask"))
    source.execute("insert into by_pair values (%s, %s)", pair)
    source.execute("delete from by_pair")
    source.execute("insert into visits values ('2026-05-01', %s)", (canaries.secret("partition"),))
    large = secrets.token_hex(5000) + canaries.secret("TOASTed column")
    source.execute("insert into big values (1, 1, %s)", (large,))
    source.execute("update big set n = 2")
    source.execute("insert into loose values (%s)", (canaries.secret("no identity, inserted"),))
    with suppress(psycopg.errors.ObjectNotInPrerequisiteState):  # pgoutput's publication refuses it
        source.execute("update loose set password = %s", (canaries.secret("no identity, updated"),))


def say_who(source: psycopg.Connection, canaries: Canaries) -> None:
    """Contexts and events, well made and not."""

    def message(path: str, content: str, kind: str = "context") -> None:
        with source.transaction():
            source.execute("select pg_logical_emit_message(true, %s, %s)", (f"cdc_audit.{kind}", content))
            source.execute("insert into marks values (%s)", (path,))

    def nested(path: str) -> dict[str, object]:
        return {
            "user_id": "u1",
            "request": {"headers": [{"api-key": canaries.secret(path)}]},
            "body": json.dumps({"token": canaries.secret(f"{path}, text")}),
        }

    with source.transaction():
        source.execute("select cdc_audit.set_context(%s)", (Jsonb(nested("signed context")),))
        source.execute("insert into marks values ('signed')")
    message("asserted", json.dumps(nested("asserted context")))
    body = json.dumps({"kind": "context", "xid": "1", "context": nested("forged context")})
    message("forged", f"v1:unknown:{'00' * 32}:{body}")
    message("malformed", f'user_id=u, password="{canaries.secret("malformed context")}"')
    message("escaped", '{"p\\u0061ssword": "' + canaries.secret("malformed context, escaped"))
    message("large", json.dumps({"secret": canaries.secret("oversize context"), "x": "y" * 9000}))
    message("event", "LOGIN token=" + canaries.secret("malformed event"), kind="event")
    said = {
        "action": "LOGIN",
        "data": {"password": canaries.secret("asserted event"), "context": nested("event's own context")},
    }
    message("asserted event", json.dumps(said), kind="event")
    for transactional in (True, False):
        data = Jsonb([{"password": canaries.secret(f"event, transactional {transactional}")}])
        source.execute("select cdc_audit.log_event('LOGIN', 'users', 'u1', %s, %s)", (data, transactional))
    source.execute(
        "select pg_logical_emit_message(true, 'other.context', %s)", (canaries.secret("others' message"),)
    )


def fail_and_define(source: psycopg.Connection, canaries: Canaries) -> None:
    """Errors that quote values, transactions rolled back, DDL and query texts that hold them."""
    source.execute("create table strict (id text primary key, n int check (n > 0))")
    twice = canaries.secret("unique violation")
    with suppress(psycopg.errors.UniqueViolation):
        source.execute("insert into strict values (%s, 1), (%s, 1)", (twice, twice))
    with suppress(psycopg.errors.CheckViolation):
        source.execute("insert into strict values (%s, 0)", (canaries.secret("check violation"),))
    with suppress(psycopg.errors.InvalidTextRepresentation):
        source.execute("select %s::int", (canaries.secret("bad cast"),))
    with source.transaction(force_rollback=True):
        source.execute("insert into marks values ('rolled back', %s)", (canaries.secret("rolled back"),))
    source.execute(f"comment on table strict is '{canaries.secret('comment')}'")
    source.execute(f"alter table strict add column note text default '{canaries.secret('default')}'")
    source.execute(
        f"alter table marks add column token text default '{canaries.secret('default of a secret')}'"
    )
    text = canaries.secret("function")
    source.execute(f"create function f() returns text language sql as $$ select '{text}' $$")
    source.execute(f"insert into marks values ('ddl') /* {canaries.secret('query text')} */")


def fail_to_connect(databases: Databases, canaries: Canaries, tmp_path: Path) -> None:
    """Daemons that can't connect, with passwords in their DSNs, well and badly written."""
    word = canaries.secret("password of a failing connection")
    env = databases.environment(
        AUDIT_DSN=f"host=127.0.0.1 port=1 connect_timeout=2 password={word}", LOG_LEVEL="debug"
    )
    with DaemonProcess(env, tmp_path / "failing") as daemon:
        until(lambda: daemon.events("connection_lost"), "it says that it can't connect")
        canaries.look("daemon log", daemon.get("/readyz")[1])
        assert daemon.stop() == 0
    for number, dsn in enumerate(
        ("host=h password=x {}", "postgresql://u:p@{}@h/d", "postgresql://u:p/{}@h/d")
    ):
        given = dsn.format(canaries.secret(f"password in a wrong DSN, {number}"))
        done = cdc_audit("run", env=databases.environment(SOURCE_DSN=given))
        assert (done.returncode, "password" in done.stderr) == (78, True)
        canaries.look("command output", done.stdout + done.stderr)
    canaries.look("daemon log", (tmp_path / "failing").read_bytes())


def fail_to_store(
    databases: Databases, env: dict[str, str], canaries: Canaries, source: psycopg.Connection, log: Path
) -> None:
    """A row that the audit database refuses, quoting it: the daemon stops, and stores it when it may."""
    alter = "alter table audit.audit_logs {} constraint poison"
    databases.audit.execute(
        alter.format("add") + " check (record_id <> 'poison')", dbname=databases.audit_name
    )
    with DaemonProcess(env, log) as daemon:
        daemon.until_ready()
        words = (canaries.plain("refused row, ordinary"), canaries.secret("refused row"))
        source.execute("insert into marks values ('poison', %s, %s)", words)
        assert daemon.wait() == 78
        assert "23514" in daemon.log_text()
    databases.audit.execute(alter.format("drop"), dbname=databases.audit_name)
    with DaemonProcess(env, log) as daemon:
        stored(databases, "poison")
        assert daemon.stop() == 0


def stored(databases: Databases, mark: str) -> None:
    """Wait until the trail holds a mark."""
    query = "select from audit.audit_logs where table_name = 'marks' and record_id = %s"
    until(lambda: databases.audit.execute(query, (mark,), dbname=databases.audit_name), f"{mark} is stored")


def look_everywhere(databases: Databases, env: dict[str, str], canaries: Canaries, tmp_path: Path) -> None:
    """Search all that was written on the audit side, and what the commands print of it."""
    for path, data in files(databases.audit.dsn()):
        canaries.look(path.split("/")[0] if "/" in path else "other files", data)
    canaries.look("server log", databases.audit.log_text())
    canaries.look("daemon log", (tmp_path / "log").read_bytes())
    canaries.look("anchors", (tmp_path / "anchors.jsonl").read_bytes())
    ledger = databases.audit.execute("select l::text from audit.ledger l", dbname=databases.audit_name)
    canaries.look("ledger", str(ledger))
    rows = databases.audit.execute("select id from audit.audit_logs", dbname=databases.audit_name)
    with reading(databases.audit_dsn, "audit") as audit:
        for (number,) in rows:
            canaries.look("proofs", proof.write(prove(audit, "audit", number)))
    for form in ("json", "csv", "table"):
        done = cdc_audit("log", "--format", form, "--limit", "10000", env=env)
        assert done.returncode == 0 and done.stdout.count("\n") >= len(rows)
        canaries.look(f"log {form}", done.stdout + done.stderr)
    public = str(tmp_path / "signing.pem.pub")
    done = cdc_audit("verify", "--public-key", public, "--anchor", str(tmp_path / "anchors.jsonl"), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    canaries.look("command output", done.stdout + done.stderr)
    for arguments in (("doctor",), ("source", "tables"), ("slot", "status"), ("schema", "status"), ("init",)):
        done = cdc_audit(*arguments, env=env)
        canaries.look("command output", done.stdout + done.stderr)


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_no_secret_is_anywhere_and_ordinary_values_only_in_the_trail(
    source_cluster: Server, private_cluster: Callable[..., Server], tmp_path: Path, plugin: str
) -> None:
    canaries = Canaries()
    key = tmp_path / "redact.key"
    key.write_text(canaries.secret("redaction key").ljust(32, "."))
    key.chmod(0o600)
    (tmp_path / "cdc-audit.toml").write_text(RULES.format(key=key))
    databases = new_databases(source_cluster, private_cluster("canaries"))
    assert cdc_audit("key", "generate", str(tmp_path / "signing.pem"), env={}).returncode == 0
    databases.source.execute(SCHEMA, dbname=databases.source_name)
    env = databases.environment(
        CONFIG=str(tmp_path / "cdc-audit.toml"),
        SOURCE_DSN=make_conninfo(databases.source_dsn, password=canaries.secret("password to the source")),
        AUDIT_DSN=make_conninfo(
            databases.audit_dsn, password=canaries.secret("password to the audit database")
        ),
        SOURCE_PLUGIN=plugin,
        BATCH_FLUSH_INTERVAL="0",
        LOG_LEVEL="debug",
        LEDGER_SIGNING_KEY_FILE=str(tmp_path / "signing.pem"),
        LEDGER_ANCHORS=f"file:{tmp_path / 'anchors.jsonl'}",
    )
    try:
        initialised(env)
        with psycopg.connect(databases.source_dsn, autocommit=True) as source:
            with DaemonProcess(env, tmp_path / "log") as daemon:
                daemon.until_ready()
                change_accounts(source, canaries)
                change_by_rules(source, canaries)
                say_who(source, canaries)
                fail_and_define(source, canaries)
                stored(databases, "ddl")
                canaries.look("metrics", daemon.get("/metrics")[1] + daemon.get("/readyz")[1])
                assert daemon.metric("redacted_values_total") > 0
                assert daemon.stop() == 0
            fail_to_store(databases, env, canaries, source, tmp_path / "log")
        fail_to_connect(databases, canaries, tmp_path)
        look_everywhere(databases, env, canaries, tmp_path)
    finally:
        databases.drop()
    print(canaries.table())
    assert canaries.leaks() == [], canaries.table()
    for path in canaries.plain_values:
        assert canaries.places_of(path) >= TRAIL, f"the search does not find what is there: {path}"
        assert canaries.places_of(path) <= {*TRAIL, "log table", "server log"}, canaries.table()
