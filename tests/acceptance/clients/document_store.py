"""A document store's changes as events of the trail, many in a transaction, on one PostgreSQL connection.

They come from a file of events in the form of MongoDB's change stream (relaxed Extended JSON, one a line), since no MongoDB is
to be had where the tests run; a real one's ``collection.watch(resume_after=token)`` gives the same. Where to resume is kept in the
database, by the same transaction that tells of the changes: so each is told once, however often this process dies. MongoDB's
events don't say who acted: the application keeps that in the document.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg

from cdc_audit.client import audit_context
from cdc_audit.client.psycopg import log_event

BATCH = 100
FEED = "create table if not exists document_feed (name text primary key, token text not null)"
RESUME = "select token from document_feed where name = 'shop'"
KEEP = """
insert into document_feed values ('shop', %s) on conflict (name) do update set token = excluded.token"""


def changes(path: Path, token: str | None) -> Iterator[dict[str, Any]]:
    """The events after the one with this token, as ``watch`` gives them."""
    with path.open(encoding="utf-8") as lines:
        events = map(json.loads, lines)
        if token is not None:
            next(event for event in events if event["_id"]["_data"] == token)
        yield from events


def tell(db: psycopg.Connection[Any], event: dict[str, Any]) -> None:
    """One change: INSERT and the like are the database's own words, so it has others here."""
    document = event.get("fullDocument") or {}
    key = event["documentKey"]["_id"]
    record = key["$oid"] if isinstance(key, dict) and "$oid" in key else json.dumps(key)
    table = f"{event['ns']['db']}.{event['ns']['coll']}"
    action = f"DOCUMENT_{event['operationType'].upper()}"
    data = {"document": document or None, "changed": event.get("updateDescription"), "at": event["wallTime"]}
    with audit_context(user_id=document.get("changed_by"), store="mongodb"):
        try:
            log_event(db, action, table, record, data)
        except ValueError:  # over 8 kB: which document, and what proves its content, instead of half of it
            text = json.dumps(document, sort_keys=True).encode()
            proof = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest(), "at": event["wallTime"]}
            log_event(db, action, table, record, proof)


def main() -> None:
    dies_at = int(os.environ.get("CLIENTS_DIES_AT", "0"))
    told = 0
    with psycopg.connect(os.environ["CLIENTS_DSN"], autocommit=True) as db:
        db.execute(FEED)
        row = db.execute(RESUME).fetchone()
        events = changes(Path(sys.argv[1]), row[0] if row else None)
        while batch := list(islice(events, BATCH)):
            with db.transaction(), db.pipeline():
                for event in batch:
                    tell(db, event)
                    told += 1
                    if told == dies_at:
                        os._exit(9)
                db.execute(KEEP, (batch[-1]["_id"]["_data"],))


if __name__ == "__main__":
    main()
