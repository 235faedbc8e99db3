"""What ``source install --print-sql`` prints gives, run by psql, the very same as the command."""

from __future__ import annotations

import pytest

from tests.support.daemon import cdc_audit
from tests.support.databases import Databases
from tests.support.psql import dumped, psql

_EVENT_TRIGGERS = (
    "select evtname, evtevent, evtenabled, evtfoid::regproc::text from pg_event_trigger order by 1"
)
_KEYS = "select count(*) from cdc_audit.context_key"
_EMIT = """
    select bool_or(has_function_privilege('public', oid, 'execute')) from pg_proc
     where proname = 'pg_logical_emit_message'
"""


@pytest.mark.parametrize("flags", [(), ("--harden",)])
def test_the_script_gives_the_same_as_the_command(flags: tuple[str, ...], databases: Databases) -> None:
    server = databases.source
    by_hand = server.create_database()
    role = f"reader_{by_hand}"
    server.execute(f'create role "{role}" login replication')
    try:
        env = databases.environment(
            SOURCE_ADMIN_DSN=server.dsn(by_hand), SOURCE_DSN=server.dsn(by_hand, role)
        )
        printed = cdc_audit("source", "install", "--print-sql", *flags, env=env)
        assert printed.returncode == 0, printed.stderr
        psql(server.dsn(by_hand), printed.stdout, "-1")
        name = databases.source_name
        env = databases.environment(SOURCE_ADMIN_DSN=server.dsn(name), SOURCE_DSN=server.dsn(name, role))
        assert cdc_audit("source", "install", *flags, env=env).returncode == 0
        assert dumped(server, by_hand, "cdc_audit") == dumped(server, name, "cdc_audit")
        for question in (_EVENT_TRIGGERS, _KEYS, _EMIT):
            assert server.execute(question, dbname=by_hand) == server.execute(question, dbname=name)
    finally:
        server.execute(f'drop database "{by_hand}"')
        server.execute(f'drop owned by "{role}"', dbname=databases.source_name)
        server.execute(f'drop role "{role}"')
