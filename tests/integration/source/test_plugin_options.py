"""What is excluded by its exact name is left out by the server already, whatever the name; nothing else is."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from cdc_audit.source.plugin_options import wal2json_options
from tests.support.databases import Databases

NAMES = [
    "plain",
    "with space",
    "comma,s",
    "quote's",
    'double"quote',
    "back\\slash",
    "dot.ted",
    "Grüße",
    "semi;colon",
    "(par)",
]


@pytest.mark.parametrize("hostile", NAMES)
def test_a_table_of_any_name_can_be_excluded_in_the_server(hostile: str, databases: Databases) -> None:
    with psycopg.connect(databases.source_dsn, autocommit=True) as source:
        for name in NAMES:
            source.execute(sql.SQL("create table public.{} (id int)").format(sql.Identifier(name)))
        source.execute("select pg_create_logical_replication_slot(%s, 'wal2json')", (databases.slot,))
        for name in NAMES:
            source.execute(sql.SQL("insert into public.{} values (1)").format(sql.Identifier(name)))
        options = wal2json_options(prefix="cdc_audit", exclude=[f"public.{hostile}"])
        del options["numeric-data-types-as-string"]
        given = [part for option in options.items() for part in option]
        lines = source.execute(
            "select data::jsonb ->> 'table' from pg_logical_slot_get_changes(%s, null, null, variadic %s)"
            " where data::jsonb ->> 'action' = 'I'",
            (databases.slot, given),
        ).fetchall()
    assert [name for (name,) in lines] == [name for name in NAMES if name != hostile]
