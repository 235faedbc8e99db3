"""Applications on Node, by the code in the README: node-pg and Prisma, two users, eight workers, three connections."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc_audit.cli.demo.cluster import free_port
from tests.acceptance.test_clients import TRANSACTIONS, check
from tests.acceptance.test_readme_clients import BY, IS_FRESH, block, timed
from tests.acceptance.test_readme_clients import run as call
from tests.support.daemon import until
from tests.support.databases import new_databases, url
from tests.support.live import Live, running
from tests.support.servers import Server

__all__ = ["timed"]  # a fixture

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).with_name("clients") / "node"
# npm's own words for a registry that can't be reached
UNREACHABLE = re.compile(r"ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ECONNRESET")


def node_version() -> tuple[int, ...]:
    if shutil.which("npm") is None:
        return ()
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout))


pytestmark = pytest.mark.skipif(node_version() < (20, 19), reason="no Node 20.19 or newer with npm here")


@pytest.fixture(scope="module")
def live(
    source_cluster: Server, audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    databases = new_databases(source_cluster, audit_cluster)
    try:
        with running(databases, tmp_path_factory.mktemp("daemon") / "log") as daemon:
            daemon.source.execute((EXAMPLES.parent / "orders.sql").read_text())
            yield daemon
    finally:
        databases.drop()


@pytest.fixture(scope="module")
def folder() -> Path:
    """The examples with their packages, and the README's two modules."""
    folder = ROOT / ".cache" / "node-clients"
    folder.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLES.iterdir():
        shutil.copy(path, folder)
    blocks = re.findall(r"```js\n// (\S+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["audit-pg.mjs", "server.mjs", "audit-prisma.mjs"]
    for name, code in blocks:
        (folder / name).write_text(code)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        installed = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=300)
        if installed.returncode and UNREACHABLE.search(installed.stderr):
            pytest.skip("npm reaches no registry here")
        assert installed.returncode == 0, installed.stderr
    # The schema engine, which migrates, is fetched from elsewhere; the client that is made here needs none.
    generated = subprocess.run(
        ["npx", "prisma", "generate", "--schema", "schema.prisma"],
        cwd=folder,
        env={**os.environ, "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/true", "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    return folder


@pytest.mark.parametrize("name", ["node_pg", "prisma_client"])
def test_every_row_is_its_users(live: Live, folder: Path, name: str) -> None:
    given = conninfo_to_dict(live.databases.source_dsn)
    environment = {
        **os.environ,
        "PGHOST": str(given["host"]),
        "PGPORT": str(given["port"]),
        "PGUSER": str(given["user"]),
        "PGDATABASE": str(given["dbname"]),
        "CLIENTS_TRANSACTIONS": str(TRANSACTIONS),
    }
    done = subprocess.run(
        ["node", f"{name}.mjs"], cwd=folder, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    check(live, name, TRANSACTIONS)


@pytest.mark.usefixtures("timed")
def test_a_node_developer(live: Live, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if IS_FRESH:
        call("npm", "init", "-y", cwd=tmp_path)
        call("npm", "install", "--no-audit", "--no-fund", "pg", cwd=tmp_path)
    else:
        (tmp_path / "node_modules").symlink_to(request.getfixturevalue("folder") / "node_modules")
    for name in ("audit-pg.mjs", "server.mjs"):
        (tmp_path / name).write_text(block(name))
    live.source.execute("alter table orders alter app set default current_setting('application_name')")
    port = free_port()
    env = {"DATABASE_URL": url(live.databases.source_dsn), "PGAPPNAME": "node", "PORT": str(port)}
    with subprocess.Popen(["node", "server.mjs"], cwd=tmp_path, env={**os.environ, **env}) as server:
        try:
            until(lambda: server.poll() is not None or _answers(port, "ann"), "the server answers")
            for user in ("ben", "o'hara") * 10:
                assert _answers(port, user)
        finally:
            server.terminate()
    live.settle()
    assert live.audit.execute(BY, ("node",)).fetchall() == [(0, 21)]


def _answers(port: int, user: str) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", headers={"X-User": user, "Connection": "close"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except ConnectionError:
        return False
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError):
            return False
        raise
