"""Data from anybody through every command and format: no terminal is moved, no spreadsheet runs it, no page takes it for markup."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

from cdc_audit.model.context import Context, Trust
from cdc_audit.model.event import ApplicationEvent
from cdc_audit.model.jsonb import canonical
from cdc_audit.trail.render import columns
from tests.support.command_line import Done, run
from tests.support.servers import Server
from tests.support.small_trail import BEGUN, Shop, row, write_small_trail

csv.field_size_limit(1 << 30)
WORDS = {
    "escapes": "\x1b[2J\x1b]0;owned\x07\x9b31m\x1b[8m",
    "controls": "\r\n\t\x08\x7f\x85\u2028\u2029a\x0bb",
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'</td></pre>--><!--",
    "formula": "=cmd|' /C calc'!A0",
    "formula after a tab": "\t=1+1",
    "at": "@SUM(1)",
    "plus": "+1-1",
    "right to left": "\u202eoverturned\u202c\u2066x\u2069\u200f\u061c",
    "nul and surrogates": "\\u0000 \\ud800 \\udfff \u0000".replace("\u0000", "\\x00"),
    "invisible": "a\u200b\u00ad\ufeff\u2060b\U000e0041",
    "wide": "表\U0001f469\u200d\U0001f4bb" * 20,
    "sql": "'; drop table shop.orders; -- $take_back$ \\",
    "long": "long " * 10_000,
}


@pytest.fixture(scope="module")
def dsn(audit_cluster: Server) -> Iterator[str]:
    """Each word as schema, table, key, column, value, user, address book and all that a context can hold."""
    name = audit_cluster.create_database()
    shop = Shop(BEGUN)
    for word in WORDS.values():
        short = word[:50]
        said = Context(Trust.ASSERTED, word, word, "", word, jsonb({word: word}).decode(), word, word)
        old, new = {"id": word, short: "before"}, {"id": word, short: word}
        table = f"{short.replace('.', '')}.{short.replace('.', '')}"
        shop.transaction(said, row(table, None, old), row(table, old, new), row(table, new, None))
        nobody = Context(Trust.NONE, db_user=word, application_name=word)
        shop.transaction(nobody, row("t", None, {"id": word, "v": [word, {word: word}]}))
        shop.transaction(said, ApplicationEvent("READ", f"s.{short}", word, jsonb({word: word})))
    write_small_trail(audit_cluster.dsn(name), shop.stretches)
    yield audit_cluster.dsn(name)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def jsonb(value: object) -> bytes:
    return canonical(orjson.dumps(value))


def asked(word: str) -> dict[str, tuple[str, ...]]:
    """Every command about a word, by the form of what it prints."""
    table = "s.t" if '"' in word else f'"{word[:50].replace(".", "")}"."{word[:50].replace(".", "")}"'
    since = ("--since", "2026-11-01")
    text = {
        "log": ("log", "--user", word),
        "log of all": ("log", "--limit", "200"),
        "history": ("history", "t", word),
        "history of its own table": ("history", table, word),
        "show": ("show", "2"),
        "deletions": ("deletions", *since),
        "who": ("who", word, *since),
        "context missing": ("context", "missing", *since),
        "suspicious": ("suspicious", *since, "--threshold", "0"),
        "undo": ("undo", "--user", word, *since),
        "wrong table": ("history", word + ".a.b", word),
        "wrong rule": ("suspicious", "--rule", word),
    }
    lines = {
        f"{name} as JSON": (*arguments, "--json")
        for name, arguments in text.items()
        if name not in {"undo", "wrong table", "wrong rule"}
    }
    lines["as-of"] = ("as-of", "t", "--at", "now")
    files = {
        "log as CSV": ("log", "--format", "csv"),
        "as-of as CSV": ("as-of", "t", "--at", "now", "--format", "csv"),
    }
    return {**text, **lines, **files}


@pytest.mark.parametrize("kind", WORDS)
def test_no_command_prints_what_moves_a_terminal(kind: str, dsn: str) -> None:
    seen = set()
    width = "80" if len(kind) % 2 else "160"
    for name, arguments in asked(WORDS[kind]).items():
        done = run(*arguments, "--dsn", dsn, env={"COLUMNS": width})
        assert "internal error" not in done.stderr, (name, done.stderr)
        assert all(line.isprintable() for line in done.stderr.split("\n")), name
        if name.endswith("CSV"):
            check_csv(name, done)
            continue
        assert all(line.isprintable() for line in done.stdout.split("\n")), name
        if "JSON" in name or name == "as-of":
            texts = [one for line in done.stdout.splitlines() for one in strings(json.loads(line))]
            seen |= {name for text in texts if text == WORDS[kind]}
        if name in {"log", "log of all", "deletions"}:
            assert all(columns(line) <= int(width) for line in done.stdout.splitlines()), name
    assert {
        "log as JSON",
        "history as JSON",
        "context missing as JSON",
        "suspicious as JSON",
        "as-of",
    } <= seen


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)


def check_csv(name: str, done: Done) -> None:
    rows = list(csv.reader(io.StringIO(done.stdout, newline="")))
    assert len({len(cells) for cells in rows}) == 1, name
    assert len(rows) > len(WORDS), name
    for cell in (cell for cells in rows for cell in cells):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (name, cell)


class Tags(HTMLParser):
    """What a browser takes for markup."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{tag} {name}" for name, _ in attrs)}

    def handle_comment(self, data: str) -> None:
        self.found.add("comment")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_is_text_in_a_page_and_in_a_spreadsheet(dsn: str, tmp_path: Path) -> None:
    done = run("report", "--since", "2026-11-01", "--output", str(tmp_path / "report"), "--dsn", dsn)
    assert done.code == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert all(line.isprintable() for line in page.split("\n"))
    tags = Tags()
    tags.feed(page)
    assert tags.found == {
        "html", "html lang", "head", "meta", "meta charset", "meta http-equiv", "meta content", "title", "style", "body",
        "h1", "h2", "table", "tr", "th", "td", "p", "pre",
    }  # fmt: skip
    assert WORDS["html"] in tags.text
    text = (tmp_path / "report.csv").read_bytes().decode()
    for cells in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
