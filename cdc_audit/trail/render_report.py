"""The auditor's report as HTML that needs nothing else, and as CSV. Pure. Nothing in the data is markup or a formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from cdc_audit.trail.render import csv_cell, csv_line, shown
from cdc_audit.trail.report import Section

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 2em auto; max-width: 75em; color: #222; background: #fff }
table { border-collapse: collapse; margin-bottom: 2em } th, td { border: 1px solid #bbb; padding: .2em .6em; text-align: left }
th { background: #eee } td { overflow-wrap: anywhere; unicode-bidi: isolate }
pre { background: #f4f4f4; padding: 1em; white-space: pre-wrap }
"""


def html(title: str, sections: Sequence[Section], verification: str) -> str:
    """One document, without scripts and without anything from elsewhere. What isn't printed as itself is escaped as in the log."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_safe(title)}</h1>",
        *map(_table, sections),
        f"<h2>verification</h2>\n<pre>{chr(10).join(map(_safe, verification.splitlines()))}</pre>",
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def csv(sections: Sequence[Section], verification: str) -> Iterator[str]:
    """Lines of CSV: each starts with its section's title; a section's first line names its columns."""
    told = Section("verification", ("result",), [(line,) for line in verification.splitlines()])
    for section in (*sections, told):
        for row in (section.columns, *section.rows):
            yield csv_line([csv_cell(cell) for cell in (section.title, *row)])


def _table(section: Section) -> str:
    heading = f"<h2>{_safe(section.title)}</h2>"
    if not section.rows:
        return f"{heading}\n<p>none</p>"
    rows = ["".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in section.rows]
    head = "".join(f"<th>{_safe(name)}</th>" for name in section.columns)
    lines = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"{heading}\n<table>\n<tr>{head}</tr>\n{lines}\n</table>"


def _safe(text: str) -> str:
    return escape(shown(text))
