"""The oracle's comparison finds every kind of difference: a checker that can't fail would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.comparison import Content, Difference, Found, Noted, Skeleton, compare_transactions

Trail = dict[int, list[Found]]


def _content(number: int, table: str = "t") -> Content:
    return Content("INSERT", table, ("app", table), str(number), "", f"image {number}", (), "full", ())


def _noted() -> dict[int, list[Noted]]:
    return {
        700: [Noted(_content(1), "alice", "signed"), Noted(_content(2), "bob", "asserted")],
        702: [Noted(_content(3, "u"), "", "none"), Noted(_content(4), "", "none")],
    }


def _trail() -> Trail:
    return {
        700: [
            Found(_content(1), "alice", "signed", 1, 1, 100),
            Found(_content(2), "bob", "asserted", 2, 2, 100),
        ],
        702: [
            Found(_content(3, "u"), "", "none", 3, 1, 200),
            Found(_content(4), "", "none", 4, 2, 200),
        ],
    }


_SKELETON = Skeleton(
    (700, 701, 702),
    {
        700: [("INSERT", ("app", "t")), ("INSERT", ("app", "t"))],
        702: [("INSERT", ("app", "u")), ("INSERT", ("app", "t"))],
    },
)


def _compare(trail: Trail) -> Difference:
    return compare_transactions(_noted(), trail, _SKELETON)


def test_equal_sides_have_no_difference() -> None:
    result = _compare(_trail())
    assert result.is_none, result
    assert (result.rows, result.transactions) == (4, 2)


def _lose_a_row(trail: Trail) -> None:
    trail[702].pop()


def _lose_a_transaction(trail: Trail) -> None:
    del trail[702]


def _leave_a_hole_in_the_ids(trail: Trail) -> None:
    trail[702] = [row._replace(id=row.id + 1) for row in trail[702]]


def _repeat_a_row(trail: Trail) -> None:
    trail[702].append(trail[702][1]._replace(id=5, seq=3))


def _repeat_a_transaction(trail: Trail) -> None:
    trail[702] += [row._replace(id=row.id + 2, commit_lsn=300) for row in trail[702]]


def _invent_a_row(trail: Trail) -> None:
    trail[702].append(Found(_content(9), "", "none", 5, 3, 200))


def _change_a_value(trail: Trail) -> None:
    trail[702][1] = trail[702][1]._replace(content=_content(4)._replace(new="image 5"))


def _record_what_was_rolled_back(trail: Trail) -> None:
    trail[701] = [Found(_content(9), "", "none", 5, 1, 300)]


def _swap_tables_in_a_transaction(trail: Trail) -> None:
    first, second = trail[702]
    trail[702] = [second._replace(id=3, seq=1), first._replace(id=4, seq=2)]


def _swap_rows_of_a_table(trail: Trail) -> None:
    first, second = trail[700]
    trail[700] = [
        first._replace(content=second.content, user=second.user, trust=second.trust),
        second._replace(content=first.content, user=first.user, trust=first.trust),
    ]


def _swap_transactions(trail: Trail) -> None:
    trail[700] = [row._replace(id=row.id + 2) for row in trail[700]]
    trail[702] = [row._replace(id=row.id - 2) for row in trail[702]]


def _mix_transactions(trail: Trail) -> None:
    trail[700][1] = trail[700][1]._replace(id=3)
    trail[702][0] = trail[702][0]._replace(id=2)


def _name_another_user(trail: Trail) -> None:
    trail[700][1] = trail[700][1]._replace(user="alice")


def _trust_too_much(trail: Trail) -> None:
    trail[700][1] = trail[700][1]._replace(trust="signed")


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_lose_a_row, "lost"),
        (_lose_a_transaction, "lost"),
        (_leave_a_hole_in_the_ids, "lost"),
        (_repeat_a_row, "duplicated"),
        (_repeat_a_transaction, "duplicated"),
        (_invent_a_row, "wrong"),
        (_change_a_value, "wrong"),
        (_record_what_was_rolled_back, "wrong"),
        (_swap_tables_in_a_transaction, "reordered"),
        (_swap_rows_of_a_table, "reordered"),
        (_swap_transactions, "reordered"),
        (_mix_transactions, "reordered"),
        (_name_another_user, "misattributed"),
        (_trust_too_much, "misattributed"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_each_difference_is_found(spoil: Callable[[Trail], None], kind: str) -> None:
    trail = _trail()
    spoil(trail)
    result = _compare(trail)
    assert getattr(result, kind) > 0, result
    assert result.examples[kind]
