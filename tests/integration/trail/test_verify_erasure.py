"""What a superuser can do to personal values, and what ``verify`` says of it. Run with ``-s`` to see the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

import pytest

from cdc_audit import postgres
from cdc_audit.config import RedactRule
from cdc_audit.schema.migrate import migrate
from cdc_audit.seal.redact import Redaction
from cdc_audit.sink import erasure, ledger
from cdc_audit.trail.query import Filters, read_log
from cdc_audit.trail.verify import Report, Request, verify
from tests.integration.trail.tampering import (
    ANN,
    BEN,
    DECEMBER,
    KEY_A,
    KEYS,
    NOVEMBER,
    STRANGER,
    LedgerWriter,
    Superuser,
    superuser,
)  # fmt: skip
from tests.support import second_openings
from tests.support import second_verifier as second
from tests.support.servers import Server

Tamper = Callable[[Superuser], object]
_NUMBERS = itertools.count()
RULES = Redaction(
    (RedactRule(table="public.orders", column="note", mode="personal"),),
    personal_context=("user_email", "ip_address", "user_agent"),
)


class Case(NamedTuple):
    """What is done, and what has to be found."""

    name: str
    tamper: Tamper
    found: set[str]


def write_trail(dsn: str) -> None:
    """Rows 1-3 (block 1) are Ann's, 4-6 (block 2) Ben's, 7-9 (block 3) Ann's; block 4 erases Ben's context, block 5 record 8."""
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        writer = LedgerWriter(connection, KEY_A, RULES)
        writer.genesis()
        writer.data(3, NOVEMBER, context=ANN)
        writer.data(3, NOVEMBER, context=BEN)
        writer.data(3, DECEMBER, context=ANN)
        pieces = [
            *erasure.by_user(connection, "audit", "u2"),
            *erasure.by_record(connection, "audit", None, "orders", "8"),
        ]
        assert erasure.erase(connection, "audit", pieces, reason="asked for", signer=KEY_A) == [4, 5]
        writer.bare("heartbeat")


@pytest.fixture(scope="module")
def template(audit_cluster: Server) -> Iterator[str]:
    name = audit_cluster.create_database()
    write_trail(audit_cluster.dsn(name))
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def victim(audit_cluster: Server, template: str) -> Iterator[Superuser]:
    """A whole trail to tamper with."""
    name = f"opened_{next(_NUMBERS)}"
    audit_cluster.execute(f'create database {name} template "{template}"')
    with superuser(audit_cluster.dsn(name)) as connection:
        yield Superuser(connection)
    audit_cluster.execute(f"drop database {name} with (force)")


def verified(dsn: str, since: str = "", jobs: int = 1) -> Report:
    return verify(dsn, "audit", Request(KEYS_A, None, since, jobs), lambda done, total: None)


KEYS_A = {KEY_A.key_id: KEYS[KEY_A.key_id]}


def short(report: Report) -> set[str]:
    return {
        f"{one.kind} {one.unit} {one.first}" + (f"-{one.last}" if one.first != one.last else "")
        for one in report.findings
    }


def sql_case(name: str, statement: str, *found: str) -> Case:
    return Case(name, lambda admin: admin.do(*statement.split("; ")), set(found))


def forge_erasure(*, signer: bool) -> Tamper:
    """What the command does, but with another key, or none."""

    def tamper(admin: Superuser) -> None:
        piece = erasure.by_user(admin.connection, "audit", "u1")[0]
        last = ledger.last_block(admin.connection, "audit")
        assert last
        block, hash_ = ledger.without_rows(
            *last, kind="erasure", start_lsn=last[0].end_lsn, end_lsn=last[0].end_lsn, timeline=1, written_at=DECEMBER,
            detail={"ids": piece.ids, "parts": piece.parts, "values": piece.values, "reason": "", "by": "x"},
            signer=STRANGER if signer else None,
        )  # fmt: skip
        if signer:
            block = block._replace(key_id=KEY_A.key_id)
            hash_ = sha256(b"").digest()
        values = list(ledger.parameters(block, hash_, STRANGER.sign(hash_) if signer else b""))
        admin.connection.execute(ledger.statement("erase", "audit"), values)
        if signer:
            admin.rehash_blocks(7, 7)

    return tamper


def open_with_another_value(admin: Superuser) -> None:
    """A salt, a value and a commitment that fit each other."""
    salt, opened = bytes(16), b'"mallory"'
    admin.connection.execute(
        "update audit.personal_values set salt = %s, value = %s, commitment = %s where id = 1 and field = 'user_agent'",
        (salt, opened.decode(), sha256(b"\3" + salt + opened).digest()),
    )


def put_back(admin: Superuser) -> None:
    admin.do(
        "update audit.personal_values set salt = '\\x00', value = '\"ben\"' where id = 4 and part = 'context'"
    )


CASES = [
    sql_case("edit a value", "update audit.personal_values set value = '\"x\"' where id = 1 and field = 'user_email'",
             "altered row 1"),
    sql_case("edit a salt", "update audit.personal_values set salt = sha256(salt) where id = 2 and part = 'new_data'",
             "altered row 2"),
    sql_case("edit a commitment",
             "update audit.personal_values set commitment = sha256(commitment) where id = 1 and field = 'user_email'",
             "altered row 1"),
    Case("open with another value", open_with_another_value, {"altered row 1"}),
    sql_case("exchange two openings",
             "update audit.personal_values set field = 'x' where id = 1 and field = 'user_agent'; "
             "update audit.personal_values set field = 'user_agent' where id = 1 and field = 'user_email'; "
             "update audit.personal_values set field = 'user_email' where id = 1 and field = 'x'", "altered row 1"),
    sql_case("delete an opening", "delete from audit.personal_values where id = 1 and field = 'user_agent'",
             "removed block 1"),
    sql_case("delete an erased opening", "delete from audit.personal_values where id = 4 and part = 'context'",
             "removed block 2"),
    sql_case("delete a block's openings", "delete from audit.personal_values where id <= 3", "removed block 1"),
    sql_case("delete all openings", "delete from audit.personal_values", "removed block 1", "removed block 2",
             "removed block 3"),
    sql_case("drop the table", "drop function audit.erase(audit.ledger); drop table audit.personal_values",
             "removed block 1", "removed block 2", "removed block 3"),
    sql_case("insert an opening",
             "insert into audit.personal_values select id, part, 'other', commitment, salt, value "
             "from audit.personal_values where id = 1 and field = 'user_agent'", "altered row 1"),
    sql_case("insert an opening of a text that only looks like a commitment",
             "insert into audit.personal_values select id, part, 'note', commitment, salt, value "
             "from audit.personal_values where id = 1 and field = 'user_agent'; "
             "update audit.audit_logs set context = context || jsonb_build_object('note', user_agent) where id = 1",
             "altered row 1", "inserted block 1"),
    sql_case("insert an opening of no row", "insert into audit.personal_values select 99, part, field, commitment, salt, "
             "value from audit.personal_values where id = 1 and field = 'user_agent'", "inserted row 99"),
    sql_case("null a value without a block",
             "update audit.personal_values set salt = null, value = null where id = 3 and field = 'ip_address'",
             "removed row 3"),
    sql_case("null a salt", "update audit.personal_values set salt = null where id = 3 and field = 'ip_address'",
             "altered row 3"),
    sql_case("null another part of an erased row",
             "update audit.personal_values set salt = null, value = null where id = 4 and part = 'new_data'",
             "removed row 4"),
    Case("put an erased value back", put_back, {"altered row 4"}),
    Case("forge an erasure block without a key", forge_erasure(signer=False), {"unsigned block 7"}),
    Case("forge an erasure block with another key", forge_erasure(signer=True), {"wrong key block 7"}),
    sql_case("make an erasure block name more",
             "update audit.ledger set detail = jsonb_set(detail, '{ids}', '[[1, 6]]') where block = 4; "
             "update audit.personal_values set salt = null, value = null where id <= 3 and part = 'context'",
             "altered block 4", "removed row 1-6"),
    sql_case("delete the erasure block", "delete from audit.ledger where block = 5",
             "removed block 5", "removed row 8"),
    sql_case("edit a commitment in the row",
             "update audit.audit_logs set user_email = 'personal:' || repeat('0', 64) where id = 2", "altered row 2"),
]  # fmt: skip


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_tampering_with_personal_values_is_found_and_named(
    case: Case, victim: Superuser, table: list[tuple[str, str]]
) -> None:
    case.tamper(victim)
    dsn = victim.connection.info.dsn
    report = verified(dsn)
    table.append((case.name, "; ".join(map(str, report.findings))))
    assert short(report) == case.found
    other = second.verify(dsn, "audit", list(KEYS_A.values()), {})
    assert case.name == "drop the table" or other + second_openings.verify(dsn, "audit")


def test_a_trail_with_erased_values_is_whole(audit_cluster: Server, template: str) -> None:
    dsn = audit_cluster.dsn(template)
    for report in (verified(dsn), verified(dsn, "2"), verified(dsn, jobs=2)):
        assert (report.findings, report.missing) == ([], [])
        # Ben's e-mail address in three rows, the note in both images of row 8, whose old one is null.
        assert (report.erased_values, report.erased_rows, report.erasures) == (3 + 1, 4, 2)
    assert second.verify(dsn, "audit", list(KEYS_A.values()), {}) == []
    assert second_openings.verify(dsn, "audit") == []


def test_the_block_says_why_and_where_and_by_whom_and_nothing_of_whom(
    audit_cluster: Server, template: str
) -> None:
    blocks = audit_cluster.execute(
        "select detail from audit.ledger where kind = 'erasure' order by 1", dbname=template
    )
    common = {"reason": "asked for", "by": "postgres"}
    expected = [
        {**common, "ids": [[4, 6]], "parts": ["context"], "values": 3},
        {**common, "ids": [[8, 8]], "parts": ["new_data", "old_data"], "values": 1},
    ]
    assert sorted((detail for (detail,) in blocks), key=lambda one: one["ids"]) == expected


def test_the_log_shows_values_and_where_they_were_and_commitments_to_whom_values_are_denied(
    audit_cluster: Server, template: str
) -> None:
    with postgres.connect(audit_cluster.dsn(template), side="audit") as reader:
        rows = {row.id: row for row in read_log(reader, "audit", Filters())}
        assert (rows[1].user_email, rows[1].ip_address, rows[1].user_agent) == (
            "ann@shop.example",
            "10.0.0.9",
            "Mozilla\t5.0",
        )
        assert rows[1].context == '{"request_id": "r\\\\1"}'
        assert rows[1].new_data == '{"id": 1, "note": "tab \\\\t, quote \\", \u00e9, 1", "price": 12.50}'
        assert (rows[4].user_id, rows[4].user_email, rows[4].ip_address, rows[4].context) == (
            "u2",
            "[erased]",
            None,
            None,
        )
        assert rows[8].new_data == '{"id": 8, "note": "[erased]", "price": 12.50}'
        assert rows[8].old_data == '{"id": 8, "note": null, "price": 12.60}'
        with reader.transaction(force_rollback=True):
            reader.execute("revoke select on audit.personal_values from audit_admin")
            reader.execute("set local role audit_admin")
            (row,) = read_log(reader, "audit", Filters(record="1"))
        assert row.user_email is not None
        assert row.user_email.startswith("personal:")
        assert "ip_address" in str(row.context)


def test_a_trail_of_version_1_is_verified_and_shown(audit_cluster: Server, template: str) -> None:
    name = f"opened_{next(_NUMBERS)}"
    audit_cluster.execute(f"create database {name}")
    try:
        with postgres.connect(audit_cluster.dsn(name), side="audit") as connection:
            migrate(connection, "audit", None)
            writer = LedgerWriter(connection, KEY_A)
            writer.genesis()
            writer.data(3, context=ANN)
            connection.execute("drop function audit.erase(audit.ledger); drop table audit.personal_values")
            assert len(list(read_log(connection, "audit", Filters()))) == 3
        assert verified(audit_cluster.dsn(name)).findings == []
    finally:
        audit_cluster.execute(f"drop database {name} with (force)")


def test_many_scattered_rows_are_erased_by_several_blocks(
    victim: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_RANGES", 1)
    pieces = erasure.by_user(victim.connection, "audit", "u1")
    assert [piece.ids for piece in pieces] == [[(1, 3)], [(7, 9)]]
    assert erasure.erase(victim.connection, "audit", pieces, reason="r", signer=KEY_A) == [7, 8]
    report = verified(victim.connection.info.dsn)
    assert (report.findings, report.erased_values, report.erasures) == ([], 4 + 18, 4)
    assert erasure.by_user(victim.connection, "audit", "u1") == []


def test_an_erasure_that_fails_half_way_erases_nothing(victim: Superuser) -> None:
    pieces = erasure.by_user(victim.connection, "audit", "u1")
    wrong = [*pieces, pieces[0]._replace(values=99)]
    with pytest.raises(Exception, match="the block names 99 values, but 0 are there"):
        erasure.erase(victim.connection, "audit", wrong, reason="r", signer=KEY_A)
    assert verified(victim.connection.info.dsn).erasures == 2
