"""Which types may hold JSON objects."""

from __future__ import annotations

import pytest

from cdc_audit.decode.nested import may_hold_objects
from cdc_audit.model.catalog import TypeInfo, TypeKind

TYPES = {
    1: TypeInfo(1, TypeKind.COMPOSITE, 1, fields=(("password", 25),)),
    2: TypeInfo(2, TypeKind.ARRAY, 2, element=1),
    3: TypeInfo(3, TypeKind.SCALAR, 2, is_domain=True),
    4: TypeInfo(4, TypeKind.SCALAR, 3802, is_domain=True),
    5: TypeInfo(5, TypeKind.ARRAY, 5, element=4),
    6: TypeInfo(6, TypeKind.SCALAR, 6),
    7: TypeInfo(7, TypeKind.SCALAR, 25, is_domain=True),
    8: TypeInfo(8, TypeKind.ARRAY, 8, element=6),
    9: None,
}


@pytest.mark.parametrize("oid", [114, 3802, 199, 3807, 1, 2, 3, 4, 5])
def test_json_composites_their_arrays_and_domains_do(oid: int) -> None:
    assert may_hold_objects(oid, TYPES)


@pytest.mark.parametrize("oid", [25, 1009, 1700, 17, 6, 7, 8, 9, 10])
def test_nothing_else_does(oid: int) -> None:
    assert not may_hold_objects(oid, TYPES)
