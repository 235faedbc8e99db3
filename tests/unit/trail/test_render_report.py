"""An auditor's report is safe whatever the trail holds."""

from __future__ import annotations

import csv
from html.parser import HTMLParser

from cdc_audit.trail import render_report
from cdc_audit.trail.report import Section

HOSTILE = "</td><script>alert(1)</script>\x1b[2J\u202e=cmd\r\n\x00"
SECTIONS = [
    Section("actors", ("user", "rows"), [(HOSTILE, "1"), ("=1+1", "2"), ('a "b", c', "3")]),
    Section("gaps", ("block",), []),
]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "style", "onload"}
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_in_the_data_is_markup_and_nothing_is_loaded() -> None:
    page = _Tags()
    page.feed(render_report.html(HOSTILE, SECTIONS, f"verified\n{HOSTILE}"))
    assert set(page.tags) == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "table", "tr", "th", "td", "p", "pre",
    }  # fmt: skip
    assert page.text.count("alert(1)") == 4
    assert not [char for char in page.text if not char.isprintable() and char != "\n"]


def test_no_cell_is_a_formula_and_csv_reads_back() -> None:
    rows = list(csv.reader(f"{line}\n" for line in render_report.csv(SECTIONS, "=verified")))
    assert rows[0] == ["actors", "user", "rows"]
    assert rows[3] == ["actors", 'a "b", c', "3"]
    assert rows[-1] == ["verification", "'=verified"]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
