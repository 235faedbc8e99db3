"""What a wal2json row's columns, identity and key say about its images."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_audit.decode.nested import may_hold_objects
from cdc_audit.decode.toast import may_be_toasted
from cdc_audit.model.catalog import TableInfo, TypeInfo
from cdc_audit.model.event import Shape


def shape_of(
    action: str,
    name: tuple[str, str],
    info: TableInfo | None,
    new: list[tuple[str, int]],
    old: list[tuple[str, int]],
    key: tuple[str, ...],
    types: Mapping[int, TypeInfo | None],
) -> tuple[Shape, list[int] | None]:
    """The shape, and which of the new and then the old values make up the new image where these aren't just the new ones:
    TOASTed values that did not change come from a full old image.
    """
    new_names = tuple(column for column, _ in new)
    old_names = tuple(column for column, _ in old)
    toasted = [column for column, oid, _ in info.columns if may_be_toasted(oid)] if info else []
    absent = tuple(column for column in toasted if column not in new_names) if action == "UPDATE" else ()
    full = _is_full(new_names, old_names, key, info)
    positions = None
    if full and action == "UPDATE" and new_names != old_names:
        place = {column: i for i, column in enumerate(new_names)}
        positions = [place.get(column, len(new) + i) for i, column in enumerate(old_names)]
        new_names, absent = old_names, ()
    root = info.root if info else name
    partition = "" if root == name else name[1]
    if not key and old_names and not full:
        key = old_names
    nested = tuple(column for column, oid in dict(new + old).items() if may_hold_objects(oid, types))
    shape = Shape(action, *root, partition, new_names, old_names, full, key, absent, nested=nested)  # type: ignore[arg-type]
    return shape, positions


def _is_full(
    new: tuple[str, ...], old: tuple[str, ...], key: tuple[str, ...], info: TableInfo | None
) -> bool:
    """Whether the old image is the whole row. What the catalog says may be newer than the row: columns may have come since."""
    if not old or not set(old) >= set(new):
        return False
    if info is None:
        return not key or set(old) > set(key)
    if any(column in old and not not_null for column, _, not_null in info.columns):
        return True  # neither a primary key nor an index that identifies rows has a column that may be null
    if new and key and set(old) > set(key):
        return True
    missing = [oid for column, oid, _ in info.columns if column not in old]
    if new:  # values that are never TOASTed would be there
        missing = [oid for oid in missing if may_be_toasted(oid)]
    return not missing
