"""README, "Say who it is", taken word by word: each developer has his own application, adds what the README says, and is done.
Node's is in ``test_node_clients``, which has its packages.

CDC_AUDIT_TEST_FRESH=1 makes a new virtual environment or npm folder for each, and installs what the README says into it: so long
does it take a developer. Without it the packages are those of the test's own environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.bouncer import PgBouncer, find_pgbouncer
from tests.support.databases import new_databases, url
from tests.support.live import Live, running
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
OTHERS = Path(__file__).with_name("clients") / "other"
README = (ROOT / "README.md").read_text(encoding="utf-8")
IS_FRESH = bool(os.environ.get("CDC_AUDIT_TEST_FRESH"))
PQ = Path("/usr/share/gocode/src/github.com/lib/pq")
JDBC = Path("/usr/share/java/postgresql.jar")
BY = """
select count(*) filter (where user_id is distinct from new_data ->> 'who' or context_trust <> 'signed'), count(*)
from audit.audit_logs where table_name = 'orders' and new_data ->> 'app' = %s"""

Record = Callable[[str, object], None]


def block(name: str) -> str:
    """The README's code whose first line names this file."""
    found = re.findall(rf"```\w+\n(?://|#) {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1, name
    return str(found[0])


@pytest.fixture(scope="module")
def live(
    source_cluster: Server, audit_cluster: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    databases = new_databases(source_cluster, audit_cluster)
    try:
        with running(databases, tmp_path_factory.mktemp("daemon") / "log") as daemon:
            daemon.source.execute(
                "create table orders (id bigint generated always as identity primary key,"
                " app text default current_setting('application_name'), who text not null, note text)"
            )
            yield daemon
    finally:
        databases.drop()


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 180) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def python_with(folder: Path, *packages: str) -> str:
    """An interpreter that has what the developer's application is made of, and what the README adds."""
    if not IS_FRESH:
        return sys.executable
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "-q", *packages, cwd=folder)
    (command,) = re.findall(r"^\$ (pip install --no-deps \.)", README, re.MULTILINE)
    run(python, "-m", *command.split(), cwd=ROOT)
    return python


@pytest.fixture
def timed(request: pytest.FixtureRequest, record_property: Record) -> Iterator[None]:
    """How long it took stands at the end of the run."""
    began = time.monotonic()
    yield
    title = "README, Say who it is, word by word" + (", in a new environment" if IS_FRESH else "")
    row = (request.node.name, f"{time.monotonic() - began:.1f}")
    record_property("table", (title, ("who", "seconds"), row))


@pytest.mark.usefixtures("timed")
def test_a_django_developer(live: Live, tmp_path: Path) -> None:
    python = python_with(tmp_path, "django", "psycopg[binary]")
    run(python, "-m", "django", "startproject", "shop", ".", cwd=tmp_path)
    given = conninfo_to_dict(live.databases.source_dsn)
    place = {"ENGINE": "django.db.backends.postgresql", "NAME": given["dbname"], "USER": given["user"]}
    place |= {"HOST": given["host"], "PORT": given["port"]}
    settings = tmp_path / "shop" / "settings.py"
    own = f"\nDATABASES = {{'default': {place!r}}}\nALLOWED_HOSTS = ['*']\n"
    settings.write_text(settings.read_text() + own + block("at the end of settings.py"))
    manage = str(tmp_path / "manage.py")
    admin = {"DJANGO_SUPERUSER_PASSWORD": "not a secret"}
    run(python, manage, "migrate", "-v", "0", cwd=tmp_path)
    options = ("--noinput", "--username", "ann", "--email", "ann@example.org")
    run(python, manage, "createsuperuser", *options, cwd=tmp_path, env=admin)
    visit = (
        "from django.test import Client\n"
        "visitor = Client(headers={'User-Agent': 'a browser', 'X-Request-Id': 'r1'})\n"
        "said = {'username': 'ann', 'password': 'not a secret'}\n"
        "assert visitor.post('/admin/login/?next=/admin/', said).status_code == 302\n"
        "assert visitor.post('/admin/auth/group/add/', {'name': 'editors'}).status_code == 302\n"
    )
    run(python, manage, "shell", "-c", visit, cwd=tmp_path)
    live.settle()
    columns = "user_id, user_email, host(ip_address), user_agent, context ->> 'request_id', context_trust"
    found = live.audit.execute(
        f"select {columns} from audit.audit_logs where table_name in ('auth_group', 'django_admin_log')".encode()
    ).fetchall()
    assert found == [("1", "ann@example.org", "127.0.0.1", "a browser", "r1", "signed")] * 2
    commands = live.audit.execute(
        "select distinct context ->> 'command' from audit.audit_logs where table_name like 'django\\_%'"
        " and user_id is null order by 1"
    ).fetchall()
    assert ("migrate",) in commands


@pytest.mark.usefixtures("timed")
def test_a_fastapi_developer(live: Live, tmp_path: Path) -> None:
    python = python_with(tmp_path, "fastapi", "sqlalchemy", "psycopg[binary]", "httpx")
    (tmp_path / "main.py").write_text(block("main.py"))
    visit = (
        "import asyncio, httpx, main\n"
        "async def visit():\n"
        "    transport = httpx.ASGITransport(main.app, client=('10.0.0.9', 4711))\n"
        "    async with httpx.AsyncClient(transport=transport, base_url='http://shop') as client:\n"
        "        for user in ('ann', 'ben') * 10:\n"
        "            (await client.post('/orders', headers={'X-User': user})).raise_for_status()\n"
        "asyncio.run(visit())\n"
    )
    dsn = url(live.databases.source_dsn).replace("://", "+psycopg://", 1)
    run(python, "-c", visit, cwd=tmp_path, env={"DATABASE_URL": dsn, "PGAPPNAME": "fastapi"})
    live.settle()
    assert live.audit.execute(BY, ("fastapi",)).fetchall() == [(0, 20)]
    said = live.audit.execute(
        "select distinct user_email, host(ip_address) from audit.audit_logs where new_data ->> 'app' = 'fastapi' order by 1"
    ).fetchall()
    assert said == [("ann@example.org", "10.0.0.9"), ("ben@example.org", "10.0.0.9")]


def _has_active_record() -> bool:
    if shutil.which("ruby") is None:
        return False
    return (
        subprocess.run(
            ["ruby", "-e", "require 'active_record'; require 'pg'"], capture_output=True
        ).returncode
        == 0
    )


@pytest.mark.skipif(not _has_active_record(), reason="no Ruby with ActiveRecord and pg here")
def test_active_record(live: Live, tmp_path: Path) -> None:
    shutil.copy(OTHERS / "main.rb", tmp_path)
    (tmp_path / "audit.rb").write_text(block("app/models/audit.rb"))
    given = conninfo_to_dict(live.databases.source_dsn)
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}
    run("ruby", "main.rb", cwd=tmp_path, env={name: str(given[key]) for name, key in names.items()})
    live.settle()
    assert live.audit.execute(BY, ("ruby",)).fetchall() == [(0, 160 + 53)]


@pytest.mark.skipif(shutil.which("go") is None or not PQ.exists(), reason="no Go with lib/pq here")
def test_go(live: Live, tmp_path: Path) -> None:
    shutil.copy(OTHERS / "main.go", tmp_path)
    (tmp_path / "audit.go").write_text(block("audit.go"))
    env = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
    dsn = url(live.databases.source_dsn)
    database = dsn + ("&" if "?" in dsn else "?") + "sslmode=disable"
    run("go", "run", "main.go", "audit.go", cwd=tmp_path, env={**env, "DATABASE_URL": database})
    live.settle()
    assert live.audit.execute(BY, ("go",)).fetchall() == [(0, 320)]


@pytest.mark.skipif(
    shutil.which("javac") is None or not JDBC.exists() or find_pgbouncer() is None,
    reason="no JDK with pgjdbc, or no PgBouncer here",
)
def test_jdbc(live: Live, tmp_path: Path) -> None:
    """Behind PgBouncer: JDBC knows no Unix sockets, which the tests' server listens on."""
    (tmp_path / "Audit.java").write_text(block("Audit.java"))
    run("javac", "-d", ".", "Audit.java", OTHERS / "Main.java", cwd=tmp_path)
    program = find_pgbouncer()
    assert program is not None
    with PgBouncer(program, live.databases.source_dsn) as bouncer:
        given = conninfo_to_dict(bouncer.dsn)
        server = f"{given['host']}:{given['port']}/{given['dbname']}"
        address = f"jdbc:postgresql://{server}?user={given['user']}&prepareThreshold=0"
        run("java", "-cp", f".:{JDBC}", "Main", cwd=tmp_path, env={"JDBC_URL": address})
    live.settle()
    assert live.audit.execute(BY, ("java",)).fetchall() == [(0, 160)]
