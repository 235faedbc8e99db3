"""Where psycopg's libpq is in memory, for the compiled loop that drains the stream past psycopg."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES

from psycopg.pq.abc import PGconn

from cdc_audit.source.copyboth import Libpq


def addresses(pgconn: PGconn) -> Libpq | None:
    """The connection's and the functions' addresses. None where the connection is closed, or psycopg is not its C build."""
    functions = _functions(type(pgconn).__module__)
    connection = getattr(pgconn, "pgconn_ptr", None)  # the protocol does not name it
    return (connection, *functions) if functions and connection else None


@cache
def _functions(module: str) -> tuple[int, int] | None:
    """PQgetCopyData and PQfreemem of the libpq that a module of psycopg is linked with: the linker finds them through it."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if not file.endswith(tuple(EXTENSION_SUFFIXES)):
        return None
    try:
        library = ctypes.CDLL(file)
        get_copy_data, free_memory = (
            ctypes.cast(function, ctypes.c_void_p).value
            for function in (library.PQgetCopyData, library.PQfreemem)
        )
    except (OSError, AttributeError):
        return None
    return (get_copy_data, free_memory) if get_copy_data and free_memory else None
