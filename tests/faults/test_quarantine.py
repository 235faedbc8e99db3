"""A transaction that can't be decoded stops the daemon; nothing but it is lost, and the ledger says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.scene import POISON
from tests.faults.test_links import behind, through
from tests.support.command_line import commands, examples
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.servers import Server


@pytest.fixture
def poisoned(databases: Databases) -> Databases:
    databases.source.execute(POISON, dbname=databases.source_name)
    return databases


def run(databases: Databases, statements: str) -> None:
    databases.source.execute(statements, dbname=databases.source_name)


def stored(databases: Databases) -> list[str]:
    rows = databases.audit.execute(
        "select record_id from audit.audit_logs order by id", dbname=databases.audit_name
    )
    return [row[0] for row in rows]


def stopped(env: dict[str, str], log: Path) -> str:
    """What a daemon says that stops over a transaction: the position to quarantine."""
    with DaemonProcess(env, log) as daemon:
        assert daemon.wait(60) == 70
        said = re.search(r"cdc-audit quarantine --lsn (\S+) --reason", daemon.log_text())
        assert said, daemon.log_text()
        assert len(daemon.events("streaming")) == 3, "three attempts"
        return said[1]


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_what_was_committed_before_and_after_a_poisoned_transaction_is_stored_and_the_block_names_it(
    plugin: str, poisoned: Databases, tmp_path: Path
) -> None:
    env = poisoned.environment(SOURCE_PLUGIN=plugin, SOURCE_EXCLUDE="public.outside")
    initialised(env)
    run(poisoned, "insert into t values (1)")
    run(poisoned, "insert into outside values (1)")
    run(poisoned, "begin; insert into t values (2), (3); insert into poisoned values (666, '424242'); commit")
    run(poisoned, "insert into t values (4)")
    lsn = stopped(env, tmp_path / "log")
    assert stored(poisoned) == ["1"], "what came before it is durable"
    assert "424242" not in (tmp_path / "log").read_text(), "no values"

    other = cdc_audit("quarantine", "--lsn", "0/1", "--reason", "r", env=env)
    assert (other.returncode, lsn in other.stderr) == (1, True), other.stderr
    (example,) = examples(dict(commands())[("quarantine",)])
    done = cdc_audit(*(lsn if word == "16/B374D848" else word for word in example), env=env)
    assert done.returncode == 0, done.stderr
    with DaemonProcess({**env, "CDC_AUDIT_BATCH_FLUSH_INTERVAL": "0"}, tmp_path / "log2") as daemon:
        daemon.until_ready()
        until(lambda: stored(poisoned) == ["1", "4"], "what came after it")
        assert daemon.stop() == 0
    again = cdc_audit("quarantine", "--lsn", lsn, "--reason", "once more", env=env)
    assert (again.returncode, "nothing fails" in again.stderr) == (1, True), again.stderr

    blocks = poisoned.audit.execute(
        "select start_lsn < (detail ->> 'lsn')::pg_lsn and (detail ->> 'lsn')::pg_lsn < end_lsn, detail ->> 'reason',"
        " detail ->> 'lost' like 'all changes of transaction %' from audit.ledger where kind = 'poison'",
        dbname=poisoned.audit_name,
    )
    assert blocks == [(True, "a message of 180 MB, ticket 4712", True)]
    assert cdc_audit("verify", env=env).returncode == 0
    slot = poisoned.source.execute(
        "select confirmed_flush_lsn > %s from pg_replication_slots where slot_name = %s", (lsn, poisoned.slot)
    )
    assert slot == [(True,)], "the source may forget it"


def test_a_quarantine_is_refused_while_a_daemon_runs(poisoned: Databases, tmp_path: Path) -> None:
    env = poisoned.environment()
    initialised(env)
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        assert cdc_audit("quarantine", "--lsn", "0/1", "--reason", "r", env=env).returncode == 75
    assert cdc_audit("quarantine", "--lsn", "nowhere", "--reason", "r", env=env).returncode == 2
    assert cdc_audit("quarantine", "--lsn", "0/1", "--reason", " ", env=env).returncode == 2


def test_a_message_that_becomes_larger_than_the_server_can_send_is_poison_too(
    private_cluster: Callable[..., Server], audit_cluster: Server, tmp_path: Path
) -> None:
    """54000: wal2json makes six bytes of each of its 180 million."""
    databases = new_databases(private_cluster("source"), audit_cluster)
    run(databases, "create table t (id int primary key)")
    env = databases.environment()
    initialised(env)
    run(databases, "insert into t values (1)")
    run(
        databases,
        "begin; insert into t values (2);"
        " select pg_logical_emit_message(true, 'cdc_audit.context', repeat(E'\\x01', 180000000)); commit",
    )
    run(databases, "insert into t values (3)")
    done = cdc_audit("quarantine", "--lsn", "0/1", "--reason", "180 MB", env=env, timeout=120)
    assert (done.returncode, "(54000)" in done.stderr) == (1, True), done.stderr
    assert stored(databases) == ["1"]
    databases.drop()


def test_a_transaction_whose_lines_can_not_be_read_is_given_up_the_same_way(
    private_cluster: Callable[..., Server], audit_cluster: Server, tmp_path: Path
) -> None:
    databases = new_databases(private_cluster("source", tcp=True), audit_cluster)
    run(databases, "create table t (id int primary key)")
    initialised(databases.environment())
    for number in (1, 2, 3):
        run(databases, f"insert into t values ({number})")
    with behind(databases.source_dsn) as proxy:
        proxy.replace = {b'"value":2}]': b'"value":2}}'}
        env = databases.environment(SOURCE_DSN=through(proxy, databases.source_dsn))
        lsn = stopped(env, tmp_path / "log")
        assert stored(databases) == ["1"]
        done = cdc_audit("quarantine", "--lsn", lsn, "--reason", "ticket 4713", env=env)
        assert done.returncode == 0, done.stderr
        with DaemonProcess(env, tmp_path / "log2") as daemon:
            daemon.until_ready()
            until(lambda: stored(databases) == ["1", "3"], "all but that one")
            assert daemon.stop() == 0
    databases.drop()
