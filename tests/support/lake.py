"""``Lake``: a trail in Iceberg tables, in a folder, its catalog in SQLite or PostgreSQL; read by libraries, not the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pyiceberg.catalog import load_catalog

from tests.support.databases import Databases, url

_COPIED = """
create schema lake;
create table lake.audit_logs (
    id bigint primary key, created_at timestamptz, schema_name text, table_name text, record_id text, action text, old_data jsonb,
    new_data jsonb, changed_fields text[], user_id text, user_email text, ip_address inet, user_agent text, context jsonb,
    context_trust text, db_user text, application_name text, capture text, unchanged_toast text[], partition_name text, xid bigint,
    commit_lsn pg_lsn, seq int, row_hash bytea)
"""


@dataclass(frozen=True)
class Lake:
    """A catalog of its own: in the folder, or in the database that ``catalog`` is the DSN of."""

    folder: Path
    namespace: str = "audit"
    catalog: str = ""

    def environment(self, databases: Databases, **more: str) -> dict[str, str]:
        """As ``Databases.environment``, for a daemon that writes here."""
        env = databases.environment(AUDIT_KIND="iceberg", AUDIT_DSN="", **more)
        return env | {
            f"PYICEBERG_CATALOG__DEFAULT__{key.upper()}": value for key, value in self._where.items()
        }

    @property
    def _where(self) -> dict[str, str]:
        uri = f"sqlite:///{self.folder / 'catalog.db'}"
        if self.catalog:
            uri = url(self.catalog).replace("postgresql:", "postgresql+psycopg:")
        return {"uri": uri, "warehouse": f"file://{self.folder}"}

    @property
    def by_jdbc(self) -> dict[str, str]:
        """The same catalog, for ``engines.in_spark``."""
        given = conninfo_to_dict(self.catalog)
        place = f"jdbc:postgresql://{given['host']}:{given['port']}/{given['dbname']}"
        return {
            "name": "default",
            "namespace": self.namespace,
            "jdbc": place,
            "warehouse": self._where["warehouse"],
        }

    def metadata(self, name: str) -> str:
        """Where a table's newest metadata file is."""
        with self.table(name) as table:
            return str(table.metadata_location)

    @contextmanager
    def table(self, name: str) -> Iterator[Any]:
        """pyiceberg's table, as it is now."""
        catalog = load_catalog("default", **self._where)
        try:
            yield catalog.load_table((self.namespace, name))
        finally:
            catalog.close()

    def rows(self, columns: tuple[str, ...] = ("*",), where: str = "") -> list[dict[str, Any]]:
        """Rows of ``audit_logs`` in order of id."""
        with self.table("audit_logs") as table:
            found = table.scan(where or "id >= 0", selected_fields=columns).to_arrow().to_pylist()
        return sorted(found, key=lambda row: row.get("id", 0))

    def blocks(self) -> list[dict[str, Any]]:
        """Rows of ``ledger`` in order of block."""
        with self.table("ledger") as table:
            return sorted(table.scan().to_arrow().to_pylist(), key=lambda row: row["block"])

    def holds(self, xid: int) -> bool:
        """Whether a row of this transaction is there."""
        return bool(self.rows(("xid",), f"xid == {xid}"))

    def copy_into(self, databases: Databases) -> None:
        """All rows into a table ``lake.audit_logs`` of the audit database, where the oracle can compare them."""
        with psycopg.connect(databases.audit_dsn) as audit:
            audit.execute(_COPIED.encode())
            copied = sql.SQL("copy lake.audit_logs from stdin")
            with audit.cursor().copy(copied) as copy:
                for row in self.rows():
                    copy.write_row(tuple(row.values()))
