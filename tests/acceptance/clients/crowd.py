"""Two users and eight workers: what every example application is driven by.

A transaction's number says what it does, see ``STEPS``; its user is drawn at random, so that a worker and its pooled connections
serve both. The environment says where (CLIENTS_DSN), how many transactions, and which steps, if not all.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

USERS = ("ann", "ben")
WORKERS = 8
STEPS: tuple[str, ...] = (
    "insert",  # after a read in the same transaction
    "insert_and_update",
    "read",
    "savepoint",  # what a nested block wrote first is rolled back, its context with it
    "retry",  # rolled back whole, and done again
    "alone",  # one statement, no transaction around it
    "two_users",  # one transaction, each row by another user
    "many",  # several rows by the bulk way of the driver
)
if os.environ.get("CLIENTS_STEPS"):
    STEPS = tuple(os.environ["CLIENTS_STEPS"].split(","))
TRANSACTIONS = int(os.environ.get("CLIENTS_TRANSACTIONS", "2000"))
DSN = os.environ.get("CLIENTS_DSN", "")
# In PgBouncer's transaction mode a prepared statement may be on another connection: psycopg's documentation asks for this.
BEHIND_POOLER = {"prepare_threshold": None} if os.environ.get("CLIENTS_BEHIND_POOLER") else {}


class UndoneError(Exception):
    """Raised by an application to have a block rolled back."""


def other(user: str) -> str:
    return USERS[1 - USERS.index(user)]


def plan(worker: int) -> list[tuple[str, str]]:
    """(user, step) of each of a worker's transactions."""
    draw = random.Random(worker)
    return [(draw.choice(USERS), STEPS[n % len(STEPS)]) for n in range(TRANSACTIONS // WORKERS)]


def work_in_threads(transaction: Callable[[str, str], None]) -> None:
    """Call it for every transaction, on eight threads at once."""
    start = threading.Barrier(WORKERS)

    def work(worker: int) -> None:
        start.wait(30)
        for user, step in plan(worker):
            transaction(user, step)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))


async def work_in_tasks(transaction: Callable[[str, str], Awaitable[None]]) -> None:
    """Await it for every transaction, in eight tasks at once."""

    async def work(worker: int) -> None:
        for user, step in plan(worker):
            await transaction(user, step)

    await asyncio.gather(*map(work, range(WORKERS)))
