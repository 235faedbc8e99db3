"""What the configuration calls suspicious, found in the facts of durable blocks. Pure.

A finding is a run: rows of one key (what a rule keeps apart) of which more than the limit lie within the window. It is told once,
at its beginning, and is over when for a whole window the limit was not exceeded. ``cdc-audit suspicious`` finds the same runs in
the stored trail by SQL (``trail/sql/suspicious.sql``).

A block is looked at after its COMMIT, so none is looked at twice, whatever is received again; a daemon killed in between looks at
it never. What is remembered begins with the daemon and is bounded: the key that was quiet for longest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cdc_audit.model.alert import Fact, SuspiciousAlert
from cdc_audit.model.observer import Observer
from cdc_audit.model.pattern import table_glob
from cdc_audit.model.rule import SuspiciousRule

_MOST_REMEMBERED = 100_000  # moments or addresses, of each rule
_NEVER = float("-inf")
# What no user does: a copy of the present rows, a context that came late.
_NOT_DONE = frozenset({"SNAPSHOT", "CONTEXT"})
_ACTIONS = {
    "deletions": frozenset({"DELETE", "TRUNCATE"}),
    "reads": frozenset({"SELECT", "READ"}),
    "ddl": frozenset({"DDL"}),
}


class Suspicion:
    """The rules, and what each remembers."""

    def __init__(self, rules: Iterable[SuspiciousRule], most_remembered: int = _MOST_REMEMBERED) -> None:
        self._most_remembered = most_remembered
        self._watched: list[_Watched] = []
        self.use(rules)

    def use(self, rules: Iterable[SuspiciousRule]) -> None:
        """Other rules for the blocks to come. One that is the same as before goes on with what it remembers."""
        known = {one.rule: one for one in self._watched}
        self._watched = [known.get(rule) or _Watched(rule, self._most_remembered) for rule in rules]
        self._asked: dict[tuple[str, str], list[_Watched]] = {}

    @property
    def forgotten(self) -> int:
        """Keys forgotten, for want of room, within their window: what they would have become is only found by the command."""
        return sum(one.memory.forgotten for one in self._watched)

    def tell(self, facts: Mapping[Fact, int], block: int, observer: Observer) -> None:
        """``look``, and tell what was found. Raises nothing: an alert is no reason to stop the trail."""
        before = self.forgotten
        try:
            found = self.look(facts, block)
        except Exception as error:
            observer.warned("suspicion_failed", reason=type(error).__name__)
            return
        for alert in found:
            observer.suspicious(alert)
        if self.forgotten > before:
            remedy = "shorten the windows of rules; cdc-audit suspicious forgets nothing"
            observer.warned("suspicion_forgets", remedy=remedy)

    def look(self, facts: Mapping[Fact, int], block: int) -> list[SuspiciousAlert]:
        """What begins with the facts of a durable block, each true of so many rows; to be called for each block in turn."""
        found: list[SuspiciousAlert] = []
        asked = self._asked
        for fact, rows in facts.items():
            asking = asked.get(fact[4:])  # table and action
            if asking is None:
                asking = self._asking(*fact[4:])
            if asking:
                at = _seconds(fact[0])
                for one in asking:
                    counted = one.take(fact, at, rows)
                    if counted:
                        found.append(one.alert(fact, counted, block))
        return found

    def _asking(self, table: str, action: str) -> list[_Watched]:
        """The rules that ask about such rows."""
        if len(self._asked) >= _MOST_REMEMBERED:
            self._asked.clear()
        asking = self._asked[table, action] = [one for one in self._watched if one.asks(table, action)]
        return asking


class _Watched:
    """One rule, and what it remembers. ``take`` gives the rows within the window if a finding begins with a fact, else 0."""

    take: Callable[[Fact, int, int], int]

    def __init__(self, rule: SuspiciousRule, most_remembered: int) -> None:
        self.rule = rule
        self._schemas, self._tables = table_glob(rule.table)
        self._ignored = frozenset(rule.ignore_users) - {""}
        begin, end = rule.hours.split("-")
        self._is_usual = lru_cache(maxsize=1000)(_Usual(begin, end, rule.days, rule.time_zone))
        if rule.kind == "new_address":
            self.memory: _Runs | _Addresses = _Addresses(rule.span, most_remembered)
            self._is_new = self.memory.is_new
        else:
            self.memory = _Runs(rule.limit, rule.span, most_remembered)
            self._add = self.memory.add
        self.take = {
            "bulk": self._take_bulk,
            "new_address": self._take_address,
            "outside_hours": self._take_hours,
            "no_context": self._take_without_context,
            "ddl": self._take_ddl,
        }.get(rule.kind, self._take_of_user)

    def asks(self, table: str, action: str) -> bool:
        """Whether rows of this table and action count."""
        schema, _, name = table.partition(".")
        actions = _ACTIONS.get(self.rule.kind)
        is_action = action in actions if actions else action not in _NOT_DONE
        if self.rule.kind == "no_context" and action == "DDL":
            return False
        return is_action and bool(self._schemas.fullmatch(schema) and self._tables.fullmatch(name))

    def _take_bulk(self, fact: Fact, at: int, rows: int) -> int:
        _, user, _, _, table, action = fact
        return 0 if user in self._ignored else self._add((user, table, action), at, rows)

    def _take_of_user(self, fact: Fact, at: int, rows: int) -> int:
        return 0 if fact[1] in self._ignored else self._add(fact[1], at, rows)

    def _take_ddl(self, fact: Fact, at: int, rows: int) -> int:
        return 0 if fact[1] in self._ignored else self._add((fact[1], fact[4]), at, rows)

    def _take_without_context(self, fact: Fact, at: int, rows: int) -> int:
        return 0 if fact[3] else self._add(fact[4], at, rows)

    def _take_hours(self, fact: Fact, at: int, rows: int) -> int:
        minute, user = fact[0][:16], fact[1]
        if not user or self._is_usual(minute) or user in self._ignored:
            return 0
        return self._add(user, at, rows)

    def _take_address(self, fact: Fact, at: int, rows: int) -> int:
        _, user, address, *_ = fact
        is_asked = user and address and user not in self._ignored
        return rows if is_asked and self._is_new(user, address, at) else 0

    def alert(self, fact: Fact, rows: int, block: int) -> SuspiciousAlert:
        """The alert that a finding begins with this fact: what the rule does not keep apart is left out."""
        at, user, address, _, table, action = fact
        kind = self.rule.kind
        return SuspiciousAlert(
            self.rule.label,
            kind,
            user if kind != "no_context" else "",
            address if kind == "new_address" else "",
            table if kind in {"bulk", "ddl", "no_context"} and table != "." else "",  # DDL may be of no table
            action if kind == "bulk" else "",
            rows,
            at,
            block,
        )


class _Run:
    """Rows of one key by second, as far back as they decide anything."""

    __slots__ = ("exceeded_at", "moments", "total")

    def __init__(self) -> None:
        self.moments: deque[tuple[int, int]] = deque()
        self.total = 0
        self.exceeded_at = _NEVER


class _Runs:
    """Rows by key within a window. Of each key only so many are kept as it takes to exceed the limit."""

    def __init__(self, limit: int, span: int, most_remembered: int) -> None:
        self._limit, self._span, self._most = limit, span, most_remembered
        self._runs: OrderedDict[Hashable, _Run] = OrderedDict()
        self._size = 0
        self.forgotten = 0

    def add(self, key: Hashable, at: int, rows: int) -> int:
        """The rows within the window if a run begins with these, else 0."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run()
        else:
            self._runs.move_to_end(key)
        self._put(run, at, rows)
        result = 0
        if run.total > self._limit:
            if abs(at - run.exceeded_at) > self._span:
                result = run.total
            run.exceeded_at = at
        self._forget(at)
        return result

    def _put(self, run: _Run, at: int, rows: int) -> None:
        moments = run.moments
        if moments and moments[-1][0] > at + self._span:  # the clock was set back
            self._size -= len(moments)
            moments.clear()
            run.total = 0
        if moments and moments[-1][0] >= at:  # commits may come a moment out of order
            at, before = moments.pop()
            moments.append((at, before + rows))
        else:
            moments.append((at, rows))
            self._size += 1
        run.total += rows
        while moments[0][0] < at - self._span or run.total - moments[0][1] > self._limit:
            run.total -= moments.popleft()[1]
            self._size -= 1

    def _forget(self, now: int) -> None:
        while self._size > self._most and len(self._runs) > 1:
            _, run = self._runs.popitem(last=False)
            self._size -= len(run.moments)
            self.forgotten += run.moments[-1][0] >= now - self._span


class _Addresses:
    """When a user was last seen, and from which address. The first address that is seen of a user is not new."""

    def __init__(self, span: int, most_remembered: int) -> None:
        self._span, self._most = span, most_remembered
        self._users: OrderedDict[str, int] = OrderedDict()
        self._pairs: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.forgotten = 0

    def is_new(self, user: str, address: str, at: int) -> bool:
        """Whether the user was seen within the span, but not from there; from now on that is known."""
        last, last_here = self._users.get(user, _NEVER), self._pairs.get((user, address), _NEVER)
        self._remember(self._users, user, at)
        self._remember(self._pairs, (user, address), at)
        return at - last_here > self._span >= at - last

    def _remember(
        self, known: OrderedDict[str, int] | OrderedDict[tuple[str, str], int], key: object, at: int
    ) -> None:
        known[key] = at  # type: ignore[index]
        known.move_to_end(key)  # type: ignore[arg-type]
        if len(known) > self._most:
            _, last = known.popitem(last=False)
            self.forgotten += last >= at - self._span


class _Usual:
    """Whether a minute (in UTC, 2026-11-22 19:19) lies within the usual hours."""

    _DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

    def __init__(self, begin: str, end: str, days: Iterable[str], zone: str) -> None:
        self._begin, self._end, self._zone = begin, end, ZoneInfo(zone)
        self._days = {self._DAYS.index(day) for day in days}

    def __call__(self, minute: str) -> bool:
        there = datetime.fromisoformat(f"{minute}+00:00").astimezone(self._zone)
        return there.weekday() in self._days and self._begin <= f"{there:%H:%M}" < self._end


@lru_cache(maxsize=4096)
def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())
