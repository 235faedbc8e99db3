"""Rows as people and programs see them; whatever stands in a cell, it stays text."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal

import pytest

from cdc_audit.trail.query import LogRow
from cdc_audit.trail.render import changes, csv_lines, json_line, notes, shown, table
from tests.unit.trail.rows import row

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "bell\a",
    "back\b\b\bspace",
    "line\nbreak\r\nand\ttab",
    "\x9b31mC1 control",
    "right\u202eto-left",
    "zero\u200bwidth",
    "\u2028separator",
    "\x7fdelete",
]


def test_an_update_shows_old_and_new_of_each_changed_field_with_every_digit() -> None:
    assert changes(row()) == "note: null → paid, price: 12345678901234567890.60 → 1.10"


def test_an_insert_and_a_delete_show_their_image() -> None:
    assert (
        changes(row(action="INSERT", old_data=None, changed_fields=None)) == "id: 42, note: paid, price: 1.10"
    )
    assert changes(row(action="DELETE", new_data=None, changed_fields=None)).startswith("id: 42, note: null")
    assert changes(row(action="TRUNCATE", old_data=None, new_data=None, changed_fields=None)) == ""


def test_a_field_that_an_image_lacks_is_a_question_mark() -> None:
    assert changes(row(old_data='{"id": 42}', changed_fields=["note"])) == "note: ? → paid"
    assert changes(row(old_data=None, changed_fields=None)) == "id: 42, note: paid, price: 1.10"


def test_nested_values_are_shown_and_absurd_depth_is_cut() -> None:
    image = '{"a": {"b": [1.50, true, null, "x"]}}'
    assert changes(row(action="INSERT", new_data=image)) == "a: {b: [1.50, true, null, x]}"
    deep = "[" * 5_000 + "]" * 5_000
    assert "…" in changes(row(action="INSERT", new_data='{"a": ' + "[" * 50 + "]" * 50 + "}"))
    assert changes(row(action="INSERT", new_data=deep))


def test_notes_say_what_a_reader_must_know() -> None:
    assert notes(row()) == ""
    assert notes(row(context_trust="none")) == "no context"
    assert notes(row(context_trust="forged", capture="partial")) == "forged, partial"
    assert notes(row(context_trust="asserted", capture="suppressed")) == "asserted, suppressed"


@pytest.mark.parametrize("width", [70, 80, 100, 160, 300])
def test_a_table_fits_its_width(width: int) -> None:
    rows = [
        row(),
        row(user_id="長い名前" * 20, record_id="k" * 500, table_name="t" * 100, context_trust="forged"),
    ]
    lines = list(table(rows, width))
    assert len(lines) == 3
    for line in lines:
        assert sum(2 if "一" <= char <= "鿿" or "ぁ" <= char <= "ヿ" else 1 for char in line) <= width
    assert lines[0].startswith("time (UTC)")
    assert lines[1].startswith("2026-11-22 19:19:02")


def test_at_80_columns_a_short_name_of_a_user_is_whole_and_eight_letters_of_a_table_are_seen() -> None:
    long = {"record_id": "k" * 50, "table_name": "t" * 50, "action": "UPDATE", "context_trust": "none"}
    lines = list(table([row(user_id=None, user_email=None, db_user="postgres", **long)], 80))
    assert "  (postgres)  " in lines[1]
    assert "  tttttttt…  " in lines[1]
    assert max(map(len, lines)) == 80


def test_a_wide_table_shows_all_of_it() -> None:
    text = list(table([row(schema_name="shop", context_trust="asserted")], 200))[1]
    assert re.split(" {2,}", text) == [
        "2026-11-22 19:19:02",
        "u42",
        "UPDATE",
        "shop.orders",
        "42",
        "asserted",
        "note: null → paid, price: 12345678901234567890.60 → 1.10",
    ]


def test_a_table_of_nothing_is_its_heading() -> None:
    assert len(list(table([], 80))) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_can_move_the_cursor_or_hide(text: str) -> None:
    new = json.dumps({"note": text, text: 1}, ensure_ascii=False)
    hostile = row(
        schema_name=text,
        table_name=text,
        record_id=text,
        action=text,
        user_id=text,
        new_data=new,
        context_trust=text,
        capture=text,
    )
    for kind in (hostile, hostile._replace(action="UPDATE", changed_fields=["note", text])):
        lines = list(table([kind], 1000))
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)


def test_what_is_escaped_can_be_read() -> None:
    assert shown("a\x1b[0m\n\t\u202e\U000e0001ä→") == "a\\x1b[0m\\n\\t\\u202e\\U000e0001ä→"


def test_a_json_line_has_every_column_in_order_and_every_digit() -> None:
    line = json_line(row(context='{"n": 1e400, "t": "x"}'))
    read = json.loads(line, parse_float=Decimal)
    assert list(read) == list(LogRow._fields)
    assert '"old_data":{"id": 42, "note": null, "price": 12345678901234567890.60}' in line
    assert '"context":{"n": 1e400, "t": "x"}' in line
    assert read["changed_fields"] == ["note", "price"]
    assert read["unchanged_toast"] is None
    assert "\n" not in line


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_cells_survive_json_and_csv_unchanged(text: str) -> None:
    given = row(user_agent="x" + text, new_data=json.dumps({"a": text}))
    assert json.loads(json_line(given))["user_agent"] == "x" + text
    assert json.loads(json_line(given))["new_data"] == {"a": text}
    (read,) = csv.DictReader(io.StringIO("\n".join(csv_lines([given])), newline=""))
    assert read["user_agent"] == "x" + text
    assert json.loads(read["new_data"]) == {"a": text}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_csv_cell_is_a_formula(start: str) -> None:
    formula = start + "cmd|' /C calc'!A0"
    (read,) = csv.DictReader(
        io.StringIO("\n".join(csv_lines([row(user_id=formula, record_id=f'{formula}",="')])), newline="")
    )
    assert read["user_id"] == "'" + formula
    assert read["record_id"] == f'\'{formula}",="'


def test_csv_has_a_heading_and_nulls_are_empty() -> None:
    heading, line = csv_lines([row(user_id=None, record_id="")])
    assert heading == ",".join(LogRow._fields)
    (read,) = csv.DictReader(io.StringIO(f"{heading}\n{line}"))
    assert (read["user_id"], read["record_id"], read["id"]) == ("", "", "7")
    assert read["changed_fields"] == '["note","price"]'
