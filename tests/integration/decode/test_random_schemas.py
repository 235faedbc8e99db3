"""Random schemas, random changes and random DDL in between: each line says what triggers saw.

No daemon: the slot is read by SQL with the daemon's options, a schema at a time, so the catalog is always newer than the changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest

from cdc_audit.join.joiner import Joiner
from cdc_audit.model.event import Begin, Commit, Event
from cdc_audit.seal.lines import LineWriter
from tests.integration.decode.two_slots import Transaction, TwoSlots
from tests.support.databases import drop_slots
from tests.support.random_schemas import ORACLE, RandomSchema, Seen
from tests.support.servers import Server

SCHEMAS = 200
TRANSACTIONS = 7
_ESCAPED = re.compile(r"\\(.)")
_CONTROLS = {"b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "N": "\\N"}


class Line(NamedTuple):
    """The fields of a line that a trigger can know."""

    op: str
    leaf: str
    record_id: str | None
    old: str | None
    new: str | None
    changed: str | None
    capture: str
    toast: str | None


class Place(NamedTuple):
    app: psycopg.Connection
    slots: TwoSlots


@pytest.fixture(scope="module")
def place(source_cluster: Server) -> Iterator[Place]:
    name = source_cluster.create_database()
    dsn = source_cluster.dsn(name)
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as app:
        app.execute(ORACLE.encode())
        try:
            yield Place(app, TwoSlots(dsn, name, exclude=("oracle.*",)))
        finally:
            drop_slots(source_cluster, name)


def lines(transactions: list[Transaction]) -> list[Line]:
    """What the writer makes of these transactions' rows."""
    joiner, writer = Joiner(), LineWriter()
    written: list[bytes] = []
    for transaction in transactions:
        begin = Begin(transaction.xid, transaction.end_lsn, transaction.committed_at)
        events: list[Event | None] = [begin, *transaction.events, Commit(transaction.end_lsn)]
        for stretch in joiner.join(events, 0, ""):
            writer.write(
                stretch.transaction, stretch.context, stretch.changes,
                first_id=1, first_seq=1, lines=written, leaves=[],
            )  # fmt: skip
    return [_read(line) for line in b"".join(written).splitlines()]


def _read(line: bytes) -> Line:
    fields = [_plain(field) for field in line.decode().rstrip("\n").split("\t")]
    table, partition = fields[3], fields[19]
    return Line(
        str(fields[5]), str(partition or table), fields[4], fields[6], fields[7], fields[8], str(fields[17]), fields[18]
    )  # fmt: skip


def _plain(field: str) -> str | None:
    if field == r"\N":
        return None
    return _ESCAPED.sub(lambda match: _CONTROLS.get(match[1], match[1]), field)


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _parsed(image: str | None) -> Any:
    return None if image is None else json.loads(image, parse_int=_Number, parse_float=_Number)


def _is_record(record_id: str | None, seen: Seen, columns: list[str]) -> bool:
    """Whether a record_id is the text of these columns' values, or an array of their texts."""
    values = [_parsed(seen.old or seen.new)[column] for column in columns]
    if len(values) < 2:
        return _is_text(record_id, values[0]) if values else record_id is None
    texts = json.loads(record_id or "[]")
    return len(texts) == len(values) and all(map(_is_text, texts, values))


def _is_text(text: str | None, value: Any) -> bool:
    if value is None or isinstance(value, str):
        return text == value
    return bool(_parsed(text) == value)


def _is_suppressed(seen: Seen) -> bool:
    return seen.op != "INSERT" and seen.identity != "f" and not seen.identity_columns


def _check(seen: Seen, line: Line, *, knows_key: bool) -> str:
    """What is wrong with a line, or "". pgoutput doesn't send the primary key: the catalog's may be newer than the row."""
    if (line.op, line.leaf) != (seen.op, seen.leaf):
        return "another change"
    if seen.identity == "f" or seen.op == "INSERT":
        if (line.old, line.new) != (seen.old, seen.new):
            return "another image"
        if line.capture != "full":
            # Of a table that has got columns since: it looks as if its identity were a key or index over what it had.
            return "not full" if seen.key and set(_parsed(seen.old)) > set(seen.key) else ""
        if knows_key and not _is_record(line.record_id, seen, seen.key):
            return "another record_id"
        return ""
    old, new = _parsed(line.old), _parsed(line.new)
    whole_old, whole_new = _parsed(seen.old), _parsed(seen.new)
    if old != {column: whole_old[column] for column in seen.identity_columns}:
        return "another key"
    is_whole = set(seen.identity_columns) == set(whole_old)  # an index over all columns looks like FULL
    columns = seen.key or ([] if is_whole and line.capture == "full" else seen.identity_columns)
    if knows_key and set(seen.key) <= set(old) and not _is_record(line.record_id, seen, columns):
        return "another record_id"
    if line.capture != "partial" and not is_whole:
        return f"captured {line.capture}"
    if new is not None:
        absent = set(whole_new) - set(new)
        if any(whole_new[column] != whole_old[column] or len(whole_new[column]) < 500 for column in absent):
            return "a value is missing"
        if {**whole_new, **new} != whole_new:
            return "another image"
        if any(column.replace('"', '\\"') not in (line.toast or "") for column in absent):
            return "missing values aren't named"
    return ""


@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_random_changes_of_random_schemas_are_what_triggers_saw(place: Place, plugin: str) -> None:
    """200 schemas by each plugin; what has no replica identity is left to other tests."""
    refused = compared = 0
    place.slots.skip(place.app)  # the other plugin's schemas, if they came first
    for number in range(SCHEMAS):
        # A publication takes a table's updates only once it is brought in step with an identity that allows them.
        dice, keeps_identity = Random(f"schema {number}"), plugin == "pgoutput"
        schema = RandomSchema(place.app, f"{plugin}_{number}", dice, keeps_identity=keeps_identity)
        if plugin == "pgoutput":
            place.slots.publish(place.app)
        schema.work(TRANSACTIONS)
        wanted = [seen for seen in schema.seen() if not _is_suppressed(seen)]
        read = place.slots.by_wal2json if plugin == "wal2json" else place.slots.by_pgoutput
        found = [line for line in lines(read()) if line.op != "TRUNCATE" and line.capture != "suppressed"]
        for seen, line in zip(wanted, found, strict=False):
            wrong = _check(seen, line, knows_key=plugin == "wal2json")
            assert not wrong, f"schema {number}: {wrong}\n{seen}\n{line}"
        assert len(wanted) == len(found), f"schema {number}"
        compared += len(wanted)
        refused += schema.refused
        schema.drop()
    print(f"{compared} changes compared, {refused} statements refused")
    assert compared > 10 * SCHEMAS
