"""What the source does before the slot is read: tables, and a number of row changes in them."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from cdc_audit.config import Batch
from cdc_audit.postgres import named_sql
from tests.bench.stage import Stage

SQL = named_sql("tests.bench", "workloads.sql")
UNSYNCED = "options='-c synchronous_commit=off'"  # added to a connection string


@dataclass(frozen=True)
class Workload:
    """``share``: its rows in proportion to the budget's. Rows are whole blocks of ``per_block``, so that the last one is closed
    when its last row comes and not when flush_interval is over.
    """

    name: str
    about: str
    share: float = 1.0
    per_block: int = Batch().max_rows
    rounds: int | None = None

    def rows(self, budget: int) -> int:
        """How many row changes, where the budget's workload has so many."""
        return max(1, round(budget * self.share / self.per_block)) * self.per_block

    def prepare(self, stage: Stage, dsn: str) -> None:
        """Make the tables, before ``cdc-audit init``."""
        with psycopg.connect(dsn, autocommit=True) as source:
            source.execute(SQL[self.name])

    def load(self, stage: Stage, dsn: str, rows: int) -> None:
        """Make so many row changes, after it."""
        with psycopg.connect(dsn, autocommit=True, options="-c synchronous_commit=off") as source:
            source.execute("call public.load(%s)", (rows,))


class TpcB(Workload):
    """pgbench's own: three updates and an insert in each transaction, no context."""

    _ROWS, _CLIENTS = 4, 4

    def prepare(self, stage: Stage, dsn: str) -> None:
        stage.tool("pgbench", "-i", "-q", "-s", "10", dsn)
        super().prepare(stage, dsn)

    def load(self, stage: Stage, dsn: str, rows: int) -> None:
        each = str(rows // self._ROWS // self._CLIENTS)
        stage.tool(
            "pgbench", "-n", "-M", "prepared", "-c", str(self._CLIENTS), "-t", each, f"{dsn} {UNSYNCED}"
        )


BUDGET = Workload("budget", "transactions of a context, 10 inserts and 10 updates; 6 columns")
ONE_ROW = Workload("one_row", "a context and one insert a transaction", share=0.25)
WORKLOADS = (
    BUDGET,
    Workload("wide", "the same with 40 columns", share=0.1),
    ONE_ROW,
    Workload("large_transaction", "one transaction of inserts", share=5, rounds=1),
    Workload(
        "large_values", "100 kB of text in each row, an insert and an update", share=0.005, per_block=50
    ),
    TpcB("tpcb", "pgbench TPC-B, without contexts", share=0.2),
)
