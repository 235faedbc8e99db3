"""What the ledger says of a snapshot that was cut short."""

from cdc_audit.pipeline.snapshot import Unfinished, unfinished

ASKED = ["app.*"]


def block(
    number: int, table: str, left: int, first: int = 5, reason: str = "r"
) -> tuple[int, str, dict[str, object]]:
    detail = {
        "snapshot": first,
        "table": table,
        "tables": ASKED,
        "reason": reason,
        "left": left,
        "lsn": "0/1",
    }
    return number, "snapshot", detail


def test_the_same_snapshot_goes_on_with_what_it_has() -> None:
    blocks = [block(5, "app.a", 2), block(6, "app.b", 1)]
    assert unfinished(blocks, ASKED, "r") == Unfinished(5, frozenset({"app.a", "app.b"}))


def test_one_that_went_on_later_is_still_the_same() -> None:
    blocks = [block(5, "app.a", 2), block(9, "app.b", 1)]
    assert unfinished(blocks, ASKED, "r") == Unfinished(5, frozenset({"app.a", "app.b"}))


def test_a_finished_one_another_one_and_none_begin_anew() -> None:
    assert unfinished([], ASKED, "r") is None
    assert unfinished([block(5, "app.a", 1), block(6, "app.b", 0)], ASKED, "r") is None
    assert unfinished([block(5, "app.a", 1)], ASKED, "another reason") is None
    assert unfinished([block(5, "app.a", 1)], ["app.a"], "r") is None


def test_the_last_one_counts_and_only_its_own_tables() -> None:
    blocks = [block(5, "app.a", 1), block(7, "app.b", 3, first=7)]
    assert unfinished(blocks, ASKED, "r") == Unfinished(7, frozenset({"app.b"}))
    assert unfinished([*blocks, block(9, "app.c", 0, first=9, reason="x")], ASKED, "r") is None


def test_what_was_read_before_changes_went_missing_is_read_again() -> None:
    for kind in ("gap", "divergence", "poison"):
        assert unfinished([block(5, "app.a", 1), (6, kind, {})], ASKED, "r") is None
        later = block(7, "app.b", 1, first=7)
        assert unfinished([block(5, "app.a", 1), (6, kind, {}), later], ASKED, "r") == Unfinished(
            7, frozenset({"app.b"})
        )
