"""Compile the hot loops, in C, beside the Python that does the same: ``make native``, or, for a wheel,
``CDC_AUDIT_NATIVE=1 pip wheel .``.

Optional: without them nothing is missing but speed. Needs a C compiler, Python's headers and OpenSSL's
(Debian: ``apt-get install gcc python3-dev libssl-dev``).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parents[2]
SOURCES = {
    "cdc_audit/decode/_wal2json.c": (),
    "cdc_audit/decode/_pgoutput.c": (),
    "cdc_audit/seal/_copy_binary.c": (),
    "cdc_audit/seal/_lines.c": ("-lcrypto",),
    "cdc_audit/source/_drain.c": (),
}
_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-strict-aliasing",
    "-fstack-protector-strong",
    "-Wall",
)


def compile_all(into: Path = ROOT) -> list[Path]:
    """Compile each source to a module below ``into``, at its place in the package. ``CC`` and ``CFLAGS`` are heeded.

    Raises CalledProcessError, and FileNotFoundError where there is no compiler.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = shlex.split(os.environ.get("CFLAGS", ""))
    made = []
    for source, libraries in SOURCES.items():
        module = (into / source).with_suffix(str(sysconfig.get_config_var("EXT_SUFFIX")))
        module.parent.mkdir(parents=True, exist_ok=True)
        include = f"-I{sysconfig.get_path('include')}"
        command = [*compiler, *_FLAGS, *flags, include, str(ROOT / source), *libraries, "-o", str(module)]
        subprocess.run(command, check=True)
        made.append(module)
    return made


class NativeHook(BuildHookInterface[Any]):
    """hatchling's hook: compiles where CDC_AUDIT_NATIVE is 1, and then the wheel is for this machine's kind alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        """Called before a wheel is put together."""
        if os.environ.get("CDC_AUDIT_NATIVE") != "1":
            return
        made = compile_all()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"] += [str(module.relative_to(ROOT)) for module in made]


if __name__ == "__main__":
    sys.stdout.writelines(f"{module.relative_to(ROOT)}\n" for module in compile_all())
