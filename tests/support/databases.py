"""``Databases``: a fresh source database and a fresh audit database for one test."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.servers import Server

_END_READERS = (
    "select pg_terminate_backend(active_pid) from pg_replication_slots where database = %s and active"
)
_DROP_SLOTS = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s"


@dataclass(frozen=True, slots=True)
class Databases:
    """Two servers, one database on each, and a slot name that is free (slots are per server)."""

    source: Server
    audit: Server
    source_name: str
    audit_name: str
    slot: str

    @property
    def source_dsn(self) -> str:
        """The superuser's connection to the source database."""
        return self.source.dsn(self.source_name)

    @property
    def audit_dsn(self) -> str:
        """The superuser's connection to the audit database."""
        return self.audit.dsn(self.audit_name)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a ``cdc-audit`` process here; ``more``: CDC_AUDIT_* variables without prefix."""
        given = {
            "SOURCE_DSN": self.source_dsn,
            "AUDIT_DSN": self.audit_dsn,
            "SOURCE_SLOT": self.slot,
            "SOURCE_EXCLUDE": "oracle.*",
            "METRICS_LISTEN": "",
            "LOG_FORMAT": "json",
            **more,
        }
        return {**os.environ, **{f"CDC_AUDIT_{key}": value for key, value in given.items()}}

    def drop(self) -> None:
        """Drop both databases, with the source's slots and whatever is still connected."""
        if self.source.is_running:
            drop_slots(self.source, self.source_name)
            self.source.execute(f'drop database if exists "{self.source_name}" with (force)')
        if self.audit.is_running:
            self.audit.execute(f'drop database if exists "{self.audit_name}" with (force)')


def new_databases(source: Server, audit: Server) -> Databases:
    """Fresh databases on these servers."""
    source_name = source.create_database()
    return Databases(source, audit, source_name, audit.create_database(), f"slot_{source_name}")


def drop_slots(server: Server, database: str, timeout: float = 10) -> None:
    """Drop all slots of a database, ending what reads them. A temporary one may go by itself meanwhile, with its session."""
    deadline = time.monotonic() + timeout
    while True:
        server.execute(_END_READERS, (database,))
        try:
            server.execute(_DROP_SLOTS, (database,))
        except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def url(dsn: str) -> str:
    """A connection string that every driver understands."""
    given = conninfo_to_dict(dsn)
    host, port = str(given["host"]), given["port"]
    at, query = (
        (f"@{host}:{port}", "") if "/" not in host else ("@", f"?host={quote(host, safe='')}&port={port}")
    )
    return f"postgresql://{given['user']}{at}/{given['dbname']}{query}"
