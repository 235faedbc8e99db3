"""Which types' values may be JSON objects, or hold some: inside them are names, as columns are."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_audit.decode.built_in_types import ARRAYS, SCALARS
from cdc_audit.model.catalog import TypeInfo, TypeKind

_JSON = frozenset({114, 3802})


def may_hold_objects(type_oid: int, types: Mapping[int, TypeInfo | None]) -> bool:
    """Whether it is json, jsonb, a composite, a domain over one, or an array of those. ``types`` are those looked up."""
    if type_oid in _JSON:
        return True
    if type_oid in ARRAYS:
        return ARRAYS[type_oid] in _JSON
    info = None if type_oid in SCALARS else types.get(type_oid)
    if info is None:
        return False
    if info.kind is TypeKind.ARRAY:
        return may_hold_objects(info.element, types)
    return info.kind is TypeKind.COMPOSITE or (info.base != type_oid and may_hold_objects(info.base, types))
