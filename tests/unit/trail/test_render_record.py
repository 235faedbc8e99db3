"""A record's life, a row in full, and sums: hostile names and values stay text."""

from __future__ import annotations

import json

import pytest

from cdc_audit.trail import render_activity
from cdc_audit.trail.activity import Nobody, Share
from cdc_audit.trail.render import changes, stream
from cdc_audit.trail.render_record import full, life
from cdc_audit.trail.suspicious import Finding
from tests.unit.trail.rows import row
from tests.unit.trail.test_render import HOSTILE


def test_a_life_is_told_field_by_field() -> None:
    rows = [row(action="INSERT", old_data=None, changed_fields=None, id=6), row(context_trust="none")]
    assert list(life(rows, "note")) == [
        "2026-11-22 19:19:02  INSERT  42  by u42  #6",
        "    note: paid",
        "2026-11-22 19:19:02  UPDATE  42  by u42 (no context)  #7",
        "    note: null → paid",
    ]
    assert list(life(rows, "no such column")) == []


def test_a_row_in_full_has_every_column_that_has_a_value() -> None:
    lines = list(full(row()))
    assert "row_hash          \\x00ff" in lines
    assert not any(line.startswith("unchanged_toast") for line in lines)
    assert "    price: 12345678901234567890.60 → 1.10" in lines


def test_of_long_values_the_difference_is_shown() -> None:
    old, new = "a" * 500 + "old" + "z" * 500, "a" * 500 + "new" + "z" * 500
    images = {"old_data": json.dumps({"note": old}), "new_data": json.dumps({"note": new})}
    text = changes(row(**images, changed_fields=["note"]))
    assert len(text) < 150
    assert "old" in text
    assert "new" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_moves_a_terminal(text: str) -> None:
    hostile = row(
        schema_name=text,
        table_name=text,
        record_id=text,
        action=text,
        user_id=text,
        user_agent=text,
        unchanged_toast=[text],
        new_data=json.dumps({"note": text, text: text}, ensure_ascii=False),
    )
    update = hostile._replace(action="UPDATE", changed_fields=["note", text])
    lines = [*life([hostile, update]), *full(hostile), *full(update), *stream([hostile, update], 100)]
    lines += render_activity.shares([Share(text, text, text, 1, "2026", "2026")])
    lines += render_activity.findings([Finding(text, text, text, text, text, text, 1, "2026", "2026", 1)])
    lines += render_activity.nobody([Nobody(text, text, text, text, text, 1, "2026", "2026", [1])])
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_histogram_fits_its_width(width: int) -> None:
    counts = [("2026-11-20T10:00:00Z", 1), ("2026-11-20T11:00:00Z", 1_000_000)]
    lines = list(render_activity.histogram(counts, "hour", width))
    assert max(map(len, lines)) <= width
    assert lines[0].count("█") == 1
    assert list(render_activity.histogram([], "day", width)) == []
