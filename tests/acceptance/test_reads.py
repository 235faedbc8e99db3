"""Reads that pgAudit writes into the server's log: each line is one row of the trail, whatever is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg

from cdc_audit.cli.demo.cluster import Cluster, free_port
from tests.support.command_line import commands, examples
from tests.support.daemon import cdc_audit, until
from tests.support.databases import Databases, new_databases
from tests.support.live import Live, running
from tests.support.pgaudit import Logged, auditing_server, logged_reads
from tests.support.servers import Server

READS = int(os.environ.get("CDC_AUDIT_TEST_READS", "5200"))
SESSIONS, KILLS = 4, 5
PATIENT = 'patients "VIP"'
SETUP = f"""
create schema clinic;
create table clinic.visits (id int primary key, patient int, note text);
create table clinic."{PATIENT.replace('"', '""')}" (id int primary key, name text);
insert into clinic.visits select n, n % 50, 'note ' || n from generate_series(1, 200) n;
insert into clinic."{PATIENT.replace('"', '""')}" select n, 'p' || n from generate_series(1, 50) n;
create view clinic.latest as select * from clinic.visits order by id desc limit 3;
create function clinic.count_visits(p int) returns bigint language plpgsql as $$
begin return (select count(*) from clinic.visits where patient = p); end $$;
grant select on clinic.visits to object_auditor;
"""
QUOTED = f'clinic."{PATIENT.replace(chr(34), chr(34) * 2)}"'
ROLES = """
create role object_auditor; create role nurse login; create role reader login;
grant pg_read_all_data, pg_write_all_data to nurse;
alter role postgres set pgaudit.log = 'none'; alter role postgres set pgaudit.role = '';
"""


class FollowProcess:
    """``cdc-audit reads follow`` as its example says; whatever is left of it is killed at the end of its ``with``."""

    def __init__(self, env: Mapping[str, str], log: Path, *arguments: str) -> None:
        config = log.with_name("reads.toml")
        config.touch()
        (example,) = examples(dict(commands())[("reads", "follow")])
        typed = [str(config) if word == "/etc/cdc-audit/reads.toml" else word for word in example]
        self._env, self._log, self._arguments = env, log, (*typed, *arguments)
        self.process: subprocess.Popen[bytes] | None = None
        self._begun = 0  # where this process's lines begin in the log

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._begun = log.tell()
            command = [sys.executable, "-m", "cdc_audit", *self._arguments]
            self.process = subprocess.Popen(command, env=dict(self._env), stdout=log, stderr=log)

    def until_following(self) -> None:
        until(lambda: '"following"' in self.log_text()[self._begun :], "the log is followed")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.until_following()  # before it does, a signal ends it like any program
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def log_text(self) -> str:
        return self._log.read_text()


@contextmanager
def scene(
    private_cluster: Callable[..., Cluster], audit: Server, folder: Path, **settings: str | int
) -> Iterator[tuple[Cluster, Databases, Live, dict[str, str]]]:
    """A server that audits reads, the daemon, and the follower's environment."""
    with auditing_server(private_cluster, **settings) as server:
        databases = new_databases(server, audit)
        server.execute(ROLES)
        server.execute(SETUP, dbname=databases.source_name)
        env = databases.environment(
            READS_DSN=server.dsn(databases.source_name, "reader"),
            READS_DIRECTORY=str(server.data / "log"),
            READS_POLL_INTERVAL="0.05",
            READS_LISTEN=f"127.0.0.1:{free_port()}",  # an empty variable is none: it would be the default port
        )
        with running(databases, folder / "daemon") as live:
            done = cdc_audit("source", "install", "--reads", "reader", env=env)
            assert done.returncode == 0, done.stderr
            yield server, databases, live, env
        databases.drop()


def read_much(dsn: str, seed: int, count: int) -> None:
    """One session's reads in all their forms; each counts for one line or more."""
    draw = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True, application_name=f'ward "{seed}"') as db:
        db.prepare_threshold = None  # else psycopg deallocates all, also ours
        db.execute(
            f"prepare visit(int) as select * from clinic.visits where id = $1 and note <> 'sec''ret {seed}'"
        )
        for n in range(count):
            number = draw.randint(1, 200)
            match draw.randint(0, 8):
                case 0:
                    db.execute(f"select * from clinic.visits\nwhere note = 'it''s \"quoted\"\n, {number}'")
                case 1:
                    db.execute(
                        f"select * from {QUOTED} p join clinic.visits v on v.patient = p.id where v.id = {number}"
                    )
                case 2:
                    db.execute(f"execute visit({number})")
                case 3:
                    db.execute("select * from clinic.visits where id = %s and note <> %s", (number, 'a"b,\n'))
                case 4:
                    with db.cursor().copy("copy clinic.visits to stdout") as copy:
                        assert sum(1 for _ in copy) >= 200
                case 5:
                    with db.cursor().copy(
                        f"copy (select note from clinic.visits where id = {number}) to stdout"
                    ) as copy:
                        list(copy)
                case 6:
                    db.execute(f"select clinic.count_visits({number})")
                case 7:
                    db.execute("select note from clinic.latest")
                case _:
                    with db.transaction(force_rollback=n % 2 == 0):
                        db.execute("update clinic.visits set note = note where id = %s", (1000 + seed,))
                        db.execute(f"select * from clinic.visits where id = {number}")


def rows(live: Live) -> list[Logged]:
    """What the trail holds of reads, in the form of the log's lines."""
    query = """
        select new_data ->> 'session', (new_data ->> 'line')::int, db_user, application_name, coalesce(host(ip_address), ''),
               coalesce((new_data ->> 'xid')::bigint, 0), new_data ->> 'audit', new_data ->> 'command', schema_name, table_name,
               coalesce(new_data ->> 'statement', ''), (new_data ->> 'rows')::int, new_data ->> 'named_by'
        from audit.audit_logs where action = 'SELECT' order by id"""
    found = []
    for *start, schema, table, statement, count, named_by in live.audit.execute(query).fetchall():
        named = "" if not schema or named_by else f"{schema}.{quoted(table)}"
        found.append(Logged._make([*start, named, statement, count]))
    return found


def quoted(name: str) -> str:
    return name if name.isidentifier() else '"' + name.replace('"', '""') + '"'


def settled(live: Live, follower: FollowProcess, count: int) -> None:
    """Wait until the trail has so many reads."""
    query = "select count(*) >= %s from audit.audit_logs where action = 'SELECT'"

    def is_there() -> bool:
        assert follower.process is not None
        assert follower.process.poll() is None, follower.log_text()
        return live.audit.execute(query, (count,)).fetchone() == (True,)

    until(is_there, "the trail has all reads of the log")


def written_down(folder: Path, database: str, statement: str) -> None:
    """Wait until the server has written a read down: its logger is another process."""
    until(
        lambda: any(statement in str(read) for read in logged_reads(folder, database)),
        f"the log has {statement}",
    )


def test_each_read_is_one_row_across_rotations_restarts_and_sigkills(
    private_cluster: Callable[..., Cluster], audit_cluster: Server, tmp_path: Path
) -> None:
    settings = {"log_rotation_size": "200kB", "log_filename": "%S-%M-%H.log", "pgaudit.log_parameter": "on"}
    with scene(private_cluster, audit_cluster, tmp_path, **settings) as (server, databases, live, env):
        env |= {"CDC_AUDIT_READS_STATEMENT": "full"}
        dsn, folder = server.dsn(databases.source_name, "nurse"), server.data / "log"
        with FollowProcess(env, tmp_path / "follower", "--from-start") as follower:
            follower.until_following()
            over = threading.Event()
            draw = random.Random(9)
            count = READS * 2 // 3 // SESSIONS  # a statement is a line and a half or more

            def rotate() -> None:
                while not over.wait(0.7):
                    live.source.execute("select pg_rotate_logfile()")

            with ThreadPoolExecutor(SESSIONS + 1) as pool:
                rotating = pool.submit(rotate)
                work = [pool.submit(read_much, dsn, seed, count) for seed in range(SESSIONS)]
                try:
                    for _ in range(KILLS):
                        time.sleep(draw.uniform(0.3, 1.2))  # a moment by chance, not a condition
                        follower.kill()
                        follower.start()
                    for one in work:
                        one.result()
                finally:
                    over.set()
                rotating.result()
            logged = logged_reads(folder, databases.source_name)
            settled(live, follower, len(logged))
            assert follower.stop() == 0, follower.log_text()
        stored = rows(live)
        assert len(logged) >= READS
        assert len(list(folder.glob("*.json"))) > 3
        assert Counter(row[:2] for row in stored) == Counter(row[:2] for row in logged)
        assert sorted(stored) == sorted(logged)
        assert {row.audit for row in logged} == {"SESSION", "OBJECT"}
        assert {row.command for row in logged} >= {"SELECT", "COPY", "PREPARE"}
        assert "READ_GAP" not in {
            row[0] for row in live.audit.execute("select distinct action from audit.audit_logs")
        }
        done = cdc_audit("verify", env=env)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_read_has_its_transactions_user_and_no_values_and_what_is_missing_is_said(
    private_cluster: Callable[..., Cluster], audit_cluster: Server, tmp_path: Path
) -> None:
    with scene(private_cluster, audit_cluster, tmp_path, log_timezone="Asia/Kolkata") as (
        server,
        databases,
        live,
        env,
    ):
        folder = server.data / "log"
        with FollowProcess(env, tmp_path / "follower", "--from-start") as follower:
            follower.until_following()
            with psycopg.connect(server.dsn(databases.source_name, "nurse")) as nurse:
                nurse.execute('select cdc_audit.set_context(\'{"user_id": "u42"}\'::text)')
                nurse.execute("update clinic.visits set note = 'seen' where id = 1")
                nurse.execute("select * from clinic.visits where note = 'ca''nary' and id = 4711")
                nurse.commit()
                nurse.execute("select * from clinic.visits where id = 1")
            # Before the restart: the daemon reconnects after it, and remembers no context from before.
            written_down(folder, databases.source_name, "where id = 1")
            settled(live, follower, len(logged_reads(folder, databases.source_name)))
            server.restart("fast")  # the log goes on in another file or at the end of this one
            with (
                psycopg.connect(server.dsn(databases.source_name, "nurse")) as nurse,
                nurse.cursor().copy("copy clinic.visits to stdout") as copy,
            ):
                list(copy)
            written_down(folder, databases.source_name, "copy clinic.visits")
            settled(live, follower, len(logged_reads(folder, databases.source_name)))
            follower.kill()
            with psycopg.connect(server.dsn(databases.source_name, "nurse")) as nurse:
                nurse.execute("select * from clinic.visits where id = 2")
            for path in folder.glob("*.json"):
                path.unlink()
            follower.start()
            gap = "select new_data ->> 'gap' from audit.audit_logs where action = 'READ_GAP'"
            until(lambda: live.audit.execute(gap).fetchall(), "the trail says that reads are missing")
            assert follower.stop() == 0, follower.log_text()
            assert follower.log_text().count('"read_gap"') == len(live.audit.execute(gap).fetchall())
        query = """
            select user_id, context_trust, db_user, schema_name, table_name, new_data ->> 'statement', new_data ->> 'rolled_back'
            from audit.audit_logs
            where action = 'SELECT' and table_name = 'visits' and new_data ->> 'audit' = 'SESSION' order by id"""
        redacted = "select * from clinic.visits where note = ? and id = ?"
        plain = "select * from clinic.visits where id = ?"
        assert live.audit.execute(query).fetchall() == [
            ("u42", "signed", "nurse", "clinic", "visits", redacted, "unknown"),
            (None, "signed", "nurse", "clinic", "visits", plain, "unknown"),
            (None, "signed", "nurse", "clinic", "visits", "copy clinic.visits to stdout", "unknown"),
        ]
        times = "select bool_and((new_data ->> 'at')::timestamptz between created_at - interval '1 min' and created_at)"
        assert live.audit.execute(f"{times} from audit.audit_logs where action = 'SELECT'").fetchone() == (
            True,
        )
        doctor = cdc_audit("doctor", "--json", env=env)
        (found,) = [line for line in doctor.stdout.splitlines() if '"name":"reads"' in line]
        assert '"status":"warn"' in found  # the files are gone
        audited = cdc_audit(
            "reads", "follow", env=env | {"CDC_AUDIT_READS_DSN": server.dsn(databases.source_name, "nurse")}
        )
        assert audited.returncode == 77, audited.stderr
        assert cdc_audit("source", "uninstall", "--yes", env=env).returncode == 0
        assert (
            server.execute("select setrole::regrole::text from pg_db_role_setting where setdatabase <> 0")
            == []
        )
        assert server.execute("select to_regnamespace('cdc_audit')", dbname=databases.source_name) == [
            (None,)
        ]
        assert cdc_audit("reads", "follow", "--once", env=env).returncode == 77
