"""What a statement is, as far as who acts is concerned: told by its first word, else by a search for others.

Not a parser. Where it can't tell, it says that something may be written: a context in a transaction that only reads is lawful,
costs a statement, and does no harm. A function that writes can't be told from one that reads: name it
(``configure(functions=...)``). A text that begins with BEGIN is taken for no more than that.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache

# Their placeholders differ from driver to driver; ``{}`` stands for one.
SAY = "select cdc_audit.set_context(cast({} as text))"
LOG_EVENT = (
    "select cdc_audit.log_event(cast({} as text), cast({} as text), cast({} as text),"
    " cast(cast({} as text) as jsonb), cast({} as boolean))"
)
# ready, standby (nothing can be written there), or missing: installed or not, and may this role call it? One row.
PROBE = (
    "select case when pg_is_in_recovery() then 'standby' when exists ("
    " select from pg_namespace n join pg_proc p on p.pronamespace = n.oid"
    " where n.nspname = 'cdc_audit' and p.proname = 'set_context' and p.pronargs = 1"
    " and p.proargtypes[0] = cast('text' as regtype)"
    " and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')"
    ") then 'ready' else 'missing' end"
)


class Kind(Enum):
    """What a statement does to the tables, or to the transaction."""

    READ = auto()
    WRITE = auto()  # can stand in a transaction of its own with a context before it
    MAYBE = auto()  # may write, and may be one that refuses to run inside of a transaction
    BOUND = auto()  # a transaction ends or begins
    ROLLBACK_TO = auto()  # what was said since a savepoint is gone


_KINDS = {
    **dict.fromkeys(("insert", "update", "delete", "merge", "truncate"), Kind.WRITE),
    **dict.fromkeys(
        ("select", "values", "table", "show", "set", "reset", "fetch", "move", "close", "listen", "unlisten"),
        Kind.READ,
    ),
    **dict.fromkeys(("notify", "declare", "deallocate", "discard", "lock", "vacuum", "analyze"), Kind.READ),
    **dict.fromkeys(("checkpoint", "savepoint", "release", "explain", ""), Kind.READ),
    **dict.fromkeys(("begin", "start", "commit", "end", "abort", "rollback"), Kind.BOUND),
}
_FIRST_WORD = re.compile(
    r"(?:\s|;|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*([a-z]*)\s*([a-z]*)", re.IGNORECASE | re.DOTALL
)
_WRITES = re.compile(r"\b(insert|update|delete|merge|truncate|copy)\b", re.IGNORECASE)
_INTO = re.compile(r"\binto\b", re.IGNORECASE)
_TO = re.compile(r"\bto\b", re.IGNORECASE)
_FROM = re.compile(r"\bfrom\b", re.IGNORECASE)
_ANALYZE = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
# Of a long text (rows bound by the driver) only so much is looked at for its kind.
_LOOKED_AT = 20_000

_functions: re.Pattern[str] | None = None


def count_as_writing(names: tuple[str, ...]) -> None:
    """From here on a SELECT that calls a function of one of these names (without schema) counts as a write."""
    global _functions  # noqa: PLW0603  (a process has one set)
    alternatives = "|".join(map(re.escape, names))
    _functions = re.compile(rf'\b({alternatives})"?\s*\(', re.IGNORECASE) if names else None
    _kind_of.cache_clear()


def kind_of(statement: str) -> Kind:
    """What it is; of several statements in one text, what they are together."""
    kind = _kind_of(statement[:_LOOKED_AT])
    if kind is Kind.READ and len(statement) > _LOOKED_AT and _WRITES.search(statement, _LOOKED_AT):
        return Kind.WRITE
    return kind


@lru_cache(maxsize=2048)
def _kind_of(statement: str) -> Kind:
    words = _FIRST_WORD.match(statement)
    assert words is not None
    first, second = words[1].lower(), words[2].lower()
    kind = _KINDS.get(first, Kind.MAYBE)
    if first == "rollback" and _TO.search(statement):
        kind = Kind.ROLLBACK_TO
    elif first == "prepare":
        kind = Kind.BOUND if second == "transaction" else Kind.READ
    elif first == "copy":
        kind = _of_copy(statement[words.end(1) :].lstrip())
    elif first == "with":
        kind = Kind.WRITE if _WRITES.search(statement) or _calls(statement) else Kind.READ
    elif first == "select":
        kind = Kind.WRITE if _calls(statement) or _INTO.search(statement) else Kind.READ
    elif first == "explain" and _ANALYZE.search(statement) and _WRITES.search(statement):
        kind = Kind.WRITE
    if kind is Kind.READ and ";" in statement.rstrip().rstrip(";") and _WRITES.search(statement):
        return Kind.WRITE
    return kind


def _of_copy(what: str) -> Kind:
    """COPY of a query writes where that does, COPY of a table where rows come FROM somewhere."""
    pattern = _WRITES if what.startswith("(") else _FROM
    return Kind.WRITE if pattern.search(what) else Kind.READ


def _calls(statement: str) -> bool:
    return _functions is not None and _functions.search(statement) is not None
