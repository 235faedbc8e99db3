r"""Rows of the trail in Parquet and back, without losing a byte of what was hashed.

A file holds rows as they stood in ``audit_logs``, in order of id, under the same names: ``id``, ``xid`` and ``seq`` as integers,
``created_at`` as microseconds in UTC, arrays as lists, ``row_hash`` as 32 bytes, everything else as the text PostgreSQL prints.
From these a row's line is made again as COPY prints it, whose hash is the row's leaf (``cdc_audit.seal.lines``).

Row groups have at most 50,000 rows; their statistics serve look-ups by time and id, their Bloom filters those by record, user and
table. Blocks are kept beside them: number, header line and signature, as they stood in the ledger.

pyarrow (extra ``archive``) is imported on first use.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Any, NamedTuple

from cdc_audit.errors import SettingError
from cdc_audit.seal.copy_text import NULL, array, unescape

COLUMNS = (
    "id", "created_at", "schema_name", "table_name", "record_id", "action", "old_data", "new_data", "changed_fields", "user_id",
    "user_email", "ip_address", "user_agent", "context", "context_trust", "db_user", "application_name", "capture",
    "unchanged_toast", "partition_name", "xid", "commit_lsn", "seq", "row_hash",
)  # fmt: skip
_INTEGERS = {"id": "int64", "xid": "int64", "seq": "int32"}
_LISTS = ("changed_fields", "unchanged_toast")
_FILTERED = {"record_id": 50_000, "user_id": 5_000, "user_email": 5_000, "table_name": 500}
_SPECIAL = r"[\\\x08-\x0d]"
_ESCAPES = (
    ("\\", "\\\\"),
    ("\b", "\\b"),
    ("\t", "\\t"),
    ("\n", "\\n"),
    ("\v", "\\v"),
    ("\f", "\\f"),
    ("\r", "\\r"),
)
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}]+)', re.DOTALL)
_SLICE_ROWS = 2_000
_GROUP_ROWS = 50_000
_GROUP_BYTES = 1 << 25
_HASH_DIGITS = 64


class Blocks(NamedTuple):
    """One archived block: what stood in the ledger."""

    block: int
    header: bytes
    signature: bytes


def require_pyarrow() -> None:
    """Raises SettingError, with the remedy, where pyarrow isn't installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise SettingError(
            "archives need pyarrow, which is not installed", remedy="pip install 'cdc-audit[archive]'"
        )


class RowsFile:
    """A file of rows being written: row group by row group, in memory that does not grow with it."""

    def __init__(self, file: IO[bytes]) -> None:
        from pyarrow import parquet

        self._schema = row_schema()
        self._writer = parquet.ParquetWriter(
            file, self._schema, compression="zstd", write_page_index=True, write_page_checksum=True,
            bloom_filter_options={name: {"ndv": count, "fpp": 0.01} for name, count in _FILTERED.items()},
        )  # fmt: skip
        self._group: list[Any] = []
        self._group_rows = self._group_bytes = 0

    def write(self, lines: Sequence[bytes]) -> Any:
        """Append rows, as COPY prints them with their line ends, in order of id; the Arrow table that they make."""
        table = _table(lines, self._schema)
        self._group.append(table)
        self._group_rows += table.num_rows
        self._group_bytes += table.nbytes
        if self._group_rows >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._end_group()
        return table

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._end_group()
        self._writer.close()

    def _end_group(self) -> None:
        import pyarrow as pa

        if self._group:
            self._writer.write_table(pa.concat_tables(self._group))
            self._group.clear()
            self._group_rows = self._group_bytes = 0


def write_rows(file: IO[bytes], rows: Iterable[bytes], seen: Callable[[Any], None]) -> None:
    """Write rows, as COPY prints them with their line ends, in order of id. ``seen`` is told each piece of them, an Arrow table."""
    written = RowsFile(file)
    remaining = iter(rows)
    while lines := list(islice(remaining, _SLICE_ROWS)):
        seen(written.write(lines))
    written.close()


def read_rows(file: IO[bytes]) -> Iterator[bytes]:
    """The rows of a file, as COPY prints them with their line ends. Raises ValueError if it isn't one of ours."""
    for batch in _batches(file, row_schema()):
        yield from _whole_lines(batch)


def read_rows_by_others(file: IO[bytes]) -> Iterator[bytes]:
    """The rows of a file that another program may have written anew: in any order, in types that hold the same values.

    They come in order of id; where they don't lie so, the file is held in memory. Raises ValueError if these aren't such rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    schema = row_schema()
    try:
        opened = parquet.ParquetFile(file)
        ids = opened.read(["id"]).column("id").combine_chunks()
        if len(ids) < 2 or pc.all(pc.greater(ids[1:], ids[:-1])).as_py():
            batches = opened.iter_batches(_SLICE_ROWS)
        else:
            batches = opened.read().sort_by("id").to_batches(_SLICE_ROWS)
        for batch in batches:
            yield from _whole_lines(batch.select(schema.names).cast(schema))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(
            f"not a Parquet file of the trail that can be read ({type(error).__name__})"
        ) from None


def _whole_lines(batch: Any) -> Iterator[bytes]:
    lines, hashes = _lines(batch), batch.column("row_hash").to_pylist()
    for line, hash_ in zip(lines, hashes, strict=True):
        yield b"%b\t\\\\x%b\n" % (line, hash_.hex().encode())


def read_columns(file: IO[bytes], names: Iterable[str]) -> Iterator[Any]:
    """The rows of a file, these columns of them, as Arrow tables. Raises ValueError if it isn't one of ours."""
    import pyarrow as pa

    for batch in _batches(file, row_schema(), list(names)):
        yield pa.Table.from_batches([batch])


def write_blocks(file: IO[bytes], blocks: Iterable[Blocks]) -> None:
    """Write headers, in order of block."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _block_schema()
    with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        remaining = iter(blocks)
        while some := list(islice(remaining, _SLICE_ROWS)):
            writer.write_table(
                pa.table(dict(zip(Blocks._fields, zip(*some, strict=True), strict=True)), schema)
            )


def read_blocks(file: IO[bytes]) -> Iterator[Blocks]:
    """The headers of a file. Raises ValueError if it isn't one of ours."""
    for batch in _batches(file, _block_schema()):
        yield from map(Blocks, *(batch.column(name).to_pylist() for name in Blocks._fields))


def row_schema() -> Any:
    """The Arrow schema of a file of rows."""
    import pyarrow as pa

    kinds: dict[str, Any] = {name: pa.type_for_alias(kind) for name, kind in _INTEGERS.items()}
    kinds |= {name: pa.list_(pa.string()) for name in _LISTS}
    kinds |= {"created_at": pa.timestamp("us", "UTC"), "row_hash": pa.binary(32)}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def _block_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("block", pa.int64()), ("header", pa.binary()), ("signature", pa.binary())])


def _batches(file: IO[bytes], schema: Any, columns: list[str] | None = None) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file, page_checksum_verification=True)
        if not opened.schema_arrow.equals(schema):
            raise ValueError("not a file of an archive of this version")
        rows = _SLICE_ROWS if columns is None else _GROUP_ROWS
        # One group after another: a reader of several keeps what it has read of all of them.
        for group in range(opened.num_row_groups):
            yield from opened.iter_batches(rows, row_groups=[group], columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet file that can be read ({type(error).__name__})") from None


def _table(lines: Sequence[bytes], schema: Any) -> Any:
    """Rows as COPY prints them, as an Arrow table."""
    import pyarrow as pa

    columns = zip(*(line[:-1].split(b"\t") for line in lines), strict=True)
    return pa.table([_column(*one) for one in zip(COLUMNS, columns, strict=True)], schema=schema)


def _column(name: str, fields: tuple[bytes, ...]) -> Any:
    import pyarrow as pa

    if name in _INTEGERS:
        values = [None if field == NULL else int(field) for field in fields]
        return pa.array(values, pa.type_for_alias(_INTEGERS[name]))
    if name == "row_hash":
        return pa.array([bytes.fromhex(field[3:].decode()) for field in fields], pa.binary(32))
    if name == "created_at":
        return pa.array(fields, pa.binary()).cast(pa.string()).cast(pa.timestamp("us", "UTC"))
    if name in _LISTS:
        known = {field: _elements(field) for field in set(fields)}
        return pa.array([known[field] for field in fields], pa.list_(pa.string()))
    texts = [None if field == NULL else unescape(field) for field in fields]
    return pa.array(texts, pa.binary()).cast(pa.string())


def _elements(field: bytes) -> list[str] | None:
    """The elements of a text[] as its field has them; null elements don't occur."""
    if field == NULL:
        return None
    found = _ELEMENT.finditer(unescape(field).decode()[1:-1])
    return [
        one[2] if one[2] is not None else re.sub(r"\\(.)", r"\1", one[1], flags=re.DOTALL) for one in found
    ]


def _lines(batch: Any) -> list[bytes]:
    """The rows' lines: all columns but row_hash, as COPY prints them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = [_fields(name, batch.column(name)) for name in COLUMNS[:-1]]
    joined = pc.binary_join_element_wise(*fields, "\t", null_handling="replace", null_replacement="\\N")
    lines: list[bytes] = joined.cast(pa.binary()).to_pylist()
    return lines


def _fields(name: str, column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if name in _INTEGERS:
        return column.cast(pa.string())
    if name == "created_at":
        text = column.cast(pa.timestamp("us")).cast(pa.string())
        return pc.binary_join_element_wise(pc.replace_substring_regex(text, r"\.?0+$", ""), "+00", "")
    if name in _LISTS:
        lists = column.to_pylist()
        return pa.array([None if one is None else array(one) for one in lists], pa.binary()).cast(pa.string())
    if not pc.any(pc.match_substring_regex(column, _SPECIAL)).as_py():
        return column
    for special, code in _ESCAPES:
        column = pc.replace_substring(column, special, code)
    return column
