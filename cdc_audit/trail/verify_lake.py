"""``cdc-audit verify`` of a trail in Iceberg tables: the same rules, for headers and rows read from these.

Rows are read from the data files of one snapshot of ``audit_logs``, one after the other in order of their lowest id: each holds one
block, or several neighbouring ones where somebody has compacted the table. Files whose ids overlap are read together.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from cdc_audit import lake
from cdc_audit.errors import CdcAuditError, SettingError, UnavailableError
from cdc_audit.seal import parquet
from cdc_audit.seal.block import block_hash, header_hash, header_line
from cdc_audit.trail.verify import Progress, Report, Request
from cdc_audit.trail.verify_chain import Chain, Header
from cdc_audit.trail.verify_findings import Findings, Kind
from cdc_audit.trail.verify_rows import Rows, spans


class _File(NamedTuple):
    first_id: int
    last_id: int
    path: str


def verify_lake(catalog: str, namespace: str, request: Request, progress: Progress) -> Report:
    """Verify the trail from block 0 on. Raises SettingError if there is none, or if ``since`` is asked for, UnavailableError."""
    if request.since:
        raise SettingError(
            "a trail in a lake is verified from its first block on", remedy="leave out --since"
        )
    try:
        return _verified(lake.open_tables(catalog, namespace), request, progress)
    except (CdcAuditError, *lake.OUR_FAULTS):
        raise
    except Exception as error:  # a catalog's and a store's clients have errors of their own
        raise UnavailableError(
            f"audit lake: {getattr(error, 'strerror', None) or type(error).__name__}"
        ) from error


def _verified(tables: lake.Tables, request: Request, progress: Progress) -> Report:
    began = time.monotonic()
    findings = Findings()
    anchors = request.anchors.hashes if request.anchors else {}
    chain = Chain(findings, keys=request.keys, anchors=anchors)
    headers = list(_headers(tables))
    for header in headers:
        chain.check(header)
    missing = chain.finish(wants_anchors=request.anchors is not None)
    missing[:0] = request.anchors.missing if request.anchors else ()
    for block in request.anchors.twice if request.anchors else ():
        findings.add(Kind.ALTERED, "block", block, block, "anchored with two different hashes")
    rows = Rows(findings, spans(headers, block=0, first=1, end_block=None), [])
    expected = sum(header.block.row_count for header in headers if header.block)
    for lines in _rows(tables.rows, findings):
        try:
            rows.check(lines)
        except ValueError as error:
            findings.add(Kind.ALTERED, "trail", 0, 0, f"a data file after row {rows.rows}: {error}")
        progress(rows.rows, max(rows.rows, expected))
    rows.finish()
    last = chain.last
    return Report(
        findings.sorted(),
        findings.uncounted,
        missing,
        0,
        last.number if last else -1,
        last.hash if last else b"",
        chain.blocks,
        rows.rows,
        chain.signed,
        chain.anchored,
        0,
        0,
        len(chain.erasures),
        chain.retirements,
        0,
        time.monotonic() - began,
    )


def _headers(tables: lake.Tables) -> Iterator[Header]:
    """The ledger's rows, and the one block that a daemon which died has left in the rows' snapshot only."""
    found = lake.headers(tables.ledger)
    newest = lake.position(tables.rows)
    if newest is not None and newest.block.block == (found[-1][0] + 1 if found else 0):
        found.append((newest.block.block, newest))
    for number, one in found:
        if one is None:
            yield Header(number, b"", None, header_hash(b""), b"", b"")
            continue
        yield Header(
            one.block.block,
            header_line(one.block),
            one.block,
            block_hash(one.block),
            one.block_hash,
            one.signature,
        )


def _rows(table: Any, findings: Findings) -> Iterator[Iterator[bytes]]:
    """The rows' lines in order of id, file by file."""
    files = sorted(_files(table, findings))
    if any(one.last_id >= other.first_id for one, other in pairwise(files)):
        yield heapq.merge(*(_lines(table, file) for file in files), key=_id_of)
        return
    for file in files:
        yield _lines(table, file)


def _files(table: Any, findings: Findings) -> Iterator[_File]:
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import LongType

    field = table.schema().find_field("id").field_id
    for task in table.scan().plan_files():
        lowest, highest = (bounds[field] for bounds in (task.file.lower_bounds, task.file.upper_bounds))
        first, last = (int(from_bytes(LongType(), one)) for one in (lowest, highest))
        if task.delete_files:  # readers don't see what these name, whatever the file itself holds
            findings.add(Kind.REMOVED, "row", first, last, "some of them are hidden by a delete file")
        yield _File(first, last, task.file.file_path)


def _lines(table: Any, file: _File) -> Iterator[bytes]:
    with table.io.new_input(file.path).open() as content:
        yield from parquet.read_rows_by_others(content)


def _id_of(line: bytes) -> int:
    return int(line[: line.index(b"\t")])
