"""pgAudit's lines in the server's log are read as they were written, and values leave no SQL text that shall not hold any."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.decode.pgaudit import UnreadableLineError, in_utc, read_line, to_message
from cdc_audit.decode.statement import copied_table, split_name, without_values
from cdc_audit.model.read import Read

# As PostgreSQL 15 with pgAudit 1.7 wrote it.
LINE = {
    "timestamp": "2026-11-28 13:49:00.508 CET",
    "user": "nurse",
    "dbname": "clinic",
    "pid": 4711,
    "remote_host": "10.0.0.9",
    "remote_port": 40000,
    "session_id": "6929a1cc.1267",
    "line_num": 3,
    "ps": "SELECT",
    "session_start": "2026-11-28 13:49:00 CET",
    "vxid": "3/8",
    "txid": 728,
    "error_severity": "LOG",
    "message": "",
    "application_name": "ward",
    "backend_type": "client backend",
    "query_id": 0,
}


def line(*values: object, **changed: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return json.dumps(
        {**LINE, "message": f"AUDIT: {text.getvalue()}", **changed}, ensure_ascii=False
    ).encode()


def read(*values: object, **changed: object) -> Read:
    found = read_line(line(*values, **changed), zone=ZoneInfo("Europe/Berlin"), encoding="latin-1")
    assert found is not None
    return found


def test_a_line_says_who_read_what_when_and_in_which_transaction() -> None:
    text = "select * from shop.a where t = 'it''s \"q\"\n line2'"
    found = read("OBJECT", 2, 1, "READ", "SELECT", "TABLE", "shop.a", text, "<none>", 5)
    assert found._asdict() == {
        "at": "2026-11-28 12:49:00.508+00",
        "logged_at": LINE["timestamp"],
        "user": "nurse",
        "database": "clinic",
        "application": "ward",
        "address": "10.0.0.9",
        "pid": 4711,
        "session": "6929a1cc.1267",
        "line": 3,
        "xid": 728,
        "audit": "OBJECT",
        "statement_id": 2,
        "substatement_id": 1,
        "command": "SELECT",
        "object_type": "TABLE",
        "schema": "shop",
        "table": "a",
        "is_named_by_statement": False,
        "statement": text,
        "parameters": None,
        "rows": 5,
    }


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.text("\",\n\r'a"),
)
def test_any_statement_comes_through_the_csv_inside_the_json(statement: str, parameters: str) -> None:
    found = read(
        "SESSION", 1, 1, "READ", "SELECT", "TABLE", '"a.b"."c""d"', statement, parameters or "<none>", 0
    )
    unsaid = {"<none>", "<not logged>", "<previously logged>"}
    assert found.statement == (None if statement in unsaid else statement)
    assert found.parameters == (parameters or None)
    assert (found.schema, found.table) == ("a.b", 'c"d')


def test_a_statement_longer_than_the_csv_modules_limit_is_read() -> None:
    text = "select '" + "x" * 300_000 + "'"
    found = read("SESSION", 1, 1, "READ", "SELECT", "", "", text, "<none>")
    assert found.statement == text
    assert found.rows is None


def test_what_is_no_read_of_pgaudits_is_left_out() -> None:
    audited = ("SESSION", 1, 1, "READ", "SELECT", "", "", "x", "<none>", 1)
    for other in (
        line("SESSION", 1, 1, "WRITE", "INSERT", "TABLE", "shop.a", "x", "<none>", 1),
        line(*audited, context="PL/pgSQL function inline_code_block line 1 at RAISE"),
        line(*audited, statement="do $$ ... $$"),
        json.dumps({**LINE, "message": "connection received: AUDIT: SESSION"}).encode(),
        json.dumps({key: value for key, value in LINE.items() if key != "message"}).encode(),
    ):
        assert read_line(other, zone=None, encoding="latin-1") is None


@pytest.mark.parametrize(
    "torn",
    [
        line("SESSION", 1, 1, "READ", "SELECT", "", "", "x", "<none>", 1)[:-40],
        line("SESSION", 1, 1, "READ", "SELECT", "", "", "x", "<none>", 1)[:90]
        + line("SESSION", 1, 2, "READ", "SELECT", "", "", "x", "<none>", 1),
        b"[1]",
        b"\0\0\0",
        line("SESSION", 1, 1, "READ", "SELECT"),
        line("SESSION", "one", 1, "READ", "SELECT", "", "", "x", "<none>", 1),
        line("SESSION", 1, 1, "READ", "SELECT", "", "", "x", "<none>", 1, pid="p"),
        json.dumps({**LINE, "message": 'AUDIT: SESSION,1,1,READ,SELECT,,,"select,<none>,1'}).encode(),
    ],
)
def test_a_line_that_cannot_be_read_is_told_and_never_passed_over(torn: bytes) -> None:
    with pytest.raises(UnreadableLineError) as raised:
        read_line(torn, zone=UTC, encoding="latin-1")
    assert "select" not in str(raised.value).lower()


def test_a_line_in_another_encoding_is_read() -> None:
    text = line("SESSION", 1, 1, "READ", "SELECT", "TABLE", "größe", "x", "<none>", 1)
    found = read_line(text.decode().encode("latin-1"), zone=None, encoding="latin-1")
    assert found is not None
    assert found.table == "größe"


@pytest.mark.parametrize(
    ("logged", "zone", "utc"),
    [
        ("2026-11-28 12:49:00.500 UTC", None, "2026-11-28 12:49:00.5+00"),
        ("2026-11-28 12:49:00.000 GMT", "Europe/Berlin", "2026-11-28 12:49:00+00"),
        ("2026-10-25 02:30:00.001 CEST", "Europe/Berlin", "2026-10-25 00:30:00.001+00"),
        ("2026-10-25 02:30:00.001 CET", "Europe/Berlin", "2026-10-25 01:30:00.001+00"),
        ("2026-11-28 09:49:00.508 -03", None, "2026-11-28 12:49:00.508+00"),
        ("2026-11-28 18:19:00.508 +0530", None, "2026-11-28 12:49:00.508+00"),
        ("2026-11-28 12:49:00.508 EST", "Europe/Berlin", ""),
        ("2026-11-28 12:49:00.508 CET", None, ""),
        ("yesterday", None, ""),
    ],
)
def test_a_time_is_told_in_utc_or_not_at_all(logged: str, zone: str | None, utc: str) -> None:
    assert in_utc(logged, ZoneInfo(zone) if zone else None) == utc


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        (
            "select * from a1 where t = 'it''s' and n=-1.5e3 and x = $1",
            "select * from a1 where t = ? and n=-? and x = $1",
        ),
        ("select E'a\\'b', 'c' from \"T '1'\"", "select ?, ? from \"T '1'\""),
        ("select $a$ x $b$ 'y' $a$, U&'d\\0061t', x'ff', .5, 0x1F", "select ?, ?, ?, ?, ?"),
        ("execute p(1, 'secret')", "execute p(?, ?)"),
        ("select 1 -- by 'ann'\n, 2 /* a /* b */ 'c' */ , 3", "select ?  \n, ?   , ?"),
        ("select 'a\\' or 'b'", "select ? ..."),
        ("select 'unended", "select ?"),
        ('select "unended 1', "select ?"),
        ("select a$1 from t_2", "select a$1 from t_2"),
    ],
)
def test_values_and_comments_are_taken_out_of_a_statement(statement: str, left: str) -> None:
    assert without_values(statement) == left


PIECES = (
    "select ",
    "a1",
    '"T 2"',
    " = ",
    "$1",
    "'it''s'",
    "E'\\'\\\\'",
    "$x$'\"$x$",
    "/* ' */",
    "-- '\n",
    "U&'\\0061'",
    " ",
)


@given(
    st.lists(st.sampled_from(PIECES)),
    st.sampled_from(["'{}'", "E'{}'", "$q${}$q$", "/* {} */", "x'{}'", "-- {}\n"]),
)
def test_a_value_never_stays_whatever_stands_before_it(before: list[str], literal: str) -> None:
    statement = " ".join(before) + " " + literal.format("cafe")
    assert "cafe" not in without_values(statement)
    assert without_values(statement + " from b").endswith((" from b", " ..."))


def test_names_are_told_from_their_quoted_form() -> None:
    assert split_name('shop."B b"') == ("shop", "B b")
    assert split_name('"a.b".c') == ("a.b", "c")
    assert copied_table('COPY "S""h"."B b" (id, t) TO STDOUT') == ('S"h', "B b")
    assert copied_table("copy Shop to '/tmp/x'") == ("", "shop")
    assert copied_table("copy (select 1) to stdout") is None


def test_the_text_goes_along_as_configured_and_parameters_only_with_all_of_it() -> None:
    found = read("SESSION", 1, 1, "READ", "SELECT", "", "", "select 'a'", "1,b", 0)
    assert to_message(found, "redacted")["statement"] == "select ?"
    assert "parameters" not in to_message(found, "redacted")
    assert to_message(found, "none").keys() & {"statement", "parameters"} == set()
    full = to_message(found, "full")
    assert (full["statement"], full["parameters"], full["rows"]) == ("select 'a'", "1,b", 0)


@pytest.mark.parametrize("letter", ["x", "\x01", "\U0001f600", '"'])
def test_a_message_is_bounded_whatever_its_letters(letter: str) -> None:
    found = read("SESSION", 1, 1, "READ", "SELECT", "", "", f"select '{letter * 9000}'", letter * 9000, 0)
    message = to_message(found, "full")
    assert len(json.dumps(message, ensure_ascii=letter == "\x01").encode()) <= 8192
    assert message["statement_length"] == 9009
    assert message["statement"].startswith("select '")
