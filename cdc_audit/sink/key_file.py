"""Keys in files. A key that others could have read or written is none.

The rule is that of PostgreSQL for the keys of TLS: a file of one's own has no rights for group and others. One of root may be
read by its group besides, since root gave it to the daemon that way: a Secret that Kubernetes mounts, a folder of root's.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cdc_audit.errors import SettingError


def read_private(path: str, what: str, *, make: str, replace: str) -> bytes:
    """The bytes of a key's file. ``what`` it is called in errors, ``make`` and ``replace`` say how to make it, and another one.

    Raises SettingError if there is no such file, or if others have rights on it.
    """
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            most = most_rights(found.st_uid)
            mode = stat.S_IMODE(found.st_mode)
            if mode & ~most:
                raise SettingError(
                    f"{what} {path}: others than its owner have rights on it (mode {mode:04o})",
                    remedy=f"chmod {most & ~0o100:o} {path}\nor, if others can have read it, {replace}",
                )
            return file.read()
    except OSError as error:
        raise SettingError(f"{what} {path}: {error.strerror}", remedy=make) from error


def most_rights(owner: int) -> int:
    """The most that the mode of a private file may hold, by the user id of its owner."""
    return 0o740 if owner == 0 and os.geteuid() != 0 else 0o700
