"""Positions are integers; their text has a variable width."""

import pytest

from cdc_audit.model.lsn import format_lsn, parse_lsn


def test_positions_compare_as_numbers_and_not_as_texts() -> None:
    """Case 17: A/0 comes before 10/0, and 0/FFFFFFFF just before 1/0."""
    texts = ["0/10", "0/FFFFFFFF", "1/0", "9/5", "A/0", "10/0", "FFFFFFFF/FFFFFFFF"]
    numbers = [parse_lsn(text) for text in texts]
    assert numbers == sorted(numbers)
    assert [format_lsn(number) for number in numbers] == texts
    assert parse_lsn("00000001/00000010") == parse_lsn("1/10")


@pytest.mark.parametrize("text", ["", "/", "1/", "/1", "1", "1/2/3", "1/g", "123456789/0", "0/123456789"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_lsn(text)
