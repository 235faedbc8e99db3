"""What may be done with each month now, and why: what ``archive plan`` shows, and ``run`` and ``purge`` act upon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from psycopg import Connection

from cdc_audit.config import Config
from cdc_audit.model.retention import Hold, Month, Step, decide, due_at
from cdc_audit.schema.partitions import partitions
from cdc_audit.sink import holds, retirement
from cdc_audit.trail.archive_rows import covering
from cdc_audit.trail.archive_store import Lock, Store, open_store
from cdc_audit.trail.archived import Archived, archived, manifest_of, now


class Planned(NamedTuple):
    """A month, where its rows are (``database``, ``archive``; ``purged``: nowhere) and what may be done with it.

    In the audit database ``rows`` are estimated, and ``bytes`` are with indexes; in an archive, where only a month that is past
    ``keep`` is looked at, they are those of its file, else 0. ``name`` is the partition or the manifest.
    """

    month: str
    where: str
    name: str
    rows: int
    bytes: int
    step: Step
    why: str


def plan(audit: Connection, config: Config, *, needs_archive: bool = True) -> Iterator[Planned]:
    """What may be done with each month that has a partition, the oldest first; without ``needs_archive``: if none is archived."""
    schema, policy = config.audit.audit_schema, config.retention.policy
    at, in_force = now(audit), holds.in_force(audit, schema)
    for one in partitions(audit, schema):
        if one.lower is None:
            if one.rows:
                yield Planned("default", "database", one.name, one.rows, one.bytes, Step.KEEP, _OF_NO_MONTH)
            continue
        first = one.lower.date()
        month = Month(first, False, [])
        step = decide(month, policy, at, needs_archive=needs_archive)
        why = f"due {due_at(first, policy.hot if needs_archive else policy.keep):%Y-%m-%d}"
        if step is not Step.KEEP:
            held = retirement.covering(audit, schema, one.name, in_force)
            step = decide(month._replace(holds=held), policy, at, needs_archive=needs_archive)
            why = _under(held)
        yield Planned(f"{one.lower:%Y-%m}", "database", one.name, one.rows, one.bytes, step, why)


_OF_NO_MONTH = "rows of no month stay"


def plan_archived(audit: Connection, config: Config) -> Iterator[tuple[Archived, Planned]]:
    """The same of the months whose rows were taken out. The archives' place is asked about months past ``keep`` only.

    Raises CheckFailedError if such an archive is not what the ledger says, and as the store does.
    """
    schema = config.audit.audit_schema
    in_force, opened = holds.in_force(audit, schema), cache(lambda: open_store(config.retention.archive))
    policy, at = config.retention.policy, now(audit)
    for one in archived(audit, schema):
        month = Month(one.month, True, [])
        if one.purged:
            why = f"block {one.purged} of {one.purged_at:%Y-%m-%d} says so"
            yield one, Planned(one.name, "purged", one.manifest, one.rows, 0, Step.KEEP, why)
            continue
        step, why, size = (
            decide(month, policy, at),
            f"kept until {due_at(one.month, policy.keep):%Y-%m-%d}",
            0,
        )
        if step is not Step.KEEP:
            held, lock, size = _kept_by(opened, one, in_force)
            step = decide(month._replace(holds=held, locked_until=lock.until if lock else None), policy, at)
            why = "; ".join(filter(None, (_under(held), str(lock or ""))))
        yield one, Planned(one.name, "archive", one.manifest, one.rows, size, step, why)


def _under(held: list[int]) -> str:
    return f"under hold {', '.join(map(str, held))}" if held else ""


def _kept_by(
    opened: Callable[[], Store], one: Archived, in_force: list[Hold]
) -> tuple[list[int], Lock | None, int]:
    """The holds that cover rows of an archive, its file's lock, and its file's size."""
    store = opened()
    said = manifest_of(store, one)
    return covering(store, said, in_force), store.lock(said.rows_file.name), said.rows_file.bytes
