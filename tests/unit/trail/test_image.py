"""Images keep every digit; keys are found by comparing, and a change of key is never made up."""

from __future__ import annotations

import json

import pytest

from cdc_audit.trail.image import Keys, members, printable, printed
from tests.unit.trail.rows import row
from tests.unit.trail.test_render import HOSTILE

UPDATE = row(old_data='{"id": 42, "qty": 42}', new_data='{"id": 42, "qty": 7}', changed_fields=["qty"])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 12345678901234567890.60, "b\\"": null, "c": [1.50, {"d": "}"}], "e": "x, y"}',
        "{}",
        '{"a": 1e400}',
    ],
)
def test_an_image_is_taken_apart_and_put_together_without_loss(text: str) -> None:
    assert printed(members(text)) == text


@pytest.mark.parametrize("text", [None, "1", '"text"', "[1]", "null"])
def test_what_is_no_row_has_no_columns(text: str | None) -> None:
    assert members(text) == {}


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_json_means_the_same(text: str) -> None:
    given = json.dumps({"a": text, text: "\U000e0001"}, ensure_ascii=False)
    assert printable(given).isprintable()
    assert json.loads(printable(given)) == json.loads(given)


def test_a_column_that_has_the_keys_value_by_chance_is_not_taken_for_the_key() -> None:
    assert Keys([UPDATE]).after(UPDATE) == "42"
    other = row(record_id="1", old_data='{"id": 1, "qty": 5}')
    assert Keys([UPDATE, other]).after(UPDATE) == "42"
    moved = row(
        record_id="1", old_data='{"id": 1, "qty": 5}', new_data='{"id": 9, "qty": 5}', changed_fields=["id"]
    )
    assert Keys([UPDATE, moved]).after(moved) == "9"


def test_composite_keys_and_renamed_ones_are_followed() -> None:
    rows = [
        row(record_id='["a", "1"]', old_data='{"x": "a", "y": 1, "v": 0}', new_data='{"x": "a", "y": 2, "v": 0}',
            changed_fields=["y"]),
        row(record_id='["b", "3"]', old_data='{"x": "b", "y": 3, "v": 0}'),
    ]  # fmt: skip
    assert Keys(rows).after(rows[0]) == '["a", "2"]'
    renamed = [
        row(record_id="1", old_data='{"id": 1, "n": 5}'),
        row(record_id="1", old_data='{"nr": 1, "n": 5}', new_data='{"nr": 8, "n": 5}', changed_fields=["nr"]),
    ]
    assert Keys(renamed).after(renamed[1]) == "1"  # two names might be meant: not both have changed
