"""Patterns of configuration: ``*`` stands for any characters, everything else for itself, case-sensitive."""

from __future__ import annotations

import re


def glob(text: str) -> re.Pattern[str]:
    """The compiled pattern; use ``fullmatch``."""
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


def table_glob(text: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The two compiled patterns of ``schema.table``: ``*`` doesn't reach across the dot."""
    schema, _, table = text.partition(".")
    return glob(schema), glob(table)
