"""The systemd units of deploy/, as systemd would read them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.support.prometheus import DEPLOY

SYSTEMD = DEPLOY / "systemd"


def settings(unit: str) -> list[tuple[str, str]]:
    """Each assignment of a unit file in its order, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (SYSTEMD / unit).read_text())
    return [(name, value) for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)]


def textfile(trail: str, exit_status: str, folder: Path, exit_code: str = "exited") -> str:
    """What the ExecStopPost of cdc-audit-verify@.service writes: its shell command is run, with a folder of the test's own."""
    command = dict(settings("cdc-audit-verify@.service"))["ExecStopPost"]
    shell = re.fullmatch(r"\+/bin/sh -c '(.*)'", command)
    assert shell is not None
    # systemd.syntax(7) and systemd.unit(5): C escapes within quotes, specifiers, $$.
    script = shell[1].replace("%i", trail).replace("%%", "%").replace("$$", "$").replace("\\\\", "\\")
    script = script.replace("/var/lib/prometheus/node-exporter", str(folder))
    subprocess.run(
        ["/bin/sh", "-c", script],
        env={**os.environ, "EXIT_CODE": exit_code, "EXIT_STATUS": exit_status},
        check=True,
    )
    return (folder / f"cdc-audit-{trail}.prom").read_text()
