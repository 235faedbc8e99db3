"""The steps of the random workload: each is a function that changes something in an open transaction.

Ids are guessed by position (the first one at or above a random number), so a step may also hit nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from psycopg import Cursor
from psycopg.sql import SQL, Composed, Identifier

from tests.support import random_values as values

_REGIONS = ("north", "south", "east", "west")
_ODD = '"Odd Schema"."Or""der\'s, ÄÖ"'


@dataclass(slots=True)
class Hand:
    """What a step works with: an open transaction, its random numbers, and what the server can do."""

    cursor: Cursor
    rng: Random
    server_version: int
    keys: int = 400

    def key(self) -> int:
        """A small number that several sessions are likely to choose, too."""
        return self.rng.randint(1, self.keys)

    def run(self, statement: str | Composed, *params: object) -> None:
        """Execute one statement."""
        self.cursor.execute(statement, params)


def insert_thing(hand: Hand) -> None:
    _insert(hand, "things", values.thing(hand.rng))


def update_thing(hand: Hand) -> None:
    row = values.thing(hand.rng)
    some = hand.rng.sample(list(row), hand.rng.randint(1, 4))
    sets = SQL(", ").join(SQL("{} = %s").format(Identifier(name)) for name in some)
    where = "where id = (select id from app.things where id >= %s order by id limit 1)"
    hand.run(
        SQL("update app.things set {} ").format(sets) + SQL(where), *(row[name] for name in some), hand.key()
    )


def touch_long_thing(hand: Hand) -> None:
    """The 9 kB value stays as it is, so the server doesn't send it. A few rows, however many there are by now."""
    hand.run(
        "update app.things set qty = %s where id in"
        " (select id from app.things where id >= %s and length(body) > 8000 order by id limit 3)",
        hand.key(),
        hand.key(),
    )


def no_op_update(hand: Hand) -> None:
    hand.run("update app.things set name = name where id between %s and %s", *(2 * [hand.key()]))


def delete_thing(hand: Hand) -> None:
    hand.run(
        "delete from app.things where id = (select id from app.things where id >= %s limit 1)", hand.key()
    )


def change_key(hand: Hand) -> None:
    hand.run(
        "update app.things set id = nextval('app.things_id_seq'), note = 'moved'"
        " where id = (select id from app.things where id >= %s order by id limit 1)",
        hand.key(),
    )


def bulk(hand: Hand) -> None:
    start, count = hand.key(), hand.rng.randint(2, 40)
    if hand.rng.random() < 0.6:
        hand.run(
            "insert into app.things (name, qty, price) select 'bulk ' || g, g, g / 8.0"
            " from generate_series(1, %s) g",
            count,
        )
    elif hand.rng.random() < 0.5:
        hand.run(
            "update app.things set flag = not flag where id between %s and %s",
            start,
            start + count,
        )
    else:
        hand.run(
            "delete from app.things where id between %s and %s and name like 'bulk%%'", start, start + count
        )


def copy_things(hand: Hand) -> None:
    rows = [values.thing(hand.rng) for _ in range(hand.rng.randint(1, 12))]
    names = SQL(", ").join(map(Identifier, rows[0]))
    with hand.cursor.copy(SQL("copy app.things ({}) from stdin").format(names)) as copy:
        for row in rows:
            copy.write_row(list(row.values()))


def upsert_pair(hand: Hand) -> None:
    pairs = hand.rng.randint(1, 3)
    for _ in range(pairs):
        hand.run(
            "insert into app.pairs values (%s, %s, %s) on conflict (a, b) do update set v = excluded.v",
            hand.key() % 20,
            hand.rng.choice(("x", 'q"\\', "ü, ö", "")),
            values.text(hand.rng),
        )


def change_pair(hand: Hand) -> None:
    where = "where a = %s and b = %s"
    key = (hand.key() % 20, hand.rng.choice(("x", 'q"\\', "ü, ö", "")))
    if hand.rng.random() < 0.5:
        hand.run(f"update app.pairs set a = a + 1000, b = b || 'y' {where}", *key)
    else:
        hand.run(f"delete from app.pairs {where}", *key)


def order(hand: Hand) -> None:
    code = f"c{hand.key() % 60}"
    hand.run("insert into app.customers values (%s, %s) on conflict do nothing", code, values.text(hand.rng))
    hand.run(
        "with o as (insert into app.orders (customer, total)"
        " select %s, g * 1.10 from generate_series(1, %s) g returning id)"
        " insert into app.lines select id, p, 'item ' || p from o, generate_series(1, %s) p",
        code,
        hand.rng.randint(1, 3),
        hand.rng.randint(0, 3),
    )


def rename_customer(hand: Hand) -> None:
    """ON UPDATE CASCADE: the orders follow."""
    hand.run(
        "update app.customers set code = code || '+' where code like %s and length(code) < 9",
        f"c{hand.key() % 60}%",
    )


def delete_customers(hand: Hand) -> None:
    """ON DELETE CASCADE, two levels deep, sometimes from several rows at once."""
    hand.run("delete from app.customers where code like %s", f"c{hand.key() % 60}%")


def read(hand: Hand) -> None:
    long = values.body(hand.rng) if hand.rng.random() < 0.2 else None
    hand.run(
        "insert into app.readings (region, value, body) select r, %s, %s from unnest(%s::text[]) r",
        values.numeric(hand.rng),
        long,
        hand.rng.choices(_REGIONS, k=hand.rng.randint(1, 4)),
    )


def move_reading(hand: Hand) -> None:
    """A row that moves to another partition is a DELETE there and an INSERT here."""
    hand.run(
        "update app.readings set region = %s, value = value + 1 where region = %s and id between %s and %s",
        hand.rng.choice(_REGIONS),
        hand.rng.choice(_REGIONS),
        *sorted((hand.key(), hand.key())),
    )


def change_readings(hand: Hand) -> None:
    start = hand.key()
    if hand.rng.random() < 0.6:
        hand.run("update app.readings set value = value * 2 where id between %s and %s", start, start + 10)
    else:
        hand.run("delete from app.readings where id between %s and %s", start, start + 10)


def merge_stock(hand: Hand) -> None:
    if hand.server_version < 150000:
        upsert_pair(hand)
        return
    hand.run(
        "merge into app.stock s using (select 'item ' || (g %% 30) as item, sum(g)::int as qty"
        " from generate_series(%s::int, %s::int) g group by 1) n on s.item = n.item"
        " when matched and s.qty > 600 then delete"
        " when matched then update set qty = s.qty + n.qty, seen = now()"
        " when not matched then insert values (n.item, n.qty, null)",
        (start := hand.key()),
        start + hand.rng.randint(0, 20),
    )


def scratch(hand: Hand) -> None:
    """A table without any key, and rows that move to another table in one statement."""
    hand.run("insert into app.scratch values (%s, %s)", hand.key(), values.text(hand.rng))
    if hand.rng.random() < 0.3:
        hand.run(
            "with gone as (delete from app.scratch where id %% 5 = %s returning *)"
            " insert into app.archive select * from gone",
            hand.key() % 5,
        )


def odd_names(hand: Hand) -> None:
    key = hand.key() % 30
    hand.run(
        f"insert into {_ODD} values (%s, %s, %s, %s)"
        ' on conflict ("The Key") do update set "a.b" = excluded."a.b"',
        key,
        values.text(hand.rng),
        values.document_text(hand.rng),
        None,
    )
    if hand.rng.random() < 0.2:
        hand.run(f'delete from {_ODD} where "The Key" = %s', hand.key() % 30)


def short_identity(hand: Hand) -> None:
    """The default replica identity: old images hold the key only, long values that stay aren't sent."""
    kind = hand.rng.randrange(5)
    one = "where id = (select id from app.short where id >= %s order by id limit 1)"
    if kind < 2:
        long = values.body(hand.rng) if hand.rng.random() < 0.4 else None
        _insert(
            hand, "short", {"name": values.text(hand.rng), "body": long, "price": values.numeric(hand.rng)}
        )
    elif kind == 2:
        hand.run(f"update app.short set price = %s {one}", values.numeric(hand.rng), hand.key() % 40)
    elif kind == 3:
        hand.run(f"update app.short set id = nextval('app.short_id_seq') {one}", hand.key() % 40)
    else:
        hand.run(f"delete from app.short {one}", hand.key() % 40)


def loose(hand: Hand) -> None:
    """No usable replica identity: the change is known, its row isn't."""
    hand.run("insert into app.loose values (%s, %s)", hand.key() % 40, values.text(hand.rng))
    if hand.rng.random() < 0.5:
        hand.run("update app.loose set text = 'changed' where id = %s", hand.key() % 40)
    if hand.rng.random() < 0.3:
        hand.run("delete from app.loose where id = %s", hand.key() % 40)


def truncate(hand: Hand) -> None:
    what = (
        "app.scratch, app.archive",
        "app.customers cascade",
        "app.readings",
        "app.readings_south",
    )
    hand.run(f"truncate {hand.rng.choice(what)}")


STEPS: dict[Callable[[Hand], None], int] = {
    insert_thing: 14,
    update_thing: 14,
    touch_long_thing: 4,
    no_op_update: 3,
    delete_thing: 5,
    change_key: 4,
    bulk: 4,
    copy_things: 3,
    upsert_pair: 6,
    change_pair: 4,
    order: 8,
    rename_customer: 3,
    delete_customers: 3,
    read: 7,
    move_reading: 4,
    change_readings: 4,
    merge_stock: 5,
    scratch: 5,
    odd_names: 4,
    short_identity: 6,
    truncate: 1,
}


def _insert(hand: Hand, table: str, row: dict[str, object]) -> None:
    names = SQL(", ").join(map(Identifier, row))
    marks = SQL(", ").join([SQL("%s")] * len(row))
    hand.run(
        SQL("insert into app.{} ({}) values ({})").format(Identifier(table), names, marks), *row.values()
    )
