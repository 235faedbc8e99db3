"""Memory that is done with goes back to the system, so that no process stays as large as it once was."""

from __future__ import annotations

import ctypes
import gc
import os

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library


def give_back() -> None:
    """To be called when something large is over: the collector would not come for hours, since rows make no cycles, and the C
    library keeps what is freed between what isn't.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


def let_arrow_give_back() -> None:
    """Arrow takes its memory from the C library, not from an allocator of its own, which keeps what is freed whatever is asked.

    To be called before pyarrow is imported (https://arrow.apache.org/docs/cpp/env_vars.html); who has chosen one keeps it.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
