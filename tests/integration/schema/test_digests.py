"""What rows of an open month hold is digested by 256 ids, once all of those are there, until the month has look-up indexes."""

from __future__ import annotations

import pytest
from psycopg import Connection, errors

from cdc_audit.schema.partitions import build_indexes, digest_rows
from cdc_audit.trail.digests import ranges
from tests.integration.schema.conftest import Connect
from tests.integration.schema.rows import insert

OLD, NEW = "2026-08", "2026-09"
LEAF = "audit_logs_2026_09"
FAR = 1 << 62


@pytest.fixture
def trail(audit: Connection) -> Connection:
    """Rows 1,000 to 1,100 of a month that the ledger holds to their end, and a month before."""
    for month in (OLD, NEW):
        audit.execute("select audit.ensure_partition(%s)", (f"{month}-01",))
    insert(audit, id=999, created_at=f"{OLD}-31 12:00:00+00", changed_fields=["old"])
    for number in range(1000, 1101):
        image = f'{{"n": {number}, "text": "v{number}", "null": null, "deep": {{"a": [1, {number}]}}}}'
        insert(
            audit,
            id=number,
            created_at=f"{NEW}-01 12:00:00+00",
            new_data=image,
            changed_fields=[f"f{number}"],
        )
    held(audit, 0, 999, 102)
    return audit


def held(audit: Connection, block: int, first: int, rows: int) -> None:
    """A block in the ledger."""
    insert(
        audit, "ledger", block=block, kind="data", first_id=first, row_count=rows,
        last_commit_at=f"{NEW}-01 12:00:00+00",
    )  # fmt: skip


def where(audit: Connection, *terms: str) -> object:
    return ranges(audit, "audit", LEAF, terms)


def test_only_ids_that_are_complete_are_digested_and_all_others_are_read(
    trail: Connection, connect: Connect
) -> None:
    assert where(trail, "f1001") is None  # nothing is digested
    assert list(digest_rows(connect("audit_writer"), "audit")) == [1024, 1024]  # of both months
    open_end = (1024, FAR)
    assert where(trail, "f1001") == ((768, FAR),)
    assert (
        where(trail, "n=1001")
        == where(trail, "text=v1001")
        == where(trail, 'deep={"a": [1, 1001]}')
        == ((768, FAR),)
    )
    for absent in ("f1100", "n=1100", "n=01001", "old", "text=", "null="):
        assert where(trail, absent) == (open_end,), absent
    assert where(trail, "n=1001", "nowhere") == (open_end,)
    assert list(digest_rows(trail, "audit")) == []
    held(trail, 1, 1101, 2048 - 1101 + 1)
    insert(
        trail, id=2047, created_at=f"{NEW}-01 12:00:00+00", old_data="[1, 2]", new_data='"text"'
    )  # no images of a row
    insert(trail, id=2048, created_at=f"{NEW}-01 12:00:00+00", changed_fields=["last"])
    assert list(digest_rows(trail, "audit")) == [2048]
    assert where(trail, "n=1100") == ((1024, 1280), (2048, FAR))
    assert where(trail, "n=1001") == ((768, 1024), (2048, FAR))
    assert where(trail, "last") == ((2048, FAR),)


def test_a_month_that_has_its_look_up_indexes_has_no_digests(trail: Connection) -> None:
    list(digest_rows(trail, "audit"))
    assert where(trail, "f1001")
    held(trail, 1, 1101, 0)
    insert(trail, "ledger", block=2, kind="heartbeat", last_commit_at="2026-10-03 00:00:00+00")
    assert f"{LEAF}_images" in list(build_indexes(trail, "audit"))
    list(digest_rows(trail, "audit"))
    assert trail.execute("select count(*) from audit.digests").fetchone() == (0,)


def test_nobody_but_the_function_writes_digests(trail: Connection, connect: Connect) -> None:
    writer, reader = connect("audit_writer"), connect()
    reader.execute("set role audit_admin")
    list(digest_rows(writer, "audit"))
    for role in (writer, reader):
        with pytest.raises(errors.InsufficientPrivilege):
            role.execute("delete from audit.digests")
        with pytest.raises(errors.InsufficientPrivilege):
            role.execute("insert into audit.digests values ('x', 1, 2, '{}')")
    with pytest.raises(errors.InsufficientPrivilege):
        reader.execute("select audit.digest_rows()")
    assert where(reader, "f1001") == where(trail, "f1001")
    assert where(writer, "f1001") is None  # it may not read
