"""What the plugin should never send stops the daemon with a clear word, and nothing is lost or made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.proxy import Proxy
from tests.support.servers import Server


@pytest.fixture
def proxied(
    private_cluster: Callable[..., Server], audit_cluster: Server
) -> Iterator[tuple[Databases, Proxy, str]]:
    """A source behind a proxy, and the connection string through it."""
    databases = new_databases(private_cluster("source", tcp=True), audit_cluster)
    databases.source.execute("create table t (id int primary key, v text)", dbname=databases.source_name)
    initialised(databases.environment())
    direct = conninfo_to_dict(databases.source_dsn)
    with Proxy(str(direct["host"]), int(str(direct["port"]))) as proxy:
        yield (
            databases,
            proxy,
            f"host=127.0.0.1 port={proxy.port} dbname={databases.source_name} user=postgres sslmode=disable",
        )
    databases.drop()


def stored(databases: Databases) -> list[tuple[str, ...]]:
    return databases.audit.execute(
        "select record_id from audit.audit_logs order by id", dbname=databases.audit_name
    )


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ((b'"action":"T"', b'"action":"Z"'), "unknown action"),
        ((b'"identity":[', b'"identity"}['), "invalid JSON"),
        ((b'"nextlsn":"', b'"nextlzn":"'), "lacks a field"),
    ],
    ids=["unknown action", "invalid JSON", "missing field"],
)
def test_a_message_that_wal2json_never_sends_stops_the_daemon_and_loses_nothing(
    proxied: tuple[Databases, Proxy, str], broken: tuple[bytes, bytes], words: str, tmp_path: Path
) -> None:
    databases, proxy, dsn = proxied
    databases.source.execute("insert into t values (1, 'secret-value')", dbname=databases.source_name)
    databases.source.execute("update t set v = 'secret-other'", dbname=databases.source_name)
    databases.source.execute("truncate t", dbname=databases.source_name)
    proxy.replace = dict([broken])
    with DaemonProcess(databases.environment(SOURCE_DSN=dsn), tmp_path / "log") as daemon:
        assert daemon.wait() == 70
        assert words in daemon.log_text()
        assert "secret-" not in daemon.log_text()
        # Without its end nothing is known of the transaction, and so no way past it.
        assert ("cdc-audit quarantine --lsn" in daemon.log_text()) == ("lacks" not in words)
    proxy.replace = {}
    with DaemonProcess(
        databases.environment(SOURCE_DSN=dsn, BATCH_FLUSH_INTERVAL="0"), tmp_path / "log"
    ) as daemon:
        until(lambda: len(stored(databases)) == 3, "all three changes are there")
        assert daemon.stop() == 0
    assert stored(databases) == [("1",), ("1",), (None,)]


def test_a_connection_that_breaks_in_the_middle_of_rows_is_made_again_and_nothing_is_repeated(
    proxied: tuple[Databases, Proxy, str], tmp_path: Path
) -> None:
    databases, proxy, dsn = proxied
    with DaemonProcess(
        databases.environment(SOURCE_DSN=dsn, BATCH_FLUSH_INTERVAL="0.05"), tmp_path / "log"
    ) as daemon:
        daemon.until_ready()
        for first in range(0, 20_000, 2_000):
            databases.source.execute(
                "insert into t select n, repeat('x', 200) from generate_series(%s::int, %s::int) n",
                (first + 1, first + 2_000),
                dbname=databases.source_name,
            )
            proxy.cut()
        until(lambda: len(stored(databases)) == 20_000, "all rows are there", 60)
        assert daemon.metric("reconnects_total", side="source") >= 1
        assert daemon.stop() == 0
    assert stored(databases) == [(str(n),) for n in range(1, 20_001)]
