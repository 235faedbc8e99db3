"""``cdc-audit history`` around a snapshot: changes from before it, stored after its rows, belong to a record's life, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cdc_audit import postgres
from cdc_audit.schema.migrate import migrate
from tests.support.command_line import run
from tests.support.servers import Server

# id, position, action, record, old image, new image
ROWS = [
    (1, "0/100", "INSERT", "1", None, {"id": 1, "v": "a"}),
    (2, "0/900", "SNAPSHOT", "2", None, {"id": 2, "v": "b"}),
    (3, "0/900", "SNAPSHOT", "9", None, {"id": 9, "v": "z"}),
    (4, "0/200", "UPDATE", "1", {"id": 1, "v": "a"}, {"id": 2, "v": "b"}),
    (5, "0/950", "UPDATE", "2", {"id": 2, "v": "b"}, {"id": 2, "v": "c"}),
    (6, "0/960", "DELETE", "9", {"id": 9, "v": "z"}, None),
    (7, "0/970", "UPDATE", "2", {"id": 2, "v": "c"}, {"id": 9, "v": "c"}),
]


@pytest.fixture
def dsn(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
        migrate(connection, "audit", None)
        for number, lsn, action, record, old, new in ROWS:
            changed = [key for key in new if old[key] != new[key]] if old and new else None
            connection.execute(
                "insert into audit.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data, new_data,"
                " changed_fields, context_trust, capture, xid, commit_lsn, seq, row_hash)"
                " values (%s, now(), 'public', 't', %s, %s, %s, %s, %s, 'none', 'full', 1, %s, 1, '')",
                (number, record, action, *(json.dumps(i) if i else None for i in (old, new)), changed, lsn),
            )
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.mark.parametrize(("record", "ids"), [("1", [1, 2, 4, 5, 7]), ("2", [1, 2, 4, 5, 7])])
def test_a_key_from_before_a_snapshot_is_traced(dsn: str, record: str, ids: list[int]) -> None:
    done = run("history", "t", record, "--json", "--dsn", dsn)
    assert done.code == 0, done.stderr
    assert set(ids) - {2} <= {json.loads(line)["id"] for line in done.stdout.splitlines()}
    if record == "2":
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ids
