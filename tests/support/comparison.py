"""Comparing what the triggers noted with what the trail holds: pure, and of its own making.

Two sources say what is right: what the triggers noted (``Noted``: the changes), and what a slot with
``test_decoding`` gives (``Skeleton``: the order of commits, and of the changes in each).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_EXAMPLES = 5

Leaf = tuple[
    str, str
]  # schema and name of the table that holds the row: a partition, where there are partitions
Step = tuple[str, Leaf]  # action and table


class Content(NamedTuple):
    """All of a change that must be equal on both sides; images are digests of their values, "" for none."""

    action: str
    table: str
    leaf: Leaf
    record_id: str
    old: str
    new: str
    changed: tuple[str, ...]
    capture: str
    toast: tuple[str, ...]


class Noted(NamedTuple):
    """What should be in the trail, of one transaction, in the order of n."""

    content: Content
    user: str
    trust: str


class Found(NamedTuple):
    """What is in the trail, of one transaction, in the order of id."""

    content: Content
    user: str
    trust: str
    id: int
    seq: int
    commit_lsn: int


class Skeleton(NamedTuple):
    """Transaction ids in commit order, and each one's changes in WAL order."""

    order: Sequence[int]
    steps: Mapping[int, Sequence[Step]]


@dataclass(slots=True)
class Difference:
    """How many rows differ, and in which way; ``rows`` and ``transactions`` say how much was compared."""

    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    reordered: int = 0
    misattributed: int = 0
    rows: int = 0
    transactions: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_none(self) -> bool:
        """Whether both sides are equal."""
        return not (self.lost or self.duplicated or self.wrong or self.reordered or self.misattributed)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a difference; the first few of a kind are kept for the message."""
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.examples[kind]) < _EXAMPLES:
            self.examples[kind].append(example)

    def __str__(self) -> str:
        counts = f"lost={self.lost} duplicated={self.duplicated} wrong={self.wrong} "
        counts += f"reordered={self.reordered} misattributed={self.misattributed} "
        counts += f"of {self.rows} rows in {self.transactions} transactions"
        lines = [f"  {kind}: {example}" for kind, some in self.examples.items() for example in some]
        return "\n".join([counts, *lines])


def compare_transactions(
    noted: Mapping[int, Sequence[Noted]], found: Mapping[int, Sequence[Found]], skeleton: Skeleton
) -> Difference:
    """Compare everything, keyed by transaction id."""
    result = Difference(rows=sum(map(len, noted.values())), transactions=len(noted))
    for xid in noted.keys() | found.keys():
        before = result.lost + result.duplicated + result.wrong
        _compare_contents(xid, noted.get(xid, ()), found.get(xid, ()), result)
        _compare_users(xid, noted.get(xid, ()), found.get(xid, ()), result)
        if before == result.lost + result.duplicated + result.wrong:
            _compare_order(xid, noted[xid], found[xid], skeleton, result)
    _compare_transaction_order(found, skeleton, result)
    return result


def _compare_contents(xid: int, noted: Sequence[Noted], found: Sequence[Found], result: Difference) -> None:
    wanted = Counter(row.content for row in noted)
    present = Counter(row.content for row in found)
    missing = list((wanted - present).elements())
    surplus = list((present - wanted).elements())
    for content in list(missing):
        # The same action on the same table with other values is one wrong row, not one lost and one invented.
        alike = (other for other in surplus if other[0] == content[0] and other.leaf == content.leaf)
        twin = next(alike, None)
        if twin is not None:
            missing.remove(content)
            surplus.remove(twin)
            result.add("wrong", f"xid {xid}: {_first_difference(content, twin)}")
    for content in missing:
        result.add("lost", f"xid {xid}: {content.action} {content.leaf} {content.record_id}")
    for content in surplus:
        kind = "duplicated" if content in wanted else "wrong"
        result.add(kind, f"xid {xid}: surplus {content.action} {content.leaf} {content.record_id}")


def _first_difference(wanted: Content, present: Content) -> str:
    fields = [name for name in Content._fields if getattr(wanted, name) != getattr(present, name)]
    pairs = ", ".join(f"{name} {getattr(wanted, name)!r} != {getattr(present, name)!r}" for name in fields)
    return f"{wanted.action} {wanted.leaf} {wanted.record_id}: {pairs}"


def _compare_users(xid: int, noted: Sequence[Noted], found: Sequence[Found], result: Difference) -> None:
    said: dict[Content, list[tuple[str, str]]] = defaultdict(list)
    for row in noted:
        said[row.content].append((row.user, row.trust))
    for present in found:
        if said[present.content]:
            user, trust = said[present.content].pop(0)
            if (user, trust) != (present.user, present.trust):
                what = f"{present.content.action} {present.content.leaf} seq {present.seq}"
                text = f"xid {xid}: {what}: {(user, trust)} != {(present.user, present.trust)}"
                result.add("misattributed", text)


def _compare_order(
    xid: int, noted: Sequence[Noted], found: Sequence[Found], skeleton: Skeleton, result: Difference
) -> None:
    """Within a transaction: the triggers know the order in each table, the skeleton that of their turns."""
    if [row.seq for row in found] != list(range(1, len(found) + 1)):
        result.add("reordered", f"xid {xid}: seq is {[row.seq for row in found][:20]}")
    steps = [(row.content.action, row.content.leaf) for row in found if row.content.capture != "event"]
    if steps != list(skeleton.steps.get(xid, ())):
        result.add("reordered", f"xid {xid}: {steps[:6]} != {list(skeleton.steps.get(xid, ()))[:6]}")
    if _by_leaf(row.content for row in noted) != _by_leaf(row.content for row in found):
        result.add("reordered", f"xid {xid}: rows of one table in another order")


def _by_leaf(contents: Iterable[Content]) -> dict[Leaf, list[Content]]:
    leaves: dict[Leaf, list[Content]] = defaultdict(list)
    for content in contents:
        leaves[content.leaf].append(content)
    return leaves


def _compare_transaction_order(
    found: Mapping[int, Sequence[Found]], skeleton: Skeleton, result: Difference
) -> None:
    rank = {xid: place for place, xid in enumerate(skeleton.order)}
    highest = -1
    for xid in sorted(found, key=lambda xid: found[xid][0].id):
        rows = found[xid]
        if rows[-1].id - rows[0].id + 1 != len(rows) or len({row.commit_lsn for row in rows}) != 1:
            result.add("reordered", f"xid {xid}: its rows don't stand together")
        if rank.get(xid, -1) < highest:
            result.add("reordered", f"xid {xid} stands after transactions that committed later")
        highest = max(highest, rank.get(xid, -1))
    ids = sorted(row.id for rows in found.values() for row in rows)
    if ids and (len(set(ids)) != len(ids) or ids[-1] - ids[0] + 1 != len(ids)):
        result.add("lost", f"ids are not dense: {len(set(ids))} of {ids[0]}..{ids[-1]}")
