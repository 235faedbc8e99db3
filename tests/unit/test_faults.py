"""The map of faults in tests/README.md is complete: each fault has its tests or the reason why not, and each test its fault."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.test_cases import NAMED, TESTS, said_in

ROW = re.compile(r"^\| ([KT]?\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
NOT_HERE = "not here: "


def rows() -> dict[str, str]:
    """What stands beside each fault, place of death (K) and trap (T), by its number."""
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Faults\n")[2].partition("\n## ")[0]
    found = ROW.findall(section)
    assert len(found) == len(dict(found)), "a number stands twice"
    return dict(found)


def test_faults_are_numbered_without_holes_and_each_has_its_tests_or_a_reason() -> None:
    for kind, count in (("", None), ("K", 19), ("T", None)):
        found = [number for number in rows() if number.rstrip("0123456789") == kind]
        assert found == [f"{kind}{n}" for n in range(1, (count or len(found)) + 1)]
    for number, text in rows().items():
        if not text.startswith(NOT_HERE):
            assert NAMED.findall(text), f"{number} has neither tests nor '{NOT_HERE}' and the reason"


def test_every_test_in_the_map_is_there_and_every_test_of_faults_is_in_the_map() -> None:
    named = {one for text in rows().values() for one in NAMED.findall(text)}
    for file, test in named:
        assert test in said_in(TESTS / file), f"no {test} in {file}"
    for path in sorted(Path(TESTS, "faults").glob("test_*.py")):
        for test in said_in(path):
            assert (f"faults/{path.name}", test) in named, f"{test} is not in the map"
