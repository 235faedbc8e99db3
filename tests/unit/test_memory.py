"""What was freed goes back to the system. In processes of their own: a test's has memory of others in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_FRAGMENTS = """
import re
from pathlib import Path
from cdc_audit import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

pieces = [bytes(600) for _ in range(200_000)]
kept = pieces[::1000]
full = resident()
del pieces
freed = resident()
memory.give_back()
print(full - freed, full - resident())
"""
_ARCHIVING = """
import sys
from click.testing import CliRunner
from cdc_audit.cli import cdc_audit

CliRunner().invoke(cdc_audit, ["archive", "verify", "--archive", "file:" + sys.argv[1]])
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


def said(code: str, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is of the GNU C library")
def test_freed_memory_between_what_is_kept_goes_back() -> None:
    by_itself, given_back = map(int, said(_FRAGMENTS).split())
    assert by_itself < 20, "the C library gave it back by itself: this shows nothing"
    assert given_back > 80


def test_arrow_takes_memory_where_it_can_be_given_back(tmp_path: Path) -> None:
    assert said(_ARCHIVING, str(tmp_path)) == "system\n"
