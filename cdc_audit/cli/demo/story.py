"""The demo's story: what happens in the shop, and the trail that it leaves, row by row as it arrives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from psycopg import Connection

from cdc_audit.cli.demo import screen
from cdc_audit.cli.demo.process import DaemonProcess
from cdc_audit.cli.demo.shop import ANNA, BEN, CARLA, DORA, EMIL, WEB, Shop
from cdc_audit.errors import CheckFailedError
from cdc_audit.postgres import named_sql

CARTS = 120
_SHOWN = 3
_SQL = named_sql("cdc_audit.cli.demo", "sql/trail.sql")


@dataclass
class Story:
    """The acts in their order. ``trail`` reads the audit database, ``dba`` goes past the application."""

    shop: Shop
    dba: Connection
    trail: Connection
    daemon: DaemonProcess
    ids: dict[str, int] = field(default_factory=dict)
    _shown: int = 0

    def play(self) -> None:
        """All acts, each with the rows that it leaves in the trail."""
        for act in self._acts():
            act()
            self._follow()
            screen.pause()

    def _acts(self) -> list[Callable[[], None]]:
        return [
            self._two_customers,
            self._an_order_is_paid,
            self._two_people_in_one_transaction,
            self._an_address_changes,
            self._nobody_says_who,
            self._rolled_back,
            self._carts,
            self._a_bulk_delete,
            self._a_dba_by_hand,
        ]

    def _two_customers(self) -> None:
        screen.act("anna", "registers two customers")
        with self.shop.transaction(ANNA, "r-1001") as work:
            for person in (DORA, EMIL):
                name = person.user_id.capitalize()
                self.ids[person.user_id] = work.do("INSERT", "users", "register", name, person.email)

    def _an_order_is_paid(self) -> None:
        screen.act("dora", "orders a bicycle and pays for it")
        shipping = {"city": "Basel", "express": True}
        with self.shop.transaction(DORA, "r-1002") as work:
            order = work.do("INSERT", "orders", "order", self.ids["dora"], "bicycle", "1299.00", shipping)
            self.ids["payment"] = work.do("INSERT", "payments", "pay", order, "1299.00", "card")
            work.do("UPDATE", "orders", "set_status", "paid", order)
        self.ids["bicycle"] = order

    def _two_people_in_one_transaction(self) -> None:
        screen.act("emil", "orders a helmet; in the same transaction ben accepts it")
        with self.shop.transaction(EMIL, "r-1003") as work:
            order = work.do(
                "INSERT", "orders", "order", self.ids["emil"], "helmet", "79.90", {"city": "Bern"}
            )
            work.act_as(BEN, "r-1003")
            work.do("UPDATE", "orders", "set_status", "accepted", order)

    def _an_address_changes(self) -> None:
        screen.act("ben", "corrects Emil's e-mail address")
        with self.shop.transaction(BEN, "r-1004") as work:
            work.do("UPDATE", "users", "change_email", "emil@work.example", self.ids["emil"])

    def _nobody_says_who(self) -> None:
        screen.act("?", "a night job ships the bicycle; it was never taught to say who it is")
        with self.shop.transaction() as work:
            work.do("UPDATE", "orders", "set_status", "shipped", self.ids["bicycle"])

    def _rolled_back(self) -> None:
        screen.act("ben", "deletes all payments, sees what he has done, and rolls back")
        with self.shop.transaction(BEN, "r-1005", keep=False) as work:
            work.do("DELETE", "payments", "refund_all")

    def _carts(self) -> None:
        screen.act("web", f"{CARTS} carts are filled in the web shop, and abandoned")
        with self.shop.transaction(WEB, "r-1006") as work:
            work.do("INSERT", "orders", "carts", self.ids["dora"], CARTS)

    def _a_bulk_delete(self) -> None:
        screen.act("carla", f"deletes these {CARTS} orders at once")
        with self.shop.transaction(CARLA, "r-1007") as work:
            work.do("DELETE", "orders", "purge_carts")

    def _a_dba_by_hand(self) -> None:
        screen.act("?", "a database administrator, past the application: takes 100.00 off Dora's payment")
        self.shop.change_past_the_application(self.dba, "dba_fix", "payments", self.ids["payment"])

    def _follow(self, timeout: float = 15) -> None:
        """Show the rows of the trail as they arrive, until there are as many as were committed."""
        deadline = time.monotonic() + timeout
        fresh: list[tuple[object, ...]] = []
        while self._shown + len(fresh) < self.shop.changes:
            self.daemon.check()
            if time.monotonic() > deadline:
                raise CheckFailedError(
                    f"the trail has {self._shown + len(fresh)} rows instead of {self.shop.changes} "
                    f"after {timeout:.0f} s; the daemon says: {self.daemon.log_end()}"
                )
            time.sleep(0.02)
            fresh = self.trail.execute(_SQL["newest"], (self._shown,)).fetchall()
        if not fresh:
            screen.trail("nothing: what was rolled back never happened")
        _show(fresh)
        self._shown += len(fresh)


def _show(rows: list[tuple[object, ...]]) -> None:
    """The first rows of each kind, and how many more there are of it."""
    seen: Counter[tuple[object, ...]] = Counter()
    for number, at, action, table, record, user, trust, changed in rows:
        kind = (action, table, user)
        seen[kind] += 1
        if seen[kind] <= _SHOWN:
            who = f"{user} ({trust})" if user else f"unknown ({trust})"
            what = f"{action:<6} {table} {record}"
            screen.trail(f"{number:>3}  {at}  {what:<21} {who:<16} {changed}".rstrip())
    for (action, table, user), count in seen.items():
        if count > _SHOWN:
            screen.trail(f"     … and {count - _SHOWN} more: {action} {table} by {user}")
