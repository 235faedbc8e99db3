"""What a superuser can do to a trail, and what ``verify`` says of it. Run with ``-s`` to see the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from psycopg import sql

from cdc_audit.trail.verify import Report, Request, verify
from cdc_audit.trail.verify_anchors import Anchors
from tests.integration.trail.tampering import KEY_A, KEY_B, KEYS, STRANGER, Superuser, superuser, write_trail
from tests.support import second_verifier as second
from tests.support.servers import Server

Tamper = Callable[[Superuser], object]
_NUMBERS = itertools.count()


class Case(NamedTuple):
    """What is done, and what has to be found: every finding, no other."""

    name: str
    tamper: Tamper
    found: set[str]
    anchored: bool = False
    is_structural: bool = False


@pytest.fixture(scope="module")
def template(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    write_trail(audit_cluster.dsn(name))
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture(scope="module")
def hashes(audit_cluster: Server, template: str) -> dict[int, str]:
    rows = audit_cluster.execute("select block, encode(block_hash, 'hex') from audit.ledger", dbname=template)
    return {block: hash_ for block, hash_ in rows if block in {5, 11}}


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str]]]:
    """The table of operators and findings, printed at the end."""
    rows: list[tuple[str, str]] = []
    yield rows
    width = max((len(name) for name, _ in rows), default=0)
    print(
        f"\n{len(rows)} operators:",
        *(f"  {name:<{width}}  {found}" for name, found in sorted(rows)),
        sep="\n",
    )


@pytest.fixture(scope="module")
def restorable(audit_cluster: Server, template: str) -> Iterator[Superuser]:
    """A copy that is restored for each operator that leaves the tables' structure alone."""
    with copied(audit_cluster, template) as admin:
        admin.do(
            "create schema saved",
            "create table saved.rows as select * from audit.audit_logs",
            "create table saved.blocks as select * from audit.ledger",
        )
        yield admin


@contextmanager
def copied(audit_cluster: Server, template: str) -> Iterator[Superuser]:
    name = f"tampered_{next(_NUMBERS)}"
    audit_cluster.execute(f'create database {name} template "{template}"')
    with superuser(audit_cluster.dsn(name)) as connection:
        yield Superuser(connection)
    audit_cluster.execute(f"drop database {name} with (force)")


@pytest.fixture
def victim(case: Case, audit_cluster: Server, template: str, restorable: Superuser) -> Iterator[Superuser]:
    """A whole trail to tamper with."""
    if case.is_structural:
        with copied(audit_cluster, template) as admin:
            yield admin
        return
    restorable.do(
        "begin",
        "delete from audit.audit_logs",
        "delete from audit.ledger",
        "insert into audit.audit_logs select * from saved.rows",
        "insert into audit.ledger select * from saved.blocks",
        "commit",
    )
    yield restorable


def verified(dsn: str, hashes: dict[int, str] | None = None) -> Report:
    anchors = None
    if hashes is not None:
        anchors = Anchors("audit", KEYS)
        anchors.hashes.update({block: bytes.fromhex(hash_) for block, hash_ in hashes.items()})
    return verify(dsn, "audit", Request(KEYS, anchors), lambda done, total: None)


def short(report: Report) -> set[str]:
    """``altered row 3``, ``removed rows 4-6``."""
    return {
        f"{one.kind} {one.unit}" + (f" {one.first}" if one.first == one.last else f"s {one.first}-{one.last}")
        for one in report.findings
    }


def row_column(column: str, value: str) -> Case:
    found = {"altered row 8"}
    if column == "id":
        found = {"removed row 8", "inserted row 900"}
    query = sql.SQL("update audit.audit_logs set {} = {} where id = 8").format(
        sql.Identifier(column),
        sql.SQL(value),
    )
    return Case(f"edit audit_logs.{column}", lambda admin: admin.connection.execute(query), found)


def header_column(column: str, value: str) -> Case:
    found = {"altered block 5"}
    if column == "block":
        found = {"removed block 5", "removed blocks 12-899", "altered block 900"}
    if column == "signature":
        found = {"wrong key block 5"}
    query = sql.SQL("update audit.ledger set {} = {} where block = 5").format(
        sql.Identifier(column),
        sql.SQL(value),
    )
    return Case(f"edit ledger.{column}", lambda admin: admin.connection.execute(query), found)


ROW_COLUMNS = [
    row_column(*given)
    for given in [
        ("id", "900"), ("created_at", "created_at + interval '1 microsecond'"), ("schema_name", "'publix'"),
        ("table_name", "'order'"), ("record_id", "'3'"), ("action", "'INSERT'"), ("old_data", "old_data || '{\"x\": 1}'"),
        ("new_data", "null"), ("changed_fields", "'{price}'"), ("user_id", "'u1'"), ("user_email", "null"),
        ("ip_address", "'10.0.0.8'"), ("user_agent", "'curl'"), ("context", "'{}'"), ("context_trust", "'signed'"),
        ("db_user", "'shop'"), ("application_name", "''"), ("capture", "'lossy'"), ("unchanged_toast", "null"),
        ("partition_name", "null"), ("xid", "xid + 1"), ("commit_lsn", "commit_lsn + 1"), ("seq", "seq + 1"),
        ("row_hash", "sha256(row_hash)"),
    ]
]  # fmt: skip
HEADER_COLUMNS = [
    header_column(*given)
    for given in [
        ("block", "900"), ("kind", "'heartbeat'"), ("first_id", "13"), ("row_count", "2"), ("system_identifier", "'7'"),
        ("timeline", "2"), ("slot", "'t'"), ("start_lsn", "start_lsn + 1"), ("end_lsn", "end_lsn + 1"),
        ("last_commit_at", "null"), ("written_at", "written_at + interval '1 day'"), ("rows_root", "sha256(rows_root)"),
        ("prev_hash", "sha256(prev_hash)"), ("detail", "'{}'"), ("key_id", "null"), ("block_hash", "sha256(block_hash)"),
        ("signature", "sha256(signature) || sha256(signature)"),
    ]
]  # fmt: skip

_COPY_ROW = (
    "insert into audit.audit_logs select (r).* from (select jsonb_populate_record(a, '{%s}') as r "
    "from audit.audit_logs a where id = %s) as x"
)


def edit_and_rehash(admin: Superuser) -> None:
    admin.do("update audit.audit_logs set user_id = 'nobody' where id = 13")
    admin.rehash_rows(13)


def edit_and_rehash_block(admin: Superuser) -> None:
    edit_and_rehash(admin)
    admin.rehash_blocks(5, 5)


def edit_and_rehash_all(admin: Superuser) -> None:
    edit_and_rehash(admin)
    admin.rehash_blocks(5, 11)


def resign_with(signer_name: str) -> Tamper:
    signer = {"A": KEY_A, "B": KEY_B, "stranger": STRANGER}[signer_name]

    def tamper(admin: Superuser) -> None:
        edit_and_rehash(admin)
        admin.rehash_blocks(5, 11, signer)

    return tamper


def newest_with(signer_name: str) -> Tamper:
    signer = {"A": KEY_A, "stranger": STRANGER}[signer_name]

    def tamper(admin: Superuser) -> None:
        admin.do("update audit.audit_logs set user_id = 'nobody' where id = 22")
        admin.rehash_rows(22)
        admin.rehash_blocks(11, 11, signer)

    return tamper


def swap(columns: str, first: int, second_: int) -> Tamper:
    names = sql.SQL(", ").join(map(sql.Identifier, columns.split()))
    query = sql.SQL(
        "update audit.audit_logs t set ({}) = (select {} from audit.audit_logs o where o.id = {} - t.id) where id in ({}, {})"
    ).format(names, names, first + second_, first, second_)
    return lambda admin: admin.connection.execute(query)


ALL_BUT_ID = (
    "created_at schema_name table_name record_id action old_data new_data changed_fields user_id user_email ip_address user_agent "
    "context context_trust db_user application_name capture unchanged_toast partition_name xid commit_lsn seq row_hash"
)


def insert_and_rehash(admin: Superuser) -> None:
    """A row at the end of block 11, as if it had always been there."""
    admin.do(_COPY_ROW % ('"id": 25, "seq": 5, "user_id": "mallory"', 24))
    admin.rehash_rows(25)
    admin.do("update audit.ledger set row_count = 5 where block = 11")
    admin.rehash_blocks(11, 11)


def remove_and_close_up(admin: Superuser) -> None:
    """Row 22 taken out, the later ids and the block made dense again."""
    admin.do(
        "delete from audit.audit_logs where id = 22",
        "update audit.audit_logs set id = id - 1 where id = 23", "update audit.audit_logs set id = id - 1 where id = 24",
        "update audit.ledger set row_count = 3 where block = 11",
    )  # fmt: skip
    admin.rehash_rows(22, 23)
    admin.rehash_blocks(11, 11)


def cut_tail(admin: Superuser) -> None:
    admin.do("delete from audit.audit_logs where id >= 18", "delete from audit.ledger where block >= 9")


def restore_and_go_on(admin: Superuser) -> None:
    """The state after block 8, and other blocks since then, signed by the daemon's own key."""
    cut_tail(admin)
    admin.do(
        "insert into audit.ledger select 9, 'heartbeat', 18, 0, system_identifier, timeline, slot, end_lsn, end_lsn + 16, "
        "last_commit_at, written_at, rows_root, prev_hash, null, key_id, block_hash, signature from audit.ledger where block = 8"
    )
    admin.rehash_blocks(9, 9, KEY_B)
    for _ in range(2):
        admin.do(
            "insert into audit.ledger select block + 1, 'heartbeat', 18, 0, system_identifier, timeline, slot, end_lsn, "
            "end_lsn + 16, last_commit_at, written_at, rows_root, prev_hash, null, key_id, block_hash, signature "
            "from audit.ledger order by block desc limit 1"
        )
        last = admin.value("select max(block) from audit.ledger")
        admin.rehash_blocks(last, last, KEY_B)


def hide_from_index(admin: Superuser) -> None:
    """A row that queries find by reading the table, and not by its key."""
    where = "indrelid = 'audit.audit_logs_2026_12'::regclass and indisprimary"
    switch = f"update pg_index set indisready = {{0}}, indisvalid = {{0}} where {where}"
    admin.do(switch.format("false"))
    admin.do(_COPY_ROW % ('"id": 5000, "user_id": "mallory"', 24))
    admin.do(switch.format("true"))


def sql_case(
    name: str, statement: str, found: set[str], anchored: bool = False, is_structural: bool = False
) -> Case:
    return Case(name, lambda admin: admin.do(*statement.split("; ")), found, anchored, is_structural)


def write_unsigned(admin: Superuser) -> None:
    admin.do("update audit.ledger set key_id = null, signature = null where block = 11")
    admin.rehash_blocks(11, 11)


def drop_as_retention(admin: Superuser) -> None:
    """What the daemon itself would do, but for its key."""
    admin.do(
        "drop table audit.audit_logs_2026_10",
        """update audit.ledger set kind = 'retention', detail = '{"ids": [[1, 6]], "rows": 6, "month": "2026-10",
           "manifest": {"name": "n", "sha256": "00"}}' where block = 10""",
    )
    admin.rehash_blocks(10, 10)


SIGNED_AGAIN = {"wrong key blocks 5-7", "wrong key blocks 8-11"}
CASES = [
    *ROW_COLUMNS,
    *HEADER_COLUMNS,
    sql_case("delete the first row", "delete from audit.audit_logs where id = 1", {"removed row 1"}),
    sql_case("delete a middle row", "delete from audit.audit_logs where id = 9", {"removed row 9"}),
    sql_case("delete the last row", "delete from audit.audit_logs where id = 24", {"removed row 24"}),
    sql_case("delete a block's rows", "delete from audit.audit_logs where id between 15 and 17", {"removed rows 15-17"}),
    sql_case("delete the first block", "delete from audit.ledger where block = 0", {"removed block 0"}),
    sql_case("delete a middle block", "delete from audit.ledger where block = 4", {"removed block 4"}),
    sql_case("delete the key block", "delete from audit.ledger where block = 7",
             {"removed block 7"}),
    sql_case("delete a middle block and its rows",
             "delete from audit.ledger where block = 4; delete from audit.audit_logs where id between 7 and 11",
             {"removed block 4"}),
    sql_case("delete the last block", "delete from audit.ledger where block = 11", {"inserted rows 21-24"}),
    sql_case("delete all rows", "delete from audit.audit_logs", {"removed rows 1-24"}),
    Case("cut the tail off, without an anchor", cut_tail, set()),
    Case("cut the tail off, with an anchor", cut_tail, {"tail cut off blocks 9-11"}, True),
    sql_case("cut the tail to the anchored block", "delete from audit.ledger where block > 5; "
             "delete from audit.audit_logs where id > 14", {"tail cut off blocks 6-11"}, True),
    Case("restore an older state and go on, with an anchor", restore_and_go_on, {"altered block 11"}, True),
    Case("swap two rows", swap(ALL_BUT_ID, 12, 14), {"reordered row 12", "reordered row 14", "altered block 5"}),
    Case("swap two rows of different blocks", swap(ALL_BUT_ID, 4, 2), {"altered row 2", "altered row 4", "altered blocks 1-2"}),
    sql_case("exchange two ids", "update audit.audit_logs set id = -12 where id = 12; update audit.audit_logs "
             "set id = 12 where id = 13; update audit.audit_logs set id = 13 where id = -12", {"reordered row 12",
              "reordered row 13", "altered block 5"}),
    Case("move the context between two rows", swap("user_id user_email ip_address user_agent context context_trust", 13, 15),
         {"altered row 13", "altered row 15"}),
    sql_case("insert a row beyond the end", _COPY_ROW % ('"id": 25', 24), {"inserted row 25"}),
    sql_case("insert a row before the first", _COPY_ROW % ('"id": 0', 1), {"inserted row 0"}),
    sql_case("insert a row under an id that is there", _COPY_ROW % ('"created_at": "2026-12-07T00:00:00Z"', 23),
             {"inserted row 23", "altered row 23"}),
    Case("insert a row where an index lacks it", hide_from_index, {"inserted trail 0"}, is_structural=True),
    Case("insert a row, and rehash its block", insert_and_rehash, {"wrong key block 11"}),
    Case("remove a row, close up and rehash its block", remove_and_close_up, {"wrong key block 11"}),
    Case("edit a row and its row_hash", edit_and_rehash, {"altered block 5"}),
    Case("edit a row, its row_hash and its block", edit_and_rehash_block,
         {"wrong key block 5", "chain broken blocks 5-6"}),
    Case("edit a row and rehash the chain without a key", edit_and_rehash_all, SIGNED_AGAIN),
    Case("edit a row and sign the chain with another key", resign_with("stranger"), SIGNED_AGAIN),
    Case("edit a row and sign the chain with the old key", resign_with("A"), {"wrong key block 7"}),
    Case("edit a row and sign the chain with the new key", resign_with("B"), {"wrong key blocks 5-7"}),
    Case("sign the newest block with the old key", newest_with("A"), {"wrong key block 11"}),
    Case("sign the newest block with another key", newest_with("stranger"), {"wrong key block 11"}),
    sql_case("strip the newest signatures", "update audit.ledger set signature = null where block > 8",
             {"unsigned blocks 9-11"}),
    Case("write an unsigned block", write_unsigned, {"unsigned block 11"}),
    sql_case("drop a partition", "drop table audit.audit_logs_2026_11", {"removed rows 7-17"}, is_structural=True),
    sql_case("detach a partition", "alter table audit.audit_logs detach partition audit.audit_logs_2026_10",
             {"removed rows 1-6"}, is_structural=True),
    Case("drop a partition and record it as retention, without a key", drop_as_retention,
         {"wrong key block 10", "chain broken blocks 10-11"}, is_structural=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_tampering_is_found_and_named(
    case: Case, victim: Superuser, hashes: dict[int, str], table: list[tuple[str, str]]
) -> None:
    case.tamper(victim)
    dsn = victim.connection.info.dsn
    report = verified(dsn, hashes if case.anchored else None)
    table.append((case.name, "; ".join(map(str, report.findings)) or "nothing, as documented"))
    assert short(report) == case.found
    assert report.findings or not report.missing
    other = second.verify(dsn, "audit", list(KEYS.values()), hashes if case.anchored else {})
    assert bool(other) == bool(case.found), other


def test_both_verifiers_agree_on_the_clean_trail(
    audit_cluster: Server, template: str, hashes: dict[int, str]
) -> None:
    dsn = audit_cluster.dsn(template)
    report = verified(dsn, hashes)
    assert (report.findings, report.missing) == ([], [])
    assert (report.blocks, report.rows, report.signed, report.anchored) == (12, 24, 12, 2)
    assert second.verify(dsn, "audit", list(KEYS.values()), hashes) == []


def test_there_are_operators_enough() -> None:
    assert len(CASES) >= 30
