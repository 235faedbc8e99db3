"""What the demo claims about the trail, each claim checked in the databases themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import psycopg
from psycopg import Connection

from cdc_audit.cli.demo import screen
from cdc_audit.cli.demo.shop import DORA, Shop
from cdc_audit.cli.demo.stage import SLOT, Stage
from cdc_audit.postgres import named_sql

_SQL = named_sql("cdc_audit.cli.demo", "sql/trail.sql")


@dataclass
class Claims:
    """Claims are printed as they are checked; ``failed`` counts those that aren't so."""

    shop: Shop
    payment: int
    failed: int = 0

    def about_the_trail(self, trail: Connection) -> None:
        """All that must hold while everything runs; ``trail`` reads the audit database."""
        rows = trail.execute(_SQL["tally"]).fetchall()
        tally = Counter({(table, action, user, trust): count for table, action, user, trust, count in rows})
        text = (
            f"all {self.shop.changes} committed changes are there, each once, under the name of who made it"
        )
        self._claim(
            text,
            tally == self.shop.committed,
            f"{dict(tally - self.shop.committed)} too many, {dict(self.shop.committed - tally)} missing",
        )

        found = trail.execute(_SQL["positions"]).fetchall()
        changes = self.shop.changes
        self._claim(
            f"they are numbered 1 to {changes}, without a hole",
            found == [(1, changes, changes, changes)],
            f"{found}",
        )

        left = tally["payments", "DELETE", "ben", "signed"]
        self._claim("of what was rolled back there is nothing", left == 0, f"{left} deleted payments")

        found = trail.execute(_SQL["origin"], (DORA.user_id,)).fetchall()
        wanted: list[tuple[object, ...]] = [("shop_app", "shop", DORA.ip_address, "r-1002")]
        text = (
            f"Dora's name is signed in the database: role shop_app, address {DORA.ip_address}, request r-1002"
        )
        self._claim(text, found == wanted, f"{found}")

        found = trail.execute(_SQL["dba_change"], (str(self.payment),)).fetchall()
        wanted = [("1299.00", "1199.00", ["amount"], "none", None)]
        self._claim(
            "the administrator's change by hand is there: amount 1299.00 -> 1199.00",
            found == wanted,
            f"{found}",
        )

        found = trail.execute(_SQL["secrets"]).fetchall()
        self._claim("no password hash has reached the trail", found == [(0,)], f"{found} rows with one")

    def about_tampering(self, stage: Stage) -> None:
        """Nobody may change a row: not the daemon's role, for want of the right, not even a superuser."""
        for key, who in (("AUDIT_DSN", "the daemon's own role"), ("AUDIT_ADMIN_DSN", "a superuser")):
            found = "it was changed"
            try:
                with psycopg.connect(stage.settings[key]) as connection:
                    connection.execute(_SQL["forge"])
                    connection.rollback()
            except psycopg.errors.InsufficientPrivilege:
                found = ""
            self._claim(f"an UPDATE of the trail by {who} is refused", not found, found)

    def about_the_stop(self, stage: Stage, trail: Connection, exit_code: int) -> None:
        """After SIGTERM."""
        self._claim("the daemon stopped cleanly: exit code 0", exit_code == 0, f"exit code {exit_code}")
        ledger = trail.execute(_SQL["ledger_end"]).fetchone()
        found = stage.source.execute(_SQL["slot_position"], (SLOT,), dbname="shop")
        assert ledger is not None
        text = f"the slot stands at {ledger[0]}, where the ledger ends: a restart loses and repeats nothing"
        self._claim(text, found == [(ledger[0], False)], f"slot at {found}")

    def about_the_proof(self, stage: Stage) -> None:
        """A clean trail is verified; one that was altered behind the triggers is not, and the row is named."""
        verify = ("verify", "--public-key", f"{stage.signing_key.name}.pub")
        stage.look(*verify)
        screen.command(
            "psql: switch the trail's triggers off, and make 1199.00 of that payment 1299.00 again"
        )
        with psycopg.connect(stage.settings["AUDIT_ADMIN_DSN"]) as superuser:
            superuser.execute(_SQL["switch_off"])
            row = superuser.execute(_SQL["cover_up"], (str(self.payment),)).fetchone()
        assert row is not None
        printed = stage.look(*verify, expected=1)
        self._claim(f"verify names row {row[0]}", f" {row[0]} " in f"{printed} ".replace("\n", " "), printed)

    def _claim(self, text: str, holds: bool, found: str) -> None:
        screen.claim(text, holds, found)
        self.failed += not holds
