"""The table of the 84 cases in tests/README.md is complete, and every test that it names says so itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
SAID = re.compile(r"\bCases? ((?:\d+|, | to | and )+)")
CASES = range(1, 85)


def numbers(docstring: str) -> set[int]:
    """The cases that a docstring names: ``Cases 1, 3 to 5``."""
    found: set[int] = set()
    for text in SAID.findall(docstring):
        for part in re.split(r", | and ", text):
            first, _, last = part.partition(" to ")
            if first.strip():
                found |= set(range(int(first), int(last or first) + 1))
    return found


def said_in(file: Path) -> dict[str, set[int]]:
    """Each test of a file with the cases that its docstring names."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name: numbers(ast.get_docstring(node) or "")
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_the_table_names_a_test_for_each_of_the_84_cases_and_each_says_so() -> None:
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    rows = {int(number): NAMED.findall(tests) for number, tests in ROW.findall(readme)}
    assert sorted(rows) == list(CASES)
    files: dict[str, dict[str, set[int]]] = {}
    for number, tests in rows.items():
        assert tests, f"case {number} has no test"
        for file, test in tests:
            said = files.setdefault(file, said_in(TESTS / file))
            assert test in said, f"case {number}: no {test} in {file}"
            assert number in said[test], f"case {number}: {test} doesn't say so"


def test_every_case_that_a_test_names_is_in_the_table() -> None:
    rows = {int(number): text for number, text in ROW.findall((TESTS / "README.md").read_text("utf-8"))}
    for file in TESTS.rglob("test_*.py"):
        for test, cases in said_in(file).items():
            for number in cases:
                assert f"`{file.relative_to(TESTS)}::{test}`" in rows[number], f"case {number}: {test}"
