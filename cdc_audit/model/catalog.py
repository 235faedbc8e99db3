"""What a decoder must know of the source's catalog: user-defined types and tables. Looked up by ``source.catalog``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class TypeKind(Enum):
    """How a type's values are written as JSON."""

    SCALAR = "scalar"  # by its base type, or as its text
    ARRAY = "array"
    COMPOSITE = "composite"


class TypeInfo(NamedTuple):
    """One type, domains already resolved: ``base`` is the oid whose rules apply (its own for most types).

    ``element`` is an array's element type, ``fields`` a composite's (name, type oid) in column order,
    ``delimiter`` an array element's separator (``,`` but for ``box``), ``is_domain`` whether wal2json quotes the value.
    """

    oid: int
    kind: TypeKind
    base: int
    element: int = 0
    fields: tuple[tuple[str, int], ...] = ()
    delimiter: str = ","
    is_domain: bool = False


class TableInfo(NamedTuple):
    """One table as the catalog shows it now (an event may be older).

    ``root`` is the topmost partitioned parent or the table itself; ``kind`` is pg_class.relkind; ``columns`` are
    (name, type oid, not null) in column order, ``primary_key`` the names of a valid, immediate one's columns, too.
    """

    schema: str
    table: str
    root: tuple[str, str]
    kind: str
    columns: tuple[tuple[str, int, bool], ...]
    primary_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that was looked up so far. A type or table that was asked for and not found is there with value None."""

    types: dict[int, TypeInfo | None] = field(default_factory=dict)
    tables: dict[tuple[str, str], TableInfo | None] = field(default_factory=dict)

    def with_found(
        self, types: dict[int, TypeInfo | None], tables: dict[tuple[str, str], TableInfo | None]
    ) -> Catalog:
        """This catalog and what a further look-up found."""
        return Catalog({**self.types, **types}, {**self.tables, **tables})
