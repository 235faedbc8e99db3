"""Which rows of an archive are meant: by a legal hold, or by a person or record whose values are to be erased.

Only the columns by which rows are chosen are read, and only files that are those of the manifest, to the byte: an archive that was
altered decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from cdc_audit.errors import CheckFailedError
from cdc_audit.model.retention import Hold
from cdc_audit.seal import parquet
from cdc_audit.seal.manifest import Manifest
from cdc_audit.trail.archive_store import Store, digest_of

_HELD_BY = ("created_at", "schema_name", "table_name", "record_id", "user_id", "user_email")


def covering(store: Store, said: Manifest, wanted: Sequence[Hold]) -> list[int]:
    """The numbers of those holds under which any row of an archive is.

    Raises CheckFailedError if the rows are not those of the manifest, and as the store does.
    """
    due = [one for one in wanted if _may_cover(one, said)]
    found: set[int] = set()
    if not due:
        return []
    with _rows(store, said) as file:
        for batch in parquet.read_columns(file, _HELD_BY):
            found |= {one.number for one in due if one.number not in found and _covers(one, batch)}
    return [one.number for one in due if one.number in found]


def rows_with(store: Store, said: Manifest, wanted: Mapping[str, str]) -> list[tuple[int, str]]:
    """The rows that have all these values, by column, in order: id, and the schema of their table. Raises as ``covering`` does."""
    import pyarrow.compute as pc

    found: list[tuple[int, str]] = []
    with _rows(store, said) as file:
        for batch in parquet.read_columns(file, {"id", "schema_name", *wanted}):
            rows = batch.filter(_all([pc.equal(batch.column(name), value) for name, value in wanted.items()]))
            found += zip(*(rows.column(name).to_pylist() for name in ("id", "schema_name")), strict=True)
    return found


def _may_cover(hold: Hold, said: Manifest) -> bool:
    """Whether the manifest leaves it open that a row is under a hold."""
    is_named = hold.table_name is None or any(name.endswith(f".{hold.table_name}") for name in said.tables)
    return is_named and said.overlaps(hold.since, hold.until)


def _covers(hold: Hold, rows: Any) -> bool:
    """``Hold.covers`` for many rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    equal = [(name, getattr(hold, name)) for name in ("schema_name", "table_name", "record_id")]
    conditions = [pc.equal(rows.column(name), value) for name, value in equal if value is not None]
    if hold.user is not None:
        by_id, by_email = (pc.equal(rows.column(name), hold.user) for name in ("user_id", "user_email"))
        conditions.append(pc.or_(pc.fill_null(by_id, False), pc.fill_null(by_email, False)))
    at, moment = rows.column("created_at"), pa.timestamp("us", "UTC")
    if hold.since is not None:
        conditions.append(pc.greater_equal(at, pa.scalar(hold.since, moment)))
    if hold.until is not None:
        conditions.append(pc.less(at, pa.scalar(hold.until, moment)))
    return bool(pc.any(_all(conditions)).as_py()) if conditions else rows.num_rows > 0


def _all(conditions: list[Any]) -> Any:
    import pyarrow.compute as pc

    mask, *others = conditions
    for one in others:
        mask = pc.and_(mask, one)
    return mask


@contextmanager
def _rows(store: Store, said: Manifest) -> Iterator[IO[bytes]]:
    where = f"archive {store.name}: {said.rows_file.name}"
    try:
        file = store.open(said.rows_file.name)
    except FileNotFoundError:
        raise CheckFailedError(f"{where}: it is not here") from None
    with file:
        if digest_of(file) != said.rows_file.sha256:
            raise CheckFailedError(f"{where}: it is not the file whose SHA-256 its manifest says")
        yield file
