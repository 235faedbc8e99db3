"""Random tables, random changes and random DDL in between, and what triggers saw of it: pure SQL on one connection."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import psycopg

ORACLE = """
create schema oracle;
create table oracle.seen (
    n bigint generated always as identity, op text, leaf text, identity text,
    key text[], identity_columns text[], old jsonb, new jsonb);
-- The table's identity and key as they are when the row changes
create function oracle.note() returns trigger language plpgsql security definer set search_path = pg_catalog
set timezone = 'UTC' set extra_float_digits = 3 as $$
begin
    insert into oracle.seen (op, leaf, identity, key, identity_columns, old, new)
    select tg_op, tg_table_name, c.relreplident::text,
        coalesce((select array_agg(a.attname::text order by a.attnum) from pg_index i join pg_attribute a
            on a.attrelid = c.oid and a.attnum = any (i.indkey) where i.indrelid = c.oid and i.indisprimary), '{}'),
        coalesce((select array_agg(a.attname::text order by a.attnum) from pg_index i join pg_attribute a
            on a.attrelid = c.oid and a.attnum = any (i.indkey) where i.indrelid = c.oid and i.indisvalid
            and case c.relreplident when 'd' then i.indisprimary and i.indimmediate when 'i' then i.indisreplident end), '{}'),
        case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end
    from pg_class c where c.oid = tg_relid;
    return null;
end $$;
create schema kinds;
create type kinds.mood as enum ('ok', 'so so', 'qu"ote');
create type kinds.pair as (a int, "b B" text);
create domain kinds.positive as int check (value > 0);
create domain kinds.doc as jsonb;
"""

_TEXTS = (
    "''",
    "'a'",
    "'say \"x\"'",
    "e'back\\\\\\\\slash\\n\\t'",
    "'é日😀'",
    "'{a,b}'",
    "'null'",
    "',\"value\":1}'",
)
_LONG = "(select string_agg(md5(random()::text), '') from generate_series(1, 90))"


def _number(dice: Random) -> str:
    return dice.choice(
        ("0", "1.50", "-0.00", "12345678901234567890.10", str(dice.randint(-999, 999)), "1e-10")
    )


# Type -> an expression for a value
KINDS: dict[str, Callable[[Random], str]] = {
    "int": lambda dice: str(dice.randint(-9, 9)),
    "bigint": lambda dice: str(dice.randint(-(2**63), 2**63 - 1)),
    "numeric": _number,
    "numeric(12,3)": lambda dice: str(dice.randint(-(10**8), 10**8)),
    "float8": lambda dice: dice.choice(("0.1", "1e300", "'-0'", "-2.5", "1e-7", "123456789.123")),
    "real": lambda dice: dice.choice(("0.1", "1e30", "-2.5")),
    "bool": lambda dice: dice.choice(("true", "false")),
    "text": lambda dice: dice.choice(_TEXTS),
    "varchar(40)": lambda dice: dice.choice(_TEXTS),
    "char(5)": lambda dice: dice.choice(("'a'", "''", "'é'")),
    "bytea": lambda dice: dice.choice(("'\\x00ff'", "''", "'\\x5c22'")),
    "date": lambda dice: dice.choice(("'2024-02-29'", "'infinity'", "'0044-03-15 BC'")),
    "timestamp": lambda dice: dice.choice(("'2024-02-29 01:02:03.5'", "'-infinity'", "'10000-01-01'")),
    "timestamptz": lambda dice: dice.choice(("now()", "'2024-02-29 01:02:03.5+05:30'", "'infinity'")),
    "interval": lambda _: "'1 year -2 days 03:04:05.6'",
    "uuid": lambda dice: f"'{dice.getrandbits(128):032x}'",
    "inet": lambda dice: dice.choice(("'10.0.0.1/8'", "'::1'")),
    "json": lambda dice: dice.choice(('\'{"b" : 1.50, "a":[1e2]}\'', "'null'", "'\"x\"'")),
    "jsonb": lambda dice: dice.choice(('\'{"bb": 1.50, "a":{"é":null}}\'', "'null'", "'[]'")),
    "int[]": lambda dice: dice.choice(("'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'")),
    "text[]": lambda dice: f"array[{dice.choice(_TEXTS)}, null, {dice.choice(_TEXTS)}]",
    "numeric[]": lambda dice: f"array[{_number(dice)}, 'NaN']",
    "kinds.mood": lambda dice: dice.choice(("'ok'", "'so so'", "'qu\"ote'")),
    "kinds.pair": lambda dice: f"row({dice.randint(0, 9)}, {dice.choice(_TEXTS)})::kinds.pair",
    "kinds.pair[]": lambda dice: f"array[row(1, {dice.choice(_TEXTS)})::kinds.pair, null]",
    "kinds.positive": lambda dice: str(dice.randint(1, 9)),
    "kinds.doc": lambda _: "'{\"n\": 1.10}'",
    "int4range": lambda dice: dice.choice(("'[1,5)'", "'empty'")),
    "bit(3)": lambda _: "'101'",
    "money": lambda _: "1234.5",
}
_KEYS = ("int", "bigint", "text", "uuid", "numeric", "date", "varchar(40)", "kinds.positive")
_NAMES = (
    "id",
    "v",
    "Name",
    "a b",
    'q"q',
    "é",
    "value",
    "name",
    "typeoid",
    "x,y",
    "compassion",
    "b",
    "c",
    "d",
    "col{}",
)


class Seen(NamedTuple):
    """What a trigger saw: ``identity`` is pg_class.relreplident, images are texts."""

    op: str
    leaf: str
    identity: str
    key: list[str]
    identity_columns: list[str]
    old: str | None
    new: str | None


class RandomSchema:
    """One schema full of random tables. Statements that the server refuses are undone: chance writes some.

    With ``keeps_identity`` every table has a usable replica identity, and DDL leaves it alone.
    """

    def __init__(
        self, connection: psycopg.Connection, name: str, dice: Random, *, keeps_identity: bool = False
    ) -> None:
        self._keeps_identity = keeps_identity
        self.name = name
        self._connection = connection
        self._dice = dice
        self._tables: list[str] = []
        self.refused = 0
        connection.execute(f"create schema {name}")
        connection.execute(f"set search_path = {name}, public")
        for number in range(dice.randint(1, 3)):
            self._make_table(f"t{number}")

    def work(self, transactions: int) -> None:
        """Random transactions of random steps, some rolled back in part."""
        for _ in range(transactions):
            with self._connection.transaction():
                for _ in range(self._dice.randint(1, 6)):
                    self._try(self._step(self._dice.choice(self._tables)))

    def seen(self) -> list[Seen]:
        """All that triggers noted, in order; forgotten afterwards."""
        rows = self._connection.execute(
            "select op, leaf, identity, key, identity_columns, old::text, new::text from oracle.seen order by n"
        ).fetchall()
        self._connection.execute("truncate oracle.seen")
        return [Seen(*row) for row in rows]

    def drop(self) -> None:
        self._connection.execute(f"drop schema {self.name} cascade")

    def _make_table(self, table: str) -> None:
        dice = self._dice
        names = dice.sample(_NAMES, dice.randint(1, 8))
        key = names[: dice.choice((0, 1, 1, 1, 2, 3))]
        columns = [f"{_quoted(name)} {dice.choice(_KEYS if name in key else list(KINDS))}" for name in names]
        dice.shuffle(columns)
        clause = f", primary key ({', '.join(map(_quoted, dice.sample(key, len(key))))})" if key else ""
        partitioned = dice.random() < 0.2
        if partitioned:
            columns.append("part int default 0")
            clause = clause.replace("primary key (", "primary key (part, ")
        self._run(
            f"create table {table} ({', '.join(columns)}{clause})" + " partition by list (part)" * partitioned
        )
        leaves = [table]
        if partitioned:
            leaves = [f"{table}_{part}" for part in range(2)]
            for part, leaf in enumerate(leaves):
                self._run(f"create table {leaf} partition of {table} for values in ({part})")
        for leaf in leaves:
            identity = dice.choice(("full", "full", "full", "default"))
            identity = "full" if self._keeps_identity and not key else identity
            self._run(f"alter table {leaf} replica identity {identity}")
            for name, kind in self._columns(leaf):
                if kind == "text" and dice.random() < 0.5:
                    self._run(f"alter table {leaf} alter {_quoted(name)} set storage external")
        self._run(
            f"create trigger note after insert or update or delete on {table} for each row execute function oracle.note()"
        )
        self._tables.append(table)

    def _step(self, table: str) -> str:
        dice = self._dice
        columns = self._columns(table)
        kind = dice.randrange(20)
        if kind < 7 or not columns:
            return self._insert(table, columns)
        some = dice.sample(columns, dice.randint(1, min(3, len(columns))))
        sets = ", ".join(f"{_quoted(name)} = {self._value(kind)}" for name, kind in some)
        where = f"where ctid in (select ctid from {table} order by random() limit {dice.randint(1, 3)})"
        if kind < 12:
            return f"update {table} set {sets} {where}"
        if kind == 12:
            name = _quoted(some[0][0])
            return f"update {table} set {name} = {name}"
        if kind < 15:
            return f"delete from {table} {where}"
        if kind == 15:
            return f"savepoint inner; update {table} set {sets}; rollback to savepoint inner"
        return self._ddl(table, columns)

    def _insert(self, table: str, columns: list[tuple[str, str]]) -> str:
        if not columns:
            return f"insert into {table} default values"
        names = ", ".join(_quoted(name) for name, _ in columns)
        rows = [
            "(" + ", ".join(self._value(kind) for _, kind in columns) + ")"
            for _ in range(self._dice.randint(1, 3))
        ]
        return f"insert into {table} ({names}) values {', '.join(rows)} on conflict do nothing"

    def _value(self, kind: str) -> str:
        if self._dice.random() < 0.12:
            return "null"
        if kind == "text" and self._dice.random() < 0.2:
            return _LONG
        make = KINDS.get(kind)
        return f"({make(self._dice)})::{kind}" if make else "default"

    def _ddl(self, table: str, columns: list[tuple[str, str]]) -> str:
        dice = self._dice
        name, _ = dice.choice(columns)
        new = f"n{dice.randrange(1000)}"
        kind = dice.choice(list(KINDS))
        leaf = f"{table}_{dice.randrange(2)}" if self._is_partitioned(table) else table
        if not self._keeps_identity and dice.random() < 0.3:
            return dice.choice(
                (
                    f"alter table {leaf} replica identity {dice.choice(('full', 'default', 'full', 'nothing'))}",
                    f"alter table {table} drop constraint {table}_pkey",
                    _by_index(leaf, new, _quoted(name)),
                )
            )
        return dice.choice(
            (
                f"alter table {table} add column {new} {kind}",
                f"alter table {table} add column {new} {kind} default ({KINDS[kind](dice)})::{kind}",
                f"alter table {table} drop column {_quoted(name)}",
                f"alter table {table} rename column {_quoted(name)} to {new}",
                f"alter table {table} alter {_quoted(name)} type text using {_quoted(name)}::text",
                f"alter table {table} add primary key ({_quoted(name)})",
                f"alter table {table} alter {_quoted(name)} drop not null",
                f"truncate {table}",
            )
        )

    def _columns(self, table: str) -> list[tuple[str, str]]:
        """Names and types of the columns, as they are now."""
        return self._connection.execute(
            "select attname::text, case when format_type(atttypid, atttypmod) in ('integer', 'boolean', 'double precision')"
            " then typname::text else format_type(atttypid, atttypmod) end"
            " from pg_attribute a join pg_type t on t.oid = a.atttypid"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
            (table,),
        ).fetchall()

    def _is_partitioned(self, table: str) -> bool:
        query = "select relkind = 'p' from pg_class where oid = %s::regclass"
        row: Any = self._connection.execute(query, (table,)).fetchone()
        return bool(row[0])

    def _try(self, statement: str) -> None:
        try:
            with self._connection.transaction():
                self._run(statement)
        except psycopg.Error:
            self.refused += 1

    def _run(self, statement: str) -> None:
        self._connection.execute(statement.encode())


def _by_index(table: str, index: str, column: str) -> str:
    made = f"alter table {table} alter {column} set not null; create unique index {index}_{table} on {table} ({column})"
    return f"{made}; alter table {table} replica identity using index {index}_{table}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
