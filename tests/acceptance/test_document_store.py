"""Changes of a store that isn't PostgreSQL, told to the trail in batches: each once and in order, also where the teller dies."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.databases import Databases, url
from tests.support.live import running

EVENTS = 450


def change_stream(seed: int) -> list[dict[str, Any]]:
    """Events in MongoDB's form: documents are made, changed and deleted, by two users; some are awkward."""
    draw = random.Random(seed)
    events: list[dict[str, Any]] = []
    for number in range(EVENTS):
        operation = draw.choice(["insert", "update", "replace", "delete"])
        document = {
            "_id": {"$oid": f"{number % 90:024x}"},
            "changed_by": draw.choice(["ann", "o'hara"]),
            "n": number,
        }
        if number == 7:
            document["note"] = "x" * 20_000
        if number == 8:
            document["note"] = "nul \0, a lone \ud800, a quote '); drop table document_feed; --"
        event: dict[str, Any] = {
            "_id": {"_data": f"82{number:08x}"},
            "operationType": operation,
            "ns": {"db": "shop", "coll": "carts"},
            "documentKey": {"_id": document["_id"]},
            "wallTime": {"$date": "2026-11-28T12:00:00Z"},
        }
        if operation != "delete":
            event["fullDocument"] = document
        if operation == "update":
            event["updateDescription"] = {"updatedFields": {"n": number}, "removedFields": []}
        events.append(event)
    return events


def tell(databases: Databases, path: Path, **more: str) -> int:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.acceptance.clients.document_store", str(path)],
        env={**os.environ, "CLIENTS_DSN": url(databases.source_dsn), **more},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 9), done.stderr[-3000:]
    return done.returncode


def test_each_change_of_a_document_store_is_an_event_once_and_in_order_though_the_teller_dies(
    databases: Databases, tmp_path: Path
) -> None:
    events = change_stream(1)
    path = tmp_path / "changes.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    with running(databases, tmp_path / "log") as live:
        assert tell(databases, path, CLIENTS_DIES_AT="230") == 9
        assert tell(databases, path, CLIENTS_DIES_AT="150") == 9
        assert tell(databases, path) == 0
        assert tell(databases, path) == 0  # there is nothing new
        live.settle()
        rows = live.audit.execute(
            "select action, schema_name || '.' || table_name, record_id, user_id, new_data, xid from audit.audit_logs"
            " where action like 'DOCUMENT%' order by id"
        ).fetchall()
    expected = [
        (
            f"DOCUMENT_{event['operationType'].upper()}",
            "shop.carts",
            event["documentKey"]["_id"]["$oid"],
            event.get("fullDocument", {}).get("changed_by"),
        )
        for event in events
    ]
    assert [row[:4] for row in rows] == expected
    assert len({row[5] for row in rows}) == -(-EVENTS // 100)
    numbers = [row[4].get("document") and row[4]["document"]["n"] for row in rows]
    whole = [event.get("fullDocument") and event["fullDocument"]["n"] for event in events]
    assert numbers[:7] + numbers[8:] == whole[:7] + whole[8:]
    text = json.dumps(events[7]["fullDocument"], sort_keys=True).encode()
    assert rows[7][4]["sha256"] == hashlib.sha256(text).hexdigest()
