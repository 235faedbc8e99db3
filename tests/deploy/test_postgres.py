"""deploy/postgres: the roles are enough and not more, the settings and pg_hba lines are ones that servers take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cdc_audit.cli.demo.cluster import Cluster
from tests.support.daemon import DaemonProcess, cdc_audit, initialised, until
from tests.support.databases import Databases, new_databases
from tests.support.prometheus import DEPLOY
from tests.support.servers import Server

POSTGRES = DEPLOY / "postgres"


def psql(dsn: str, script: str) -> None:
    """Run one of the scripts as the README says."""
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not here: install Debian's package postgresql-client")
    done = subprocess.run(
        [program, "-X", "-q", "-d", dsn, "-f", str(POSTGRES / script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def settings(file: str) -> dict[str, str]:
    """The settings of a .conf file."""
    text = (POSTGRES / file).read_text()
    return dict(re.findall(r"^(\w+) = '?([^'#\n]*?)'?\s*(?:#.*)?$", text, re.MULTILINE))


@pytest.fixture
def least(private_cluster: Callable[..., Server]) -> Databases:
    """Two servers with the settings and the roles of deploy/postgres."""
    source = private_cluster("source", settings=settings("source.conf"))
    audit = private_cluster("audit", settings=settings("audit.conf"))
    databases = new_databases(source, audit)
    psql(databases.source_dsn, "source.sql")
    psql(databases.audit_dsn, "audit.sql")
    return databases


def test_the_roles_are_enough_for_init_doctor_and_the_daemon_and_not_more(
    least: Databases, tmp_path: Path
) -> None:
    least.source.execute("create table t (id int primary key)", dbname=least.source_name)
    least.source.execute("alter table t replica identity full", dbname=least.source_name)
    env = least.environment(
        SOURCE_DSN=least.source.dsn(least.source_name, "cdc_audit"),
        SOURCE_ADMIN_DSN=least.source_dsn,
        AUDIT_DSN=least.audit.dsn(least.audit_name, "cdc_audit_writer"),
        AUDIT_ADMIN_DSN=least.audit_dsn,
        BATCH_FLUSH_INTERVAL="0",
    )
    initialised(env)
    hardened = cdc_audit("source", "install", "--harden", env=env)
    assert hardened.returncode == 0, hardened.stderr
    doctor = cdc_audit("doctor", env=env)
    assert doctor.returncode == 0, doctor.stdout
    assert not re.search(r"^(FAIL|warn)", doctor.stdout, re.MULTILINE), doctor.stdout
    auditor = least.audit.dsn(least.audit_name, "auditor")
    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        with psycopg.connect(least.source_dsn) as source:
            source.execute("""select cdc_audit.set_context('{"user_id": "u1"}')""")
            source.execute("insert into t values (1)")
        until(lambda: daemon.metric("rows_total", action="INSERT") == 1, "the row")
    with psycopg.connect(auditor) as reader:
        found = reader.execute("select user_id, context_trust from audit.audit_logs where action = 'INSERT'")
        assert found.fetchall() == [("u1", "signed")]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("delete from audit.audit_logs")
    with (
        psycopg.connect(env["CDC_AUDIT_SOURCE_DSN"]) as source,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        source.execute("select * from t")
    with (
        psycopg.connect(env["CDC_AUDIT_AUDIT_DSN"]) as audit,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        audit.execute("select * from audit.audit_logs")
    verified = cdc_audit("verify", "--dsn", auditor, env=env)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_every_query_of_the_runbook_is_one_that_its_server_answers(least: Databases) -> None:
    initialised(
        least.environment(
            SOURCE_DSN=least.source.dsn(least.source_name, "cdc_audit"),
            SOURCE_ADMIN_DSN=least.source_dsn,
            AUDIT_ADMIN_DSN=least.audit_dsn,
        )
    )
    runbook = (DEPLOY / "README.md").read_text().partition("## Runbook")[2]
    calls = re.findall(r'psql (.*?)-c\s"(select[^"]*)"', runbook, re.DOTALL)
    assert len(calls) >= 4
    for where, query in calls:
        side = least.audit_dsn if "audit" in where else least.source_dsn
        with psycopg.connect(side) as connection:
            connection.execute(query.encode())


def test_a_server_takes_every_setting_at_its_value(private_cluster: Callable[..., Server]) -> None:
    for file in ("source.conf", "audit.conf"):
        wanted = settings(file)
        server = private_cluster(file.partition(".")[0], settings=wanted)
        taken = server.execute("select name, setting from pg_file_settings where applied and error is null")
        assert wanted
        assert wanted.items() <= {(str(name), str(value)) for name, value in taken}


def test_a_server_takes_the_pg_hba_lines(private_cluster: Callable[..., Server]) -> None:
    server = private_cluster("hba")
    if not isinstance(server, Cluster):
        pytest.skip("the file is written where the server runs")
    own = (server.data / "pg_hba.conf").read_text()
    for file in ("pg_hba.source.conf", "pg_hba.audit.conf"):
        lines = (POSTGRES / file).read_text()
        (server.data / "pg_hba.conf").write_text(own + lines)
        found = server.execute("select error from pg_hba_file_rules where error is not null")
        # The lines want TLS, which a throw-away server doesn't have.
        assert {error for (error,) in found} <= {"hostssl record cannot match because SSL is disabled"}
        rules = server.execute("select count(*) from pg_hba_file_rules")[0][0]
        assert rules == sum(bool(re.match(r"\w", line)) for line in (own + lines).splitlines())
