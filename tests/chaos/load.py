"""The load of a chaos run: ``python -m tests.chaos.load DSN --seed N --rate TPS``, until its standard input ends.

Most transactions are short and made of few statements in one round trip, so that generating them costs little; beside them two
sessions of the random workload do everything else that the trail must record. Every second a JSON line says how many
transactions had which outcome. Nothing is kept of what was done: the oracle in the source is what knows.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import psycopg

from tests.support.workload import Workload

_SESSIONS = 4
_ODD_PAUSE = 0.1  # seconds after each transaction of the random workload
_CATCH_UP = 5.0  # seconds of missed turns that are made up for after an outage
_OPTIONS = "-c deadlock_timeout=50ms -c lock_timeout=3s"
_ROLLED_BACK = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
    psycopg.IntegrityError,
)
_USERS = ("alice", "bob", "carol", "u42", "nurse 7", "batch")


def insert(random: Random) -> str:
    number = random.randint(1, 9999)
    return (
        f"insert into app.things (name, qty, price, doc, note) values"
        f" ('n{number}', {number}, {number}.50, '{{\"k\": {number}}}', 'made')"
    )


def update(random: Random) -> str:
    row = f"(select max(id) - {random.randint(0, 300)} from app.things)"
    return f"update app.things set qty = {random.randint(1, 9999)}, note = 'changed' where id = {row}"


def delete(random: Random) -> str:
    some = "select id from app.things order by id limit 3 for update skip locked"
    return f"delete from app.things where id in ({some})"


def upsert(random: Random) -> str:
    item = f"'item {random.randint(1, 400)}'"
    return (
        f"insert into app.stock (item, qty) values ({item}, 1)"
        f" on conflict (item) do update set qty = stock.qty + {random.randint(1, 5)}"
    )


def order(random: Random) -> str:
    code = f"'c{random.randint(1, 200)}'"
    return (
        f"insert into app.customers values ({code}, 'somebody') on conflict do nothing;"
        f" insert into app.orders (customer, total) values ({code}, {random.randint(1, 99999)}.99)"
    )


def settle_orders(random: Random) -> str:
    some = "select id from app.orders order by id limit 2 for update skip locked"
    return f"delete from app.orders where id in ({some})"


def undone(random: Random) -> str:
    return f"savepoint s; {insert(random)}; rollback to savepoint s; {upsert(random)}"


def nothing(random: Random) -> str:
    """Changes no table: a transaction that the stream only touches."""
    return "select pg_current_xact_id()"


STEPS: dict[Callable[[Random], str], int] = {
    insert: 30, update: 30, delete: 10, upsert: 15, order: 8, settle_orders: 5, undone: 5, nothing: 3
}  # fmt: skip


def context(random: Random) -> str:
    """Says who acts, and notes for the oracle that it was said; in one transaction of ten nobody says."""
    user, draw = random.choice(_USERS), random.random()
    if draw < 0.1:
        return ""
    said = json.dumps({"user_id": user, "request_id": f"r{random.randint(1, 10**6)}"})
    trust = "signed" if draw < 0.7 else "asserted"
    call = (
        "cdc_audit.set_context("
        if trust == "signed"
        else "pg_logical_emit_message(true, 'cdc_audit.context', "
    )
    note = f"insert into oracle.claim (claimed_user, trust) values ('{user}', '{trust}')"
    return f"select {call}'{said}'); {note}; "


def transaction(random: Random) -> tuple[str, bool]:
    """Its statements, and whether it is committed."""
    steps = random.choices(list(STEPS), list(STEPS.values()), k=random.randint(1, 2))
    body = context(random) + "; ".join(step(random) for step in steps)
    is_committed = random.random() >= 0.03
    return f"begin; {body}; {'commit' if is_committed else 'rollback'}", is_committed


class Session:
    """One connection that does ``rate`` transactions a second, made anew when it breaks."""

    def __init__(self, dsn: str, random: Random, rate: float, stopping: threading.Event) -> None:
        self._dsn = dsn
        self._random = random
        self._interval = 1 / rate
        self._stopping = stopping
        self.outcomes: Counter[str] = Counter()

    def work(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, options=_OPTIONS) as connection:
                    while not self._stopping.is_set():
                        due = self._turn(due)
                        self._work_on(connection)
            except psycopg.OperationalError as error:
                self.outcomes[type(error).__name__] += 1
                self._stopping.wait(0.1)

    def _turn(self, due: float) -> float:
        """Wait for the moment of the next transaction; the moment of the one after it."""
        now = time.monotonic()
        if due > now:
            self._stopping.wait(due - now)
        return max(due, now - _CATCH_UP) + self._interval

    def _work_on(self, connection: psycopg.Connection) -> None:
        text, is_committed = transaction(self._random)
        try:
            connection.execute(text.encode())
        except _ROLLED_BACK:
            connection.execute("rollback")
            self.outcomes["conflict"] += 1
        else:
            self.outcomes["committed" if is_committed else "rolled back"] += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--seed", required=True)
    parser.add_argument("--rate", type=float, required=True)
    given = parser.parse_args()
    stopping = threading.Event()
    sessions = [
        Session(given.dsn, Random(f"{given.seed}/load/{n}"), given.rate / _SESSIONS, stopping)
        for n in range(_SESSIONS)
    ]
    odd = Workload(
        given.dsn,
        seed=Random(given.seed).randrange(10**6),
        transactions=10**9,
        sessions=2,
        events=True,
        pause=_ODD_PAUSE,
    )

    def say() -> None:
        outcomes = sum((one.outcomes for one in sessions), Counter[str]())
        print(json.dumps({**outcomes, "committed": outcomes["committed"] + odd.committed}), flush=True)

    threads = [threading.Thread(target=session.work) for session in sessions]
    odd.start()
    for thread in threads:
        thread.start()
    watching = threading.Thread(target=_until_input_ends, args=(stopping,), daemon=True)
    watching.start()
    while not stopping.wait(1):
        say()
    odd.stop()
    odd.join()
    for thread in threads:
        thread.join()
    say()


def _until_input_ends(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


if __name__ == "__main__":
    main()
