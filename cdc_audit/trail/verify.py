"""``cdc-audit verify``: reads ledger and rows by COPY, in one snapshot and in flat memory.

What it looks for stands in ``verify_chain`` and ``verify_rows``. First the whole chain is walked, then the rows, in stretches, by
one connection or by several processes. Then rows and blocks are counted without any index, so that what an index lacks is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.pq import ExecStatus

from cdc_audit.errors import NotPermittedError, SettingError, UnavailableError
from cdc_audit.postgres import SETTINGS, connect, explain, named_sql
from cdc_audit.seal.manifest import Retired
from cdc_audit.seal.personal import Erasure
from cdc_audit.trail.query import parse_time
from cdc_audit.trail.verify_anchors import Anchors
from cdc_audit.trail.verify_chain import Chain, Header, boundaries, parse_row
from cdc_audit.trail.verify_findings import Finding, Findings, Kind
from cdc_audit.trail.verify_personal import Erased, Openings
from cdc_audit.trail.verify_rows import Rows, Span, spans

_STRETCH_ROWS = 200_000
_STRETCH_BLOCKS = 5_000
_BEYOND = 1 << 62  # no row has this id
_SQL = named_sql("cdc_audit.trail", "sql/verify.sql")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What a verifier brings and asks: public keys by key id, anchors (None: none demanded), where to begin ("": block 0)."""

    keys: Mapping[str, bytes] = field(default_factory=dict)
    anchors: Anchors | None = None
    since: str = ""
    jobs: int = 1


class Report(NamedTuple):
    """What was found. ``missing``: why the evidence is not complete. ``first_block`` to ``last_block`` were read.

    ``erased_values`` personal values in ``erased_rows`` rows were erased, as ``erasures`` blocks say. ``retirements``: which
    rows are in archives instead; whether these are whole was not looked at. ``purged_rows`` of them are nowhere any more.
    """

    findings: list[Finding]
    uncounted: int
    missing: list[str]
    first_block: int
    last_block: int
    last_hash: bytes
    blocks: int
    rows: int
    signed: int
    anchored: int
    erased_values: int
    erased_rows: int
    erasures: int
    retirements: list[Retired]
    purged_rows: int
    seconds: float


class Counts(NamedTuple):
    """How much was read, and how much of it is erased."""

    rows: int = 0
    openings: int = 0
    erased_values: int = 0
    erased_rows: int = 0


class Stretch(NamedTuple):
    """Neighbouring blocks and the ids that they hold; None is without end. ``is_open``: ids below ``first_id`` count too."""

    first_block: int
    end_block: int | None
    first_id: int
    end_id: int | None
    is_open: bool


def verify(dsn: str, schema: str, request: Request, progress: Progress) -> Report:
    """Verify the trail. ``progress`` is told rows done and rows in all, as far as the ledger can be believed.

    Raises SettingError if there is no trail, NotPermittedError if the role may not read it, UnavailableError.
    """
    began = time.monotonic()
    with reading(dsn, schema) as connection:
        first = _first_block(connection, schema, request.since)
        base = (
            next(iter(list(headers(connection, schema, first - 1, first - 1))), None) if first > 0 else None
        )
        findings = Findings()
        anchors = request.anchors.hashes if request.anchors else {}
        chain = Chain(
            findings,
            keys=request.keys,
            anchors={block: hash_ for block, hash_ in anchors.items() if block >= first},
            first=first,
            base=base,
        )
        stretches = list(_stretches(headers(connection, schema, first, None), chain, base, first))
        missing = chain.finish(wants_anchors=request.anchors is not None)
        missing[:0] = request.anchors.missing if request.anchors else ()
        for block in request.anchors.twice if request.anchors else ():
            findings.add(Kind.ALTERED, "block", block, block, "anchored with two different hashes")
        read = _check_rows(connection, dsn, schema, stretches, chain, findings, request.jobs, progress)
        _check_hidden(connection, schema, stretches[0], read, chain, findings, first)
    last = chain.last
    return Report(
        findings.sorted(),
        findings.uncounted,
        missing,
        first,
        last.number if last else first - 1,
        last.hash if last else b"",
        chain.blocks,
        read.rows,
        chain.signed,
        chain.anchored,
        read.erased_values,
        read.erased_rows,
        len(chain.erasures),
        chain.retirements,
        chain.purged_rows,
        time.monotonic() - began,
    )


@contextmanager
def reading(dsn: str, schema: str, snapshot: str = "") -> Iterator[Connection]:
    """A connection in one repeatable read transaction, with everything pinned on which COPY's text depends."""
    # From the first statement on: a role's own time limit may be shorter than the one that would lift it takes.
    settings = f"{SETTINGS} -c statement_timeout=0"
    with connect(dsn, side="audit", application_name="cdc-audit verify", settings=settings) as connection:
        try:
            connection.execute(_SQL["settings"])
            connection.execute(_SQL["begin"])
            if snapshot:
                connection.execute(sql.SQL(_SQL["import_snapshot"]).format(snapshot=sql.Literal(snapshot)))
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            role = connection.info.user.replace('"', '""')
            raise NotPermittedError(
                explain(error, side="audit").message,
                remedy=f'grant audit_admin to "{role}"; or give --dsn of a role that has it',
            ) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise SettingError(
                f"audit database: there is no trail in schema {schema}",
                remedy="correct [audit] dsn and schema, or: cdc-audit init",
            ) from error
        except psycopg.Error as error:
            raise explain(error, side="audit") from error


def composed(name: str, schema: str, **values: Any) -> sql.Composed:
    """A statement of this room for a schema; ``values`` are literals unless they are SQL already."""
    parts = {
        key: value if isinstance(value, sql.Composable) else sql.Literal(value)
        for key, value in values.items()
    }
    return sql.SQL(_SQL[name]).format(schema=sql.Identifier(schema), **parts)


def headers(connection: Connection, schema: str, first: int, last: int | None) -> Iterator[Header]:
    """The headers of blocks ``first`` to ``last``, in order."""
    for row in copied(connection, composed("headers", schema, first=first, last=last)):
        yield parse_row(row.rstrip(b"\n"))


def rows(connection: Connection, schema: str, first: int | None, end: int | None) -> Iterator[bytes]:
    """The rows with ids from ``first`` to before ``end``, in order of id, as COPY prints them; None is without bound."""
    return copied(connection, composed("rows", schema, range=_range(first, end)))


def copied(connection: Connection, statement: sql.Composed) -> Iterator[bytes]:
    """The lines of a COPY, with their line ends. Straight from libpq: that takes half of what psycopg's own loop does."""
    pgconn = connection.pgconn
    result = pgconn.exec_(statement.as_bytes(connection))
    if result.status != ExecStatus.COPY_OUT:
        raise psycopg.errors.error_from_result(result)
    get = pgconn.get_copy_data
    is_through = False
    try:
        while True:
            size, data = get(0)
            if size < 0:
                break
            yield bytes(data)
        is_through = True
    finally:
        if not is_through:
            connection.close()  # nobody wants the rest
    ending = pgconn.get_result()
    if ending is None or ending.status != ExecStatus.COMMAND_OK:
        raise (
            psycopg.errors.error_from_result(ending)
            if ending
            else psycopg.OperationalError("COPY has no end")
        )
    while pgconn.get_result() is not None:
        pass


def _range(first: int | None, end: int | None) -> sql.Composed:
    conditions: list[sql.Composable] = []
    if first is not None:
        conditions.append(sql.SQL(_SQL["from_id"]).format(first=sql.Literal(first)))
    if end is not None:
        conditions.append(sql.SQL(_SQL["before_id"]).format(end=sql.Literal(end)))
    return sql.SQL(" and ").join(conditions or [sql.SQL(_SQL["all"])])


def _first_block(connection: Connection, schema: str, since: str) -> int:
    """The block at which to begin: a number, or the first one written since a moment."""
    if not since or since.isdigit():
        return int(since or 0)
    moment = parse_time(since, datetime.now(UTC))
    row = connection.execute(composed("block_since", schema), (moment,)).fetchone()
    if row is None:
        last = next(iter(connection.execute(composed("last_block", schema))), (-1,))
        return int(last[0]) + 1
    return int(row[0])


def _stretches(found: Iterable[Header], chain: Chain, base: Header | None, first: int) -> Iterator[Stretch]:
    """Walk the chain, and part it into stretches whose rows can be checked by themselves."""
    first_id: int | None = 1 if not first else None
    if base and base.block:
        first_id = base.block.first_id + base.block.row_count
    block, is_open = first, first == 0

    def walked() -> Iterator[Header]:
        nonlocal first_id
        for header in found:
            chain.check(header)
            if first_id is None:
                first_id = header.block.first_id if header.block else 1
            yield header

    for header in boundaries(walked(), _STRETCH_ROWS, _STRETCH_BLOCKS):
        assert header.block
        assert first_id is not None
        yield Stretch(block, header.number, first_id, header.block.first_id, is_open)
        block, first_id, is_open = header.number, header.block.first_id, False
    yield Stretch(block, None, _BEYOND if first_id is None else first_id, None, is_open)


def check_stretch(
    connection: Connection,
    schema: str,
    stretch: Stretch,
    retired: list[tuple[int, int]],
    erasures: list[Erasure],
) -> Result:
    """Check a stretch's rows and their openings: findings, how many more were not kept, and counts."""
    findings = Findings()
    blocks = list(headers(connection, schema, stretch.first_block, stretch.end_block))

    def held() -> Iterator[Span]:
        return spans(blocks, block=stretch.first_block, first=stretch.first_id, end_block=stretch.end_block)

    first = None if stretch.is_open else stretch.first_id
    checker = Rows(findings, held(), retired)
    checker.check(rows(connection, schema, first, stretch.end_id))
    checker.finish()
    personal = Openings(findings, held(), blocks, Erased(erasures), retired)
    if _has_openings(connection, schema):
        statement = composed("openings", schema, range=_range(first, stretch.end_id))
        personal.check(copied(connection, statement))
    personal.finish()
    counts = Counts(checker.rows, personal.count, personal.erased_values, personal.erased_rows)
    return findings.sorted(), findings.uncounted, counts


def _has_openings(connection: Connection, schema: str) -> bool:
    row = connection.execute(_SQL["has_openings"], {"schema": schema}).fetchone()
    return row == (True,)


def _check_rows(
    connection: Connection,
    dsn: str,
    schema: str,
    stretches: list[Stretch],
    chain: Chain,
    findings: Findings,
    jobs: int,
    progress: Progress,
) -> Counts:
    """All stretches, here or in processes of their own that share the snapshot."""
    last = chain.last.intact if chain.last else None
    start = stretches[0].first_id
    expected = last.first_id + last.row_count - start if last else 0
    total = Counts()
    given = chain.retired, chain.erasures
    for found, uncounted, counts in _results(connection, dsn, schema, stretches, given, jobs):
        findings.extend(found)
        findings.uncounted += uncounted
        total = Counts(*map(sum, zip(total, counts, strict=True)))
        progress(total.rows, max(total.rows, expected))
    return total


Result = tuple[list[Finding], int, Counts]
_Given = tuple[list[tuple[int, int]], list[Erasure]]


def _results(
    connection: Connection,
    dsn: str,
    schema: str,
    stretches: list[Stretch],
    given: _Given,
    jobs: int,
) -> Iterator[Result]:
    if jobs == 1 or len(stretches) == 1:
        for stretch in stretches:
            yield check_stretch(connection, schema, stretch, *given)
        return
    row = connection.execute(_SQL["export_snapshot"]).fetchone()
    assert row
    start = (dsn, schema, str(row[0]), given)
    try:
        with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, start) as pool:
            yield from pool.map(_work, stretches)
    except BrokenProcessPool:
        raise UnavailableError(
            "audit database: a reading process could not begin or was ended", remedy="verify with --jobs 1"
        ) from None


_worker: list[Any] = []


def _start_worker(dsn: str, schema: str, snapshot: str, given: _Given) -> None:
    """Open this process's connection; it ends with the process."""
    context = reading(dsn, schema, snapshot)
    _worker[:] = [context, context.__enter__(), schema, given]


def _work(stretch: Stretch) -> Result:
    _, connection, schema, given = _worker
    return check_stretch(connection, schema, stretch, *given)


def _check_hidden(
    connection: Connection,
    schema: str,
    stretch: Stretch,
    read: Counts,
    chain: Chain,
    findings: Findings,
    first_block: int,
) -> None:
    """What is in the tables and not in the indexes of their primary keys, by which it was read."""
    connection.execute(_SQL["scan_only"])
    first = None if stretch.is_open else stretch.first_id
    statement = composed("count", schema, range=_range(first, None), first_block=first_block)
    row = connection.execute(statement).fetchone()
    assert row
    openings: tuple[int, ...] | None = (0,)
    if _has_openings(connection, schema):
        openings = connection.execute(
            composed("count_openings", schema, range=_range(first, None))
        ).fetchone()
    assert openings
    for unit, found, there in (
        ("rows", read.rows, row[0]),
        ("blocks", chain.blocks, row[1]),
        ("openings", read.openings, openings[0]),
    ):
        if found != there:
            what = f"{there:,} {unit} are in the table, but its primary key leads to {found:,}: reindex, then verify again"
            findings.add(Kind.INSERTED if there > found else Kind.REMOVED, "trail", 0, 0, what)
