"""PostgreSQL's own programs, as an administrator uses them."""

from __future__ import annotations

import subprocess

from cdc_audit.cli.demo.binaries import find_binaries
from tests.support.servers import Server


def psql(dsn: str, statements: str, *options: str) -> None:
    """Give psql these statements; it must succeed. ``-1`` makes them one transaction."""
    program = str(find_binaries().program("psql"))
    command = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-d", dsn]
    done = subprocess.run(command, input=statements, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{statements[:200]}\n{done.stderr}"


def dumped(server: Server, database: str, schema: str) -> str:
    """Every object of a schema with its owner and its rights, as pg_dump writes them."""
    program = str(find_binaries().program("pg_dump"))
    command = [program, "--schema-only", f"--schema={schema}", "-d", server.dsn(database)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # The keys of \restrict are random.
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("\\"))
