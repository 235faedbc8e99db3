"""The trail as two Apache Iceberg tables: opening, making and reading them.

They are called ``audit_logs`` and ``ledger``, in a namespace named like the schema. ``audit_logs`` has the columns of
``cdc_audit.seal.parquet`` and is partitioned by month of ``created_at``; ``ledger`` has those of the audit schema's ledger, with
positions as text. https://iceberg.apache.org/spec/, by pyiceberg (extra ``lake``), imported on first use. Which catalog that is,
and how to reach its storage, pyiceberg's own configuration says: ``.pyiceberg.yaml`` or ``PYICEBERG_CATALOG__...``.
"""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cdc_audit.errors import SettingError
from cdc_audit.model.ledger import Block, timestamp
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.seal import parquet
from cdc_audit.seal.block import block_hash, header_line, parse_header

# Of each table. A commit on top of somebody else's must fail, not be tried again: that is what keeps a second daemon out.
_PROPERTIES = {
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
ROWS, LEDGER = "audit_logs", "ledger"
LEDGER_COLUMNS = (*Block._fields, "block_hash", "signature")
# Of all other exceptions, which catalogs and stores raise without end, it is taken for granted that they are away.
OUR_FAULTS = (AssertionError, AttributeError, LookupError, NameError, TypeError)
_HEADER, _SIGNATURE = "cdc-audit.header", "cdc-audit.signature"


class Sealed(NamedTuple):
    """A block as it was committed."""

    block: Block
    block_hash: bytes
    signature: bytes


class Tables(NamedTuple):
    """Both tables, as pyiceberg has them."""

    rows: Any
    ledger: Any


def open_tables(catalog_name: str, namespace: str) -> Tables:
    """Load both. Raises SettingError where pyiceberg, the catalog or a table is missing."""
    catalog = _catalog(catalog_name)
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        tables = Tables(catalog.load_table((namespace, ROWS)), catalog.load_table((namespace, LEDGER)))
    except (NoSuchTableError, NoSuchNamespaceError):
        raise SettingError(
            f"audit lake: catalog {catalog_name} has no trail in namespace {namespace}",
            remedy="cdc-audit init",
        ) from None
    for table in tables:
        if any(table.properties.get(name) != value for name, value in _PROPERTIES.items()):
            raise SettingError(
                f"audit lake: table {namespace}.{table.name()[-1]} has other properties than it was made with",
                remedy="cdc-audit init",
            )
    return tables


def make_tables(catalog_name: str, namespace: str) -> list[str]:
    """Make what is missing of namespace, tables and their properties; the names of the tables that were made."""
    catalog = _catalog(catalog_name)
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.transforms import MonthTransform

    rows = _row_schema()
    by_month = PartitionSpec(
        PartitionField(
            source_id=rows.find_field("created_at").field_id,
            field_id=1000,
            transform=MonthTransform(),
            name="month",
        )
    )
    catalog.create_namespace_if_not_exists(namespace)
    made = []
    for name, schema, spec in (
        (ROWS, rows, by_month),
        (LEDGER, _ledger_schema(), UNPARTITIONED_PARTITION_SPEC),
    ):
        if not catalog.table_exists((namespace, name)):
            catalog.create_table((namespace, name), schema, partition_spec=spec, properties=_PROPERTIES)
            made.append(name)
            continue
        table = catalog.load_table((namespace, name))
        with table.transaction() as transaction:
            transaction.set_properties(_PROPERTIES)
    return made


def _catalog(name: str) -> Any:
    if importlib.util.find_spec("pyiceberg") is None:
        raise SettingError(
            "[audit] kind iceberg needs pyiceberg, which is not installed",
            remedy="pip install 'cdc-audit[lake]'",
        )
    parquet.require_pyarrow()
    from pyiceberg.catalog import load_catalog

    try:
        return load_catalog(name)
    except ValueError:  # neither a type nor a uri is known of it
        raise SettingError(
            f"audit lake: pyiceberg knows no catalog {name}",
            remedy=f"describe it in .pyiceberg.yaml, or set PYICEBERG_CATALOG__{name.upper()}__URI and __WAREHOUSE",
        ) from None


def _row_schema() -> Any:
    from pyiceberg.schema import Schema
    from pyiceberg.types import (
        FixedType,
        IntegerType,
        ListType,
        LongType,
        NestedField,
        StringType,
        TimestamptzType,
    )

    kinds: dict[str, Any] = {"id": LongType(), "xid": LongType(), "seq": IntegerType()}
    kinds |= {"created_at": TimestamptzType(), "row_hash": FixedType(32)}
    fields = []
    for number, name in enumerate(parquet.COLUMNS, 1):
        kind = kinds.get(name, StringType())
        if name in ("changed_fields", "unchanged_toast"):
            kind = ListType(100 + number, StringType(), element_required=False)
        fields.append(NestedField(number, name, kind, required=False))
    return Schema(*fields)


def _ledger_schema() -> Any:
    from pyiceberg.schema import Schema
    from pyiceberg.types import BinaryType, IntegerType, LongType, NestedField, StringType, TimestamptzType

    kinds: dict[str, Any] = {
        "block": LongType(), "first_id": LongType(), "row_count": LongType(), "timeline": IntegerType(),
        "last_commit_at": TimestamptzType(), "written_at": TimestamptzType(), "rows_root": BinaryType(),
        "prev_hash": BinaryType(), "block_hash": BinaryType(), "signature": BinaryType(),
    }  # fmt: skip
    return Schema(
        *(
            NestedField(number, name, kinds.get(name, StringType()), required=False)
            for number, name in enumerate(LEDGER_COLUMNS, 1)
        )
    )


def headers(table: Any) -> list[tuple[int, Sealed | None]]:
    """The whole ledger, in order of block: number and header, or None for a row that isn't one."""
    rows = table.scan().to_arrow().to_pylist()
    numbered = [(-1 if row["block"] is None else row["block"], row) for row in rows]
    return [(number, _sealed_or_none(row)) for number, row in sorted(numbered, key=lambda one: one[0])]


def _sealed_or_none(row: dict[str, Any]) -> Sealed | None:
    try:
        sealed = _sealed(row)
        header_line(sealed.block)
    except (AttributeError, TypeError, ValueError):  # a value is missing, or not what it should be
        return None
    return sealed if sealed.block_hash is not None else None


def last_of(table: Any) -> Sealed | None:
    """The last row, where no snapshot tells of it any more: found by one column, read by its number."""
    if table.current_snapshot() is None:
        return None
    numbers = table.scan(selected_fields=("block",)).to_arrow().column("block").to_pylist()
    if not numbers:
        return None
    return _sealed(table.scan(f"block == {max(numbers)}").to_arrow().to_pylist()[0])


def _sealed(row: dict[str, Any]) -> Sealed:
    fields = [row[name] for name in Block._fields]
    fields[7], fields[8] = parse_lsn(fields[7]), parse_lsn(fields[8])
    for place in (9, 10):
        fields[place] = timestamp(fields[place]) if fields[place] else ""
    fields[13], fields[14] = fields[13] or "", fields[14] or ""
    return Sealed(Block(*fields), row["block_hash"], row["signature"] or b"")


def ledger_row(sealed: Sealed, schema: Any) -> Any:
    """The Arrow table with the one row of ``ledger`` that a block is."""
    import pyarrow as pa

    block = sealed.block
    values: list[Any] = [*block, sealed.block_hash, sealed.signature or None]
    values[7], values[8] = format_lsn(block.start_lsn), format_lsn(block.end_lsn)
    values[9], values[10] = _moment(block.last_commit_at), _moment(block.written_at)
    values[13], values[14] = block.detail or None, block.key_id or None
    return pa.Table.from_pylist([dict(zip(LEDGER_COLUMNS, values, strict=True))], schema=schema)


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def said_of(sealed: Sealed) -> dict[str, str]:
    """A snapshot's properties."""
    return {_HEADER: header_line(sealed.block).decode(), _SIGNATURE: sealed.signature.hex()}


def position(table: Any) -> Sealed | None:
    """The block that the newest of our snapshots tells of, past those of others; None if there is none, or none any more."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        if _HEADER in said:
            block = parse_header(said[_HEADER].encode())
            return Sealed(block, block_hash(block), bytes.fromhex(said[_SIGNATURE]))
        parent = snapshot.parent_snapshot_id
        snapshot = table.metadata.snapshot_by_id(parent) if parent is not None else None
    return None


def has_rows_from(table: Any, first_id: int) -> bool:
    """Whether ``audit_logs`` holds an id from there on."""
    if table.current_snapshot() is None:
        return False
    scan = table.scan(f"id >= {first_id}", selected_fields=("id",), limit=1)
    return bool(scan.to_arrow().num_rows)
