"""The daemon's own work on a recorded stream, without any server: decode, decode and join, all three to finished lines.

The budget's messages are recorded once by the product's own stream, in the pieces in which it hands them on, and worked through
again and again in this process. What is measured is CPU time. A neighbour on the same machine slows that down, too, for some
milliseconds or for seconds, so it is taken bit by bit, and the figure to compare is the sum of what each bit took at its fastest.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import io
import pickle
import pstats
import time
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import psycopg

from cdc_audit.config import Batch
from cdc_audit.decode.pgoutput import PgOutputDecoder
from cdc_audit.decode.scope import Scope
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import UnknownTypeError
from cdc_audit.join.joiner import Joiner
from cdc_audit.model.catalog import Catalog
from cdc_audit.model.context import ContextKey
from cdc_audit.model.event import Decoded, Stretch
from cdc_audit.model.lsn import parse_lsn
from cdc_audit.pipeline import batch
from cdc_audit.pipeline.pump import Decoder
from cdc_audit.pipeline.spool import Spool
from cdc_audit.seal.block import NO_HASH
from cdc_audit.seal.builder import BlockBuilder
from cdc_audit.sink import ledger
from cdc_audit.source import publication
from cdc_audit.source.plugin_options import pgoutput_options, wal2json_options
from cdc_audit.source.sidecar import Sidecar
from cdc_audit.source.stream import Stream
from tests.bench.figures import Report
from tests.bench.stage import Stage
from tests.bench.workloads import BUDGET, SQL
from tests.support.daemon import initialised
from tests.support.databases import Databases

_REPEATS = 15
_BIT = 1000  # messages, give or take a piece: some milliseconds
_SHOWN = 30


Piece: TypeAlias = tuple[list[bytes], int]


class Recording(NamedTuple):
    """What a run needs: the pieces (messages, bytes on the wire), the signing keys, what the decoder asked of the catalog."""

    plugin: str
    rows: int
    pieces: list[Piece]
    keys: dict[str, ContextKey]
    catalog: Catalog

    @property
    def bits(self) -> Iterator[list[Piece]]:
        """The pieces, some thousand messages at a time."""
        bit: list[Piece] = []
        messages = 0
        for piece in self.pieces:
            bit.append(piece)
            messages += len(piece[0])
            if messages >= _BIT:
                yield bit
                bit, messages = [], 0
        if bit:
            yield bit


def run(stage: Stage) -> Report:
    """CPU microseconds a row, by stage."""
    recording = _recording(stage)
    report = Report(f"on {recording.rows:,} recorded rows, {recording.plugin}, {_REPEATS} repeats")
    repeats: dict[str, list[list[float]]] = {label: [] for label in _WORK}
    for number in range(_REPEATS):
        stage.say(f"recorded stream: {number + 1} of {_REPEATS}")
        for label, work in _WORK.items():
            repeats[label].append(_cpu_seconds(work(recording)))
    for label, found in repeats.items():
        report.add(label, "us/row", [sum(bits) / recording.rows * 1e6 for bits in found])
        least = sum(map(min, zip(*found, strict=True)))
        report.notes.append(f"{label}: each bit at its fastest {least / recording.rows * 1e6:.2f} us/row")
    return report


def profile(stage: Stage) -> Report:
    """The functions in which the time goes, by cProfile (which makes calls look dearer than they are)."""
    recording = _recording(stage)
    profiler = cProfile.Profile()
    profiler.runcall(_cpu_seconds, _seal(recording))
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(_SHOWN)
    report = Report(f"profile of decode, join and seal: {recording.rows:,} recorded rows, {recording.plugin}")
    report.notes += text.getvalue().strip().splitlines()
    return report


def _cpu_seconds(work: Iterator[None]) -> list[float]:
    """Of each bit of the work, in order."""
    gc.collect()
    bits: list[float] = []
    began = time.process_time()
    for _ in work:
        ended = time.process_time()
        bits.append(ended - began)
        began = ended
    return bits


def _decode(recording: Recording) -> Iterator[None]:
    decoder = _decoder(recording.plugin)
    for bit in recording.bits:
        for items, _ in bit:
            _events(decoder, items, recording.catalog)
        yield


def _join(recording: Recording) -> Iterator[None]:
    decoder, joiner = _decoder(recording.plugin), _joiner(recording)
    for bit in recording.bits:
        for items, size in bit:
            _joined(joiner, _events(decoder, items, recording.catalog), size)
        yield


def _seal(recording: Recording) -> Iterator[None]:
    decoder, joiner, settings = _decoder(recording.plugin), _joiner(recording), Batch()
    builder = BlockBuilder(ledger.before_genesis("1", "bench", 0), NO_HASH, timeline=1)
    handed_over = 0
    for bit in recording.bits:
        for items, size in bit:
            for stretch in _joined(joiner, _events(decoder, items, recording.catalog), size):
                builder.add(stretch)
                if builder.size - handed_over >= batch.CHUNK_BYTES:
                    handed_over = builder.size
                    builder.take()
                if stretch.ends and batch.is_full(settings, rows=builder.rows, size=builder.size):
                    builder.take()
                    builder.close(kind="data", written_at="2026-11-22 12:00:00+00")
                    handed_over = 0
        yield


_WORK = {"decode": _decode, "decode + join": _join, "decode + join + seal": _seal}


def _decoder(plugin: str) -> Decoder:
    return PgOutputDecoder(Scope()) if plugin == "pgoutput" else Wal2JsonDecoder(Scope())


def _joiner(recording: Recording) -> Joiner:
    joiner = Joiner()
    joiner.learn(recording.keys)
    return joiner


def _events(decoder: Decoder, items: list[bytes], catalog: Catalog) -> list[Decoded]:
    """As the pump does it; what the decoder asks for, once for each form of a line, is in the catalog."""
    events: list[Decoded] = []
    decode, decode_many = decoder.decode, decoder.decode_many
    position, count = 0, len(items)
    while position < count:
        try:
            while (position := decode_many(items, position, events, through_commits=True)) < count:
                events.append(decode(items[position]))
                position += 1
        except UnknownTypeError:
            decoder.learn(catalog)
    return events


def _joined(joiner: Joiner, events: list[Decoded], size: int) -> list[Stretch]:
    joiner.unknown_keys(events)
    return joiner.join(events, size, "")


def _recording(stage: Stage) -> Recording:
    """Made now, or read from ``--recording`` where such a file is; where there is none yet, it is made and kept there."""
    file = stage.options.recording
    if file is not None and file.exists():
        found: Recording = pickle.loads(file.read_bytes())
    else:
        stage.say("recording the budget's stream")
        with stage.databases() as databases:
            found = asyncio.run(_record(stage, databases))
        if file is not None:
            file.write_bytes(pickle.dumps(found))
    gc.collect()
    gc.freeze()  # the daemon holds no such heap for the collector to walk
    return found


async def _record(stage: Stage, databases: Databases) -> Recording:
    plugin, rows = stage.options.plugin, BUDGET.rows(stage.options.rows)
    dsn, slot = databases.source_dsn, databases.slot
    BUDGET.prepare(stage, dsn)
    initialised(databases.environment(SOURCE_PLUGIN=plugin, SOURCE_EXCLUDE=""))
    BUDGET.load(stage, dsn, rows)
    with psycopg.connect(dsn, autocommit=True) as source:
        source.execute(SQL["settled"])
        (end,) = source.execute(SQL["position"]).fetchone() or ("0/0",)
    sidecar = await Sidecar.open(
        dsn,
        slot=slot,
        tables=("*.*",),
        exclude=(),
        key_file="",
        publication_name="",
        application_name="bench",
    )
    stream = await Stream.open(dsn, application_name="bench", slot=slot, plugin=plugin)
    if plugin == "pgoutput":
        options = pgoutput_options(publications=publication.names(slot))
    else:
        options = wal2json_options(prefix="cdc_audit")
    await stream.start(slot, plugin, 0, options)
    pieces = await _pieces(stream, Spool() if plugin == "pgoutput" else None, parse_lsn(str(end)))
    keys = await sidecar.context_keys()
    catalog = await _catalog(plugin, pieces, sidecar)
    await stream.close()
    await sidecar.close()
    return Recording(plugin, rows, pieces, keys, catalog)


async def _pieces(stream: Stream, spool: Spool | None, end: int) -> list[tuple[list[bytes], int]]:
    pieces: list[tuple[list[bytes], int]] = []
    while True:
        received = stream.receive()
        if received.items:
            for piece in [received.items] if spool is None else spool.feed(received.items):
                messages = [item for item in piece if isinstance(item, bytes)]
                pieces.append((messages, sum(map(len, messages))))
        elif received.wal_end >= end:
            return pieces
        else:
            await stream.wait(1.0)


async def _catalog(plugin: str, pieces: list[tuple[list[bytes], int]], sidecar: Sidecar) -> Catalog:
    """All that a decoder asks for on its way."""
    decoder = _decoder(plugin)
    for items, _ in pieces:
        position = 0
        while position < len(items):
            try:
                for item in items[position:]:
                    decoder.decode(item)
                    position += 1
            except UnknownTypeError as unknown:
                found = await sidecar.look_up(unknown.type_oids, unknown.tables)
                decoder.learn(decoder.catalog.with_found(*found))
    return decoder.catalog
