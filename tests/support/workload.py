"""A random workload: several sessions at once that change tables in every way that the trail must record.

    Workload.install(dsn)                        # the tables, before the oracle is installed
    tally = Workload(dsn, seed=7, transactions=5000).run()

What each transaction claims about its user it notes in ``oracle.claim``, in the very place where it says it.
Sessions survive restarts of the server; a deadlock or a conflict is a rolled-back transaction.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg
from psycopg import Connection, Cursor

from tests.support.steps import STEPS, Hand, loose

SCHEMAS = ("app", "Odd Schema")

_USERS = ("alice", "bob", "carol", "dörte", "o'brien", 'quo"te', "back\\slash", "u42")
_ROLLED_BACK = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
    psycopg.IntegrityError,
)
_OPTIONS = "-c deadlock_timeout=50ms -c lock_timeout=3s -c timezone=Asia/Kolkata"


@dataclass(slots=True)
class Tally:
    """Transactions by outcome: committed, rolled back, conflict, or the error that broke a connection."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def committed(self) -> int:
        """Transactions whose COMMIT returned."""
        return self.outcomes["committed"]


class Workload:
    """``transactions`` are committed by ``sessions`` threads together, unless ``stop`` is called before.

    ``signed`` needs ``cdc_audit.set_context`` and ``events`` ``cdc_audit.log_event`` in the source;
    ``suppressed`` changes rows of a table without replica identity (wal2json only); ``pause`` seconds follow
    each transaction.
    """

    def __init__(
        self,
        dsn: str,
        *,
        seed: int,
        transactions: int,
        sessions: int = 4,
        signed: bool = True,
        events: bool = False,
        suppressed: bool = True,
        pause: float = 0.0,
    ) -> None:
        self.seed = seed
        self.tally = Tally()
        self._stopping = threading.Event()
        self._started = 0.0
        self._failures: list[BaseException] = []
        shares = [transactions // sessions + (number < transactions % sessions) for number in range(sessions)]
        steps = {**STEPS, loose: 5} if suppressed else STEPS
        self._sessions = [
            _Session(dsn, Random(f"{seed}/{number}"), share, steps, signed, events, pause, self._stopping)
            for number, share in enumerate(shares)
        ]
        self._threads = [threading.Thread(target=self._work, args=(session,)) for session in self._sessions]

    @staticmethod
    def install(dsn: str) -> None:
        """Make the tables."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))

    def start(self) -> None:
        """Begin to work, in threads."""
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def is_working(self) -> bool:
        """Whether a session still has transactions to do."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def committed(self) -> int:
        """Transactions committed so far."""
        return sum(session.outcomes["committed"] for session in self._sessions)

    def stop(self) -> None:
        """Let each session end after its current transaction."""
        self._stopping.set()

    def join(self) -> Tally:
        """Wait for the end. Raises what a session didn't expect."""
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        for session in self._sessions:
            self.tally.outcomes.update(session.outcomes)
        self.tally.seconds = time.monotonic() - self._started
        return self.tally

    def run(self) -> Tally:
        """Work to the end."""
        self.start()
        return self.join()

    def _work(self, session: _Session) -> None:
        try:
            session.work()
        except BaseException as error:  # raised again by join
            self._failures.append(error)
            self._stopping.set()


@dataclass(slots=True)
class _Session:
    dsn: str
    rng: Random
    transactions: int
    steps: dict[Callable[[Hand], None], int]
    signed: bool
    events: bool
    pause: float
    stopping: threading.Event
    outcomes: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        while self.outcomes["committed"] < self.transactions and not self.stopping.is_set():
            connection = self._connect()
            if connection is None:
                return
            try:
                self._work_on(connection)
            except psycopg.OperationalError as error:
                self.outcomes[type(error).__name__] += 1
            finally:
                connection.close()

    def _connect(self, timeout: float = 60) -> Connection | None:
        deadline = time.monotonic() + timeout
        while not self.stopping.is_set():
            try:
                return psycopg.connect(
                    self.dsn, options=_OPTIONS, application_name=f"workload {self.rng.random():.3f}"
                )
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        return None

    def _work_on(self, connection: Connection) -> None:
        while self.outcomes["committed"] < self.transactions and not self.stopping.is_set():
            try:
                with connection.cursor() as cursor:
                    self._fill(cursor, connection.info.server_version)
                if self.rng.random() < 0.1:
                    connection.rollback()
                    self.outcomes["rolled back"] += 1
                else:
                    connection.commit()
                    self.outcomes["committed"] += 1
            except _ROLLED_BACK:
                connection.rollback()
                self.outcomes["conflict"] += 1
            if self.pause:
                time.sleep(self.pause)

    def _fill(self, cursor: Cursor, server_version: int) -> None:
        """One transaction's worth: contexts, steps and savepoints, in a random order."""
        hand = Hand(cursor, self.rng, server_version)
        style = self.rng.choices(("none", "first", "late", "several", "end"), (15, 45, 12, 20, 8))[0]
        if style in ("first", "several"):
            self._say_who(hand)
        for _ in range(self.rng.randint(1, 5)):
            if self.rng.random() < 0.2:
                self._savepoint(hand)
            else:
                self._step(hand)
            if style == "several" and self.rng.random() < 0.5:
                self._say_who(hand)
        if style in ("late", "end"):
            self._say_who(hand)
        if style == "late":
            self._step(hand)

    def _savepoint(self, hand: Hand) -> None:
        """Some steps, perhaps with a context of their own, that are kept or undone together."""
        hand.run("savepoint s")
        if self.rng.random() < 0.5:
            self._say_who(hand)
        for _ in range(self.rng.randint(1, 3)):
            self._step(hand)
        hand.run("rollback to savepoint s" if self.rng.random() < 0.5 else "release savepoint s")

    def _step(self, hand: Hand) -> None:
        if self.events and self.rng.random() < 0.04:
            record = str(hand.key())
            hand.run("select cdc_audit.log_event('READ', 'app.things', %s, '{\"why\": \"asked\"}')", record)
            hand.run("insert into oracle.event (action, record_id) values ('READ', %s)", record)
            return
        self.rng.choices(list(self.steps), list(self.steps.values()))[0](hand)

    def _say_who(self, hand: Hand) -> None:
        user = self.rng.choice(_USERS)
        said = json.dumps({"user_id": user, "ip_address": "10.0.0.9", "request_id": f"r{hand.key()}"})
        trust = "signed" if self.signed and self.rng.random() < 0.7 else "asserted"
        if trust == "signed":
            hand.run("select cdc_audit.set_context(%s)", said)
        else:
            hand.run("select pg_logical_emit_message(true, 'cdc_audit.context', %s)", said)
        hand.run("insert into oracle.claim (claimed_user, trust) values (%s, %s)", user, trust)
