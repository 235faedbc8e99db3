"""What the source server is, and the settings that decide whether its stream can be read. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row, scalar_row

from cdc_audit.postgres import conninfo, named_sql
from cdc_audit.source.plugin import explain_refusal, explained

_SQL = named_sql("cdc_audit.source", "sql/facts.sql")


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The server and the role that looked.

    ``wal_sender_timeout_ms`` 0 means none; ``max_slot_wal_keep_size`` is as the server prints it ("-1": no
    limit). ``output_plugin_libraries`` is None on a minor without it, and for a role that may not read it
    (pg_read_all_settings); ``system_identifier`` is None for a role that may not call pg_control_system().
    """

    server_version_num: int
    server_encoding: str
    wal_level: str
    in_recovery: bool
    database: str
    user: str
    is_superuser: bool
    has_replication: bool
    wal_sender_timeout_ms: int
    max_slot_wal_keep_size: str
    max_replication_slots: int
    used_replication_slots: int
    output_plugin_libraries: str | None
    system_identifier: str | None = None

    @property
    def major(self) -> int:
        """The server's major version, e.g. 15."""
        return self.server_version_num // 10_000


def read(connection: Connection) -> SourceFacts:
    """The facts, as this connection's role sees them."""
    with explained():
        identifier = None
        with connection.cursor(row_factory=scalar_row) as cursor:
            # Asked first: a function that may not be called is an error even in a branch that isn't taken.
            if cursor.execute(_SQL["may_read_system_identifier"]).fetchone():
                identifier = cursor.execute(_SQL["system_identifier"]).fetchone()

        with connection.cursor(row_factory=dict_row) as facts:
            found = facts.execute(_SQL["facts"]).fetchone()
    assert found is not None
    return SourceFacts(**found, system_identifier=identifier)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, and on which timeline; ``history`` is that one's history file, "" for timeline 1."""

    system_identifier: str
    timeline: int
    history: str


def identify(dsn: str, *, slot: str, plugin: str) -> Cluster:
    """Ask over a replication connection, since SQL knows the timeline only after a checkpoint.

    ``slot`` and ``plugin`` are what the errors speak of; NotPermittedError if the role lacks REPLICATION.
    """
    role = str(conninfo_to_dict(dsn).get("user") or "")
    try:
        with psycopg.connect(
            conninfo(dsn, application_name="cdc-audit"), autocommit=True, replication="database"
        ) as connection:
            role = connection.info.user
            system = connection.execute("IDENTIFY_SYSTEM").fetchone()
            assert system is not None
            timeline = int(system[1])
            command = sql.SQL("TIMELINE_HISTORY {}").format(sql.Literal(timeline))
            file = connection.execute(command).fetchone() if timeline > 1 else None
    except psycopg.Error as error:
        raise explain_refusal(error, role=role, slot=slot, plugin=plugin) from error
    content = file[1] if file else ""
    return Cluster(str(system[0]), timeline, content.decode() if isinstance(content, bytes) else str(content))
