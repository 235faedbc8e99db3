"""``CopiedCluster``: a server whose files are a copy of what initdb made once in this process, for a tenth of its work."""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import Any

from cdc_audit.cli.demo.binaries import Binaries
from cdc_audit.cli.demo.cluster import Cluster

_templates: dict[Binaries, Cluster] = {}


class CopiedCluster(Cluster):
    """As ``Cluster``; has a system identifier of its own, too, by which the product tells one server from another."""

    def __init__(self, name: str = "cluster", **options: Any) -> None:
        super().__init__(name, **options)
        self._given = self.binaries  # may become a copy in this server's folder

    def _make_data(self) -> None:
        if self._initdb_options:
            super()._make_data()
            return
        subprocess.run(["cp", "-a", _template(self._given).data, self.data], check=True)
        # pg_control begins with the identifier. Its checksum is wrong then, which -f lets pass, and all is written anew with a log.
        with (self.data / "global" / "pg_control").open("r+b") as control:
            control.write(secrets.randbits(63).to_bytes(8, sys.byteorder))
        subprocess.run(
            [self.binaries.program("pg_resetwal"), "-f", "-D", self.data],
            check=True,
            capture_output=True,
            **self._as_account(),
        )


def remove_templates() -> None:
    """Delete what the copies were made from."""
    while _templates:
        _templates.popitem()[1].remove()


def _template(binaries: Binaries) -> Cluster:
    if binaries not in _templates:
        template = Cluster("template", binaries=binaries)
        template._make_data()
        _templates[binaries] = template
    return _templates[binaries]
