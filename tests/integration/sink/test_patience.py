"""The writer before an audit database that goes silent while it is asked: is it at work, or does it hear nothing?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_audit import postgres
from cdc_audit.errors import AnotherDaemonError, SettingError, UnavailableError
from cdc_audit.model.ledger import Block
from cdc_audit.pipeline.leftovers import Leftovers
from cdc_audit.sink import ledger, patience
from cdc_audit.sink.writer import Writer
from tests.faults.test_links import behind
from tests.support.daemon import initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.proxy import Proxy
from tests.support.servers import Server, new_server

WRITERS = "select client_port from pg_stat_activity where application_name = 'the writer' and client_port > 0"
# A row that the server refuses when it has read all of it.
LINE = (
    rb"1 2026-11-28_12:00:00+00 public t %b INSERT \N { \N \N \N \N \N \N none \N \N full \N \N 7 0/1 1 \\x00".replace(
        b" ", b"\t"
    ).replace(b"_", b" ")
    + b"\n"
)


@pytest.fixture(scope="module")
def databases(source_cluster: Server, tcp_audit: Server) -> Iterator[Databases]:
    made = new_databases(source_cluster, tcp_audit)
    initialised(made.environment())
    yield made
    made.drop()


@pytest.fixture(scope="module")
def tcp_audit() -> Iterator[Server]:
    server = new_server("audit", tcp=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def link(tcp_audit: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(patience, "ANSWER_LIMIT", 0.5)
    monkeypatch.setattr(postgres, "ANSWER_LIMIT", 0.5)
    monkeypatch.setattr(patience, "_ASK_AGAIN", 0.2)
    with behind(tcp_audit.dsn()) as proxy:
        yield proxy


def opened(databases: Databases, link: Proxy) -> Awaitable[Writer]:
    dsn = make_conninfo(databases.audit_dsn, host="127.0.0.1", port=link.port, sslmode="disable")
    return Writer.open(dsn, "audit", application_name="the writer")


async def next_block(writer: Writer) -> tuple[Block, bytes]:
    """A heartbeat on top of the last block."""
    last = await writer.last_block()
    assert last is not None
    block = last[0]
    return ledger.without_rows(
        *last, kind="heartbeat", start_lsn=block.end_lsn, end_lsn=block.end_lsn, detail={}, timeline=1,
        written_at="2026-11-28 12:00:00+00",
    )  # fmt: skip


async def write(writer: Writer, block: tuple[Block, bytes], record_id: bytes = b"1") -> None:
    """The server answers what is written only at its end."""
    await writer.write(LINE % record_id, "")
    await writer.commit(*block)


ASKED: dict[str, Callable[[Writer, tuple[Block, bytes]], Awaitable[object]]] = {
    "a block of few rows is stored": write,
    "a block is written": lambda writer, block: write(writer, block, b"x" * 20_000),
    "a block is committed": lambda writer, block: writer.commit(*block),
    "nothing happens": lambda writer, _: writer.ping(),
    "it is opened": lambda writer, _: writer.last_block(),
}


@pytest.mark.parametrize("moment", ASKED)
def test_a_half_open_connection_is_given_up_while(moment: str, databases: Databases, link: Proxy) -> None:
    async def asked() -> float:
        writer = await opened(databases, link)
        assert await writer.try_lock()
        block = await next_block(writer)
        for (port,) in databases.audit.execute(WRITERS):
            link.stall_one(port)
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="no answer within"):
            await ASKED[moment](writer, block)
        await writer.close()
        return time.monotonic() - begun

    assert 0.5 <= asyncio.run(asked()) < 4, "psycopg alone would wait for ever"


@pytest.mark.parametrize(
    "is_open", [True, False], ids=["that can be asked", "that takes no more connections"]
)
def test_a_server_at_work_is_waited_for(is_open: bool, databases: Databases, link: Proxy) -> None:
    """It waits for a lock, four times as long as a silent one is given."""

    def allow_connections(allow: bool) -> None:
        databases.audit.execute(f'alter database "{databases.audit_name}" allow_connections {allow}')

    async def asked() -> float:
        writer = await opened(databases, link)
        assert await writer.try_lock()
        with psycopg.connect(databases.audit_dsn) as blocker:
            blocker.execute("lock table audit.ledger in access exclusive mode")
            begun = time.monotonic()
            allow_connections(is_open)
            reading = asyncio.create_task(writer.last_block())
            await asyncio.sleep(2)
            allow_connections(True)
            assert not reading.done()
            blocker.rollback()
            assert await reading is not None
        await writer.close()
        return time.monotonic() - begun

    assert asyncio.run(asked()) >= 2


def test_a_block_on_its_way_through_a_slow_network_is_waited_for(
    databases: Databases, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server waits for its client most of the time, and takes in what comes: here one row of 3 MB at 1 MB a second."""
    monkeypatch.setattr(patience, "_ASK_AGAIN", 0.5)

    async def asked() -> None:
        writer = await opened(databases, link)
        assert await writer.try_lock()
        block = await next_block(writer)
        link.rate = 1_000_000
        begun = time.monotonic()
        with pytest.raises(
            SettingError, match="InvalidTextRepresentation"
        ):  # the server has read all that comes before
            await write(writer, block, b"x" * 3_000_000)
        assert time.monotonic() - begun > 2
        await writer.close()

    asyncio.run(asked())


def test_a_block_of_few_rows_that_is_not_utf8_is_refused_without_its_bytes(
    databases: Databases, link: Proxy
) -> None:
    async def asked() -> None:
        writer = await opened(databases, link)
        assert await writer.try_lock()
        block = await next_block(writer)
        with pytest.raises(SettingError, match="not UTF-8") as refused:
            await write(writer, block, b"secret\xff")
        assert "secret" not in str(refused.value) and "ff" not in str(refused.value)
        await writer.close()

    asyncio.run(asked())


def test_whoever_is_cancelled_while_a_silent_server_is_asked_leaves_at_once(
    databases: Databases, link: Proxy
) -> None:
    async def asked() -> float:
        writer = await opened(databases, link)
        link.stall()
        reading = asyncio.create_task(writer.last_block())
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await writer.close()
        return time.monotonic() - begun

    assert asyncio.run(asked()) < 0.3, "psycopg alone would ask the server to cancel, and wait for 10 s"


def test_an_own_session_that_the_server_has_not_missed_is_ended_and_a_strangers_is_not(
    databases: Databases, link: Proxy
) -> None:
    async def asked() -> None:
        leftovers = Leftovers()
        lost = await opened(databases, link)
        await leftovers.lock(lost)
        for (port,) in databases.audit.execute(WRITERS):
            link.stall_one(port)
        await lost.close()
        after = await opened(databases, link)
        with pytest.raises(AnotherDaemonError):
            await Leftovers().lock(after)
        await leftovers.lock(after)
        late = await opened(databases, link)
        with pytest.raises(AnotherDaemonError):
            await Leftovers().lock(late)
        await late.close()
        await after.close()

    asyncio.run(asked())


def test_an_own_session_that_commits_is_waited_for(databases: Databases, link: Proxy) -> None:
    """Ended while it waits for its standby, its COMMIT would be on one server only."""
    waiting = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'"

    async def asked() -> None:
        leftovers = Leftovers()
        lost, after = await opened(databases, link), await opened(databases, link)
        await leftovers.lock(lost)
        block = await next_block(lost)
        told(databases, "alter system set synchronous_standby_names = 'nobody'")
        try:
            committing = asyncio.create_task(lost.commit(*block))
            await asyncio.to_thread(until, lambda: databases.audit.execute(waiting) == [(True,)], "it hangs")
            committing.cancel()
            with suppress(asyncio.CancelledError):
                await committing
            await lost.close()
            with pytest.raises(UnavailableError, match="still at work"):
                await leftovers.lock(after)
            assert databases.audit.execute(waiting) == [(True,)], "nobody has cancelled it"
        finally:
            told(databases, "alter system reset synchronous_standby_names")
        await asyncio.to_thread(until, lambda: databases.audit.execute(waiting) == [(False,)], "it is done")
        await leftovers.lock(after)
        assert await after.last_block() == block
        await after.close()

    asyncio.run(asked())


def told(databases: Databases, setting: str) -> None:
    databases.audit.execute(setting)
    databases.audit.execute("select pg_reload_conf()")
