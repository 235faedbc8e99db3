"""The compiled hot loops, made for the tests in a folder of their own: what is tested otherwise stays pure Python."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str, path: Path) -> ModuleType:
    """A module from a file, without a place in ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package_in(folder: Path) -> None:
    """The package, compiled, as ``folder/cdc_audit``. Skips where there is nothing to compile with."""
    shutil.copytree(
        ROOT / "cdc_audit", folder / "cdc_audit", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    )
    require_compiler()
    load("native_build", ROOT / "deploy" / "native" / "build.py").compile_all(into=folder)


@cache
def _lacks() -> str:
    compiler = (os.environ.get("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return "a C compiler"
    headers = "#include <Python.h>\n#include <openssl/evp.h>\n"
    command = [compiler, "-E", "-x", "c", "-I", sysconfig.get_path("include"), "-"]
    done = subprocess.run(command, input=headers, text=True, capture_output=True)
    return "" if done.returncode == 0 else "the headers of Python or OpenSSL"


def require_compiler() -> None:
    """Skip where there is nothing to compile with: the compiled loops are optional."""
    if _lacks():
        pytest.skip(f"{_lacks()} is missing here: the compiled loops are optional")


def compiled(folder: Path, room: str, name: str) -> ModuleType:
    """One compiled module of ``package_in``."""
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    return load(f"cdc_audit.{room}.{name}", folder / "cdc_audit" / room / f"{name}{suffix}")
