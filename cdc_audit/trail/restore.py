"""``cdc-audit archive restore``: an archive's rows as a table again, in a schema of its own."""

from __future__ import annotations

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import CheckFailedError
from cdc_audit.postgres import explain, named_sql
from cdc_audit.seal import parquet
from cdc_audit.trail.archive_store import Store
from cdc_audit.trail.archive_verify import check_archive
from cdc_audit.trail.archived import Archived, manifest_of

_SQL = named_sql("cdc_audit.trail", "sql/archive.sql")


def restore(connection: Connection, schema: str, into: str, store: Store, archived: Archived) -> None:
    """Verify an archive and load it into ``into``.audit_logs, all of it or nothing; what is there of it is replaced.

    Raises CheckFailedError if it is not the archive that the ledger names, or not whole; NotPermittedError, UnavailableError.
    """
    said = manifest_of(store, archived)
    if harms := check_archive(store, said, {}):
        raise CheckFailedError(f"archive {store.name}: {harms[0]}")
    try:
        with connection.transaction(), store.open(said.rows_file.name) as file:
            connection.execute(_composed("make_place", schema, into))
            connection.execute(_composed("make_table", schema, into))
            for first, last in said.ids:
                connection.execute(_composed("forget", schema, into), (first, last))
            with connection.cursor().copy(_composed("load", schema, into)) as copy:
                for row in parquet.read_rows(file):
                    copy.write(row)
    except psycopg.Error as error:
        raise explain(error, side="audit") from error


def _composed(name: str, schema: str, into: str) -> sql.Composed:
    return sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema), into=sql.Identifier(into))
