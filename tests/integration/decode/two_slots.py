"""One database read through two slots, wal2json's and pgoutput's, by both decoders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from cdc_audit.decode.pgoutput import PgOutputDecoder
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import UnknownTypeError
from cdc_audit.model.event import Begin, Commit, Decoded, Event
from cdc_audit.source import publication, slot
from cdc_audit.source.catalog import look_up
from cdc_audit.source.plugin_options import QUOTED_NUMBERS, pgoutput_options, wal2json_options

# Those of source.stream, and that the server converts no text
SETTINGS = (
    "-c DateStyle=ISO -c TimeZone=UTC -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=3 "
    "-c lc_monetary=C -c search_path= -c client_encoding=SQL_ASCII"
)


class Transaction(NamedTuple):
    """One transaction's events, and what its Begin and Commit say."""

    xid: int
    committed_at: str
    end_lsn: int
    events: list[Event]


class TwoSlots:
    """Both slots of one database; ``name`` is free for slots and publications, ``encoding`` Python's name of the server's."""

    def __init__(
        self, dsn: str, name: str, *, exclude: tuple[str, ...] = (), encoding: str = "utf-8"
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._scope = Scope(exclude=exclude)
        self._exclude = exclude
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
            self.publish(connection)
            slot.create(connection, f"{name}_p", "pgoutput")
            slot.create(connection, f"{name}_w", "wal2json")
        self.pgoutput = PgOutputDecoder(self._scope, encoding=encoding)
        self.wal2json = Wal2JsonDecoder(self._scope, encoding=encoding)

    def publish(self, connection: Connection) -> None:
        """Bring the publications in step."""
        publication.keep_in_step(connection, self._name, ["*.*"], self._exclude)

    def skip(self, connection: Connection) -> None:
        """Move both slots past everything up to now."""
        connection.execute(
            "select pg_replication_slot_advance(slot_name, pg_current_wal_lsn())"
            " from pg_replication_slots where slot_name in (%s, %s)",
            (f"{self._name}_w", f"{self._name}_p"),
        )

    def by_pgoutput(self) -> list[Transaction]:
        """All that has come since the last look, as pgoutput's decoder sees it."""
        options = pgoutput_options(publications=publication.names(self._name))
        messages = self._messages("pg_logical_slot_get_binary_changes", f"{self._name}_p", options)
        return _transactions(self._decoded(self.pgoutput, messages))

    def by_wal2json(self) -> list[Transaction]:
        """The same as wal2json's decoder sees it."""
        options = wal2json_options(prefix="cdc_audit", exclude=self._exclude)
        options.pop(QUOTED_NUMBERS)  # wal2json 2.5 doesn't know it
        lines = self._messages("pg_logical_slot_get_binary_changes", f"{self._name}_w", options)
        return _transactions(self._decoded(self.wal2json, lines))

    def _messages(self, function: str, name: str, options: dict[str, str]) -> list[bytes]:
        words = [word for pair in options.items() for word in pair]
        marks = ", ".join(["%s"] * len(words))
        statement = f"select data from pg_catalog.{function}(%s, null, null, {marks})"
        with psycopg.connect(self._dsn, options=SETTINGS, autocommit=True) as connection:
            return [bytes(data) for (data,) in connection.execute(statement.encode(), (name, *words))]

    def _decoded(self, decoder: Any, messages: Iterable[bytes]) -> list[Event]:
        return asyncio.run(self._decode(decoder.decode, decoder, messages))

    async def _decode(
        self, decode: Callable[[bytes], Decoded], decoder: Any, messages: Iterable[bytes]
    ) -> list[Event]:
        events: list[Event] = []
        async with await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, client_encoding="utf8"
        ) as connection:
            for message in messages:
                while True:
                    try:
                        event = decode(message)
                        break
                    except UnknownTypeError as unknown:
                        found = await look_up(connection, unknown.type_oids, unknown.tables)
                        decoder.learn(decoder.catalog.with_found(*found))
                if isinstance(event, list):
                    events += event
                elif event is not None:
                    events.append(event)
        return events


def _transactions(events: Iterable[Event]) -> list[Transaction]:
    """Those that hold something, in order; what stands outside of any is one of its own."""
    found: list[Transaction] = []
    begin: Begin | None = None
    inside: list[Event] = []
    for event in events:
        if isinstance(event, Begin):
            begin, inside = event, []
        elif isinstance(event, Commit):
            assert begin is not None
            if inside:
                found.append(Transaction(begin.xid, begin.committed_at, event.end_lsn, inside))
            begin = None
        elif begin is not None:
            inside.append(event)
        else:
            found.append(Transaction(0, "", 0, [event]))
    return found
