"""What a table was at a time, row by row of its trail; what isn't known is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cdc_audit.errors import UsageError
from cdc_audit.trail.as_of import State, Tracer
from cdc_audit.trail.image import Keys
from cdc_audit.trail.query import LogRow
from tests.unit.trail.rows import row

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def change(action: str, hour: int, record: str | None = "1", **more: Any) -> LogRow:
    when = {"created_at": f"2026-11-22T{hour:02}:00:00.000000Z"}
    return row(**{"action": action, "record_id": record, "changed_fields": None, **when, **more})


def traced(*rows: LogRow) -> tuple[State, bool]:
    tracer = Tracer(Keys(rows), AT)
    for one in rows:
        tracer.take(one)
    return tracer.state, tracer.is_whole


def test_the_row_of_that_very_moment_counts() -> None:
    state, _ = traced(change("INSERT", 12, new_data='{"id": 1}'), change("DELETE", 13, old_data='{"id": 1}'))
    assert state.rows == {"1": {"id": "1"}}
    assert state.doubts == []


def test_the_first_row_after_that_time_tells_what_was_before_it() -> None:
    rows = [
        change("UPDATE", 13, old_data='{"id": 1, "v": 1.10}', new_data='{"id": 1, "v": 2}'),
        change("UPDATE", 14, old_data='{"id": 1, "v": 2}', new_data='{"id": 1, "v": 3}'),
        change("SNAPSHOT", 15, record="2", old_data=None, new_data='{"id": 2, "v": 0}'),
        change("INSERT", 16, record="3", old_data=None, new_data='{"id": 3, "v": 0}'),
    ]
    state, is_whole = traced(*rows)
    assert state.rows == {"1": {"id": "1", "v": "1.10"}, "2": {"id": "2", "v": "0"}}
    assert is_whole


def test_truncate_empties_and_what_a_later_one_took_is_said() -> None:
    born = change("INSERT", 10, new_data='{"id": 1}')
    assert traced(born, change("TRUNCATE", 11, None)) == (State(), True)
    state, is_whole = traced(
        born, change("TRUNCATE", 13, None), change("INSERT", 14, "2", new_data='{"id": 2}')
    )
    assert list(state.rows) == ["1"]
    assert len(state.doubts) == 1
    assert not is_whole


def test_changes_from_before_a_snapshot_count_before_it_also_where_they_were_stored_later() -> None:
    taken = {"commit_lsn": "0/300", "old_data": None}
    born = change("INSERT", 13, commit_lsn="0/100", old_data=None, new_data='{"id": 1, "v": 0}')
    seen = change("SNAPSHOT", 15, new_data='{"id": 1, "v": 5}', **taken)
    assert traced(seen, born) == (State(), True)
    changed = change(
        "UPDATE", 14, commit_lsn="0/300", old_data='{"id": 1, "v": 4}', new_data='{"id": 1, "v": 5}'
    )
    assert traced(seen, changed)[0].rows == {"1": {"id": "1", "v": "4"}}
    moved = change(
        "UPDATE", 14, old_data='{"id": 1}', new_data='{"id": 2}', changed_fields=["id"], commit_lsn="0/200"
    )
    seen_moved = change("SNAPSHOT", 15, record="2", new_data='{"id": 2}', **taken)
    assert traced(seen_moved, moved)[0].rows == {"1": {"id": "1"}}
    later = change(
        "UPDATE", 16, commit_lsn="0/400", old_data='{"id": 1, "v": 5}', new_data='{"id": 1, "v": 6}'
    )
    assert traced(seen, later)[0].rows == {"1": {"id": "1", "v": "5"}}


def test_a_value_that_was_not_sent_is_taken_from_before_or_said_to_be_unknown() -> None:
    born = change("INSERT", 10, new_data='{"id": 1, "body": "long"}')
    touched = change("UPDATE", 11, old_data=None, new_data='{"id": 1}', unchanged_toast=["body"])
    assert traced(born, touched)[0].rows["1"]["body"] == '"long"'
    state, _ = traced(touched)
    assert "'body' was not sent" in state.doubts[0]


@pytest.mark.parametrize("more", [{"capture": "suppressed"}, {"record_id": None}])
def test_rows_that_tell_of_no_known_record_are_doubts(more: dict[str, Any]) -> None:
    state, _ = traced(change("UPDATE", 11, **({"record": None} if "record_id" in more else more)))
    assert state.rows == {}
    assert len(state.doubts) == 1


def test_tables_of_the_same_name_are_not_mixed() -> None:
    with pytest.raises(UsageError):
        traced(change("INSERT", 10, schema_name="a"), change("INSERT", 10, schema_name="b"))
