"""SQL text without the values in it. Not a parser: it knows where PostgreSQL's lexer begins and ends literals (scan.l)."""

from __future__ import annotations

import re

REDACTED = "?"

# One alternative a kind of token, in the order in which they are tried. Comments go with what they hold: tools put values
# into them. An unterminated literal or comment reaches to the end.
_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n\r]* )
  | (?P<block> /\* )
  | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
  | (?P<string> (?:\b(?:[bBnNxX]|[uU]&))?'(?:[^']|'')*(?:'|\Z) )
  | (?P<dollar> (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z) )
  | (?P<identifier> (?:\b[uU]&)?"(?:[^"]|"")*" )
  | (?P<unended> ".*\Z )
  | (?P<parameter> (?<![\w$])\$\d+ )
  | (?P<word> [^\W\d][\w$]* )
  | (?P<number> (?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?) )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_NAME = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
_COPIED = re.compile(
    rf"\s*copy\s+(?:binary\s+)?(?:only\s+)?({_NAME})(?:\s*\.\s*({_NAME}))?\s*(?:\(|to\b)", re.IGNORECASE
)


def without_values(statement: str) -> str:
    """The statement with ? for each string and number, and without comments. Names, also quoted ones, stay.

    Where it can't be told where a string ends (a backslash in a plain one means what standard_conforming_strings said in that
    session), nothing of what follows is kept. Raises nothing.
    """
    out: list[str] = []
    end = 0
    while match := _TOKEN.search(statement, end):
        out.append(statement[end : match.start()])
        end = match.end()
        kind = match.lastgroup if match.lastgroup != "tag" else "dollar"
        if kind == "block":
            end = _after_comment(statement, end)
            out.append(" ")
        elif kind == "comment":
            out.append(" ")
        elif kind in {"word", "identifier", "parameter"}:
            out.append(match.group())
        else:
            out.append(REDACTED)
            if kind == "string" and "\\" in match.group() and match.group()[:1] not in "uU":
                return "".join(out) + " ..."
    return "".join(out) + statement[end:]


def copied_table(statement: str) -> tuple[str, str] | None:
    """Schema ("" if it isn't said) and table of ``COPY table TO``; None if the statement is anything else."""
    match = _COPIED.match(statement)
    if match is None:
        return None
    first, second = _plain(match[1]), _plain(match[2] or "")
    return (first, second) if second else ("", first)


def split_name(name: str) -> tuple[str, str]:
    """Schema and object of a name as PostgreSQL quotes it (quote_qualified_identifier); ("", name) without a schema."""
    match = re.fullmatch(rf"({_NAME})\.({_NAME}).*", name, re.DOTALL)
    return (_plain(match[1]), _plain(match[2])) if match else ("", _plain(name))


def _plain(name: str) -> str:
    """What a name in SQL names: without its quotes, or in lower case."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name.lower()


def _after_comment(text: str, start: int) -> int:
    """Where a block comment ends, which may hold others."""
    depth, end = 1, start
    while depth and (edge := _COMMENT_EDGE.search(text, end)):
        depth += 1 if edge.group() == "/*" else -1
        end = edge.end()
    return end if not depth else len(text)
