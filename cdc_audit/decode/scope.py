"""Which tables are audited: ``schema.table`` patterns with ``*``; what is excluded wins."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cdc_audit.model.pattern import table_glob

# The product's own schema in the source, the system's schemas: their changes are not the application's.
_NEVER = ("cdc_audit.*", "pg_catalog.*", "information_schema.*", "pg_toast.*")


class Scope:
    """A selection of tables. Patterns are case-sensitive; ``*`` stands for any characters within schema or table name."""

    def __init__(self, tables: Sequence[str] = ("*.*",), exclude: Sequence[str] = ()) -> None:
        self._tables = [table_glob(pattern) for pattern in tables]
        self._exclude = [table_glob(pattern) for pattern in (*exclude, *_NEVER)]

    def covers(self, *names: tuple[str, str]) -> bool:
        """Whether a table is audited that is known by these names: its own, and its root's if it is a partition."""
        if any(_matches(self._exclude, name) for name in names):
            return False
        return any(_matches(self._tables, name) for name in names)


def _matches(patterns: list[tuple[re.Pattern[str], re.Pattern[str]]], name: tuple[str, str]) -> bool:
    return any(schema.fullmatch(name[0]) and table.fullmatch(name[1]) for schema, table in patterns)
