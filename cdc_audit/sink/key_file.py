"""Keys in files. A key that others than its owner could have read or written is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cdc_audit.errors import SettingError


def read_private(path: str, what: str, *, make: str, replace: str) -> bytes:
    """The bytes of a key's file. ``what`` it is called in errors, ``make`` and ``replace`` say how to make it, and another one.

    Raises SettingError if there is no such file, or if its group or others have any right on it.
    """
    try:
        with Path(path).open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise SettingError(
                    f"{what} {path}: others than its owner have rights on it (mode {mode:04o})",
                    remedy=f"chmod 600 {path}\nor, if others can have read it, {replace}",
                )
            return file.read()
    except OSError as error:
        raise SettingError(f"{what} {path}: {error.strerror}", remedy=make) from error
