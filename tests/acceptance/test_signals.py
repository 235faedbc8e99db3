"""SIGHUP reads tables and redaction again; the rest of the configuration stays."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.daemon import DaemonProcess, initialised, until
from tests.support.databases import Databases


def test_sighup_takes_other_tables_and_redaction_rules_without_losing_the_stream(
    databases: Databases, tmp_path: Path
) -> None:
    file = tmp_path / "cdc-audit.toml"
    file.write_text("[log]\nlevel = 'info'\n")
    env = databases.environment(BATCH_FLUSH_INTERVAL="0", CONFIG=str(file))
    del env["CDC_AUDIT_SOURCE_EXCLUDE"]
    databases.source.execute("create table t (id int primary key, note text)", dbname=databases.source_name)
    databases.source.execute("create table noise (id int primary key)", dbname=databases.source_name)
    initialised(env)
    query = "select table_name, new_data ->> 'note' from audit.audit_logs order by id"

    def trail() -> list[tuple[object, ...]]:
        return databases.audit.execute(query, dbname=databases.audit_name)

    with DaemonProcess(env, tmp_path / "log") as daemon:
        daemon.until_ready()
        databases.source.execute("insert into t values (1, 'seen')", dbname=databases.source_name)
        databases.source.execute("insert into noise values (1)", dbname=databases.source_name)
        until(lambda: len(trail()) == 2, "both tables are in scope")
        file.write_text(
            "[source]\nexclude = ['public.noise']\n[[redact.rules]]\ntable = 'public.t'\ncolumn = 'note'\nmode = 'mask'\n"
        )
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reloaded"), "it says that it has reloaded")
        databases.source.execute("insert into noise values (2)", dbname=databases.source_name)
        databases.source.execute("insert into t values (2, 'unseen')", dbname=databases.source_name)
        until(lambda: len(trail()) == 3, "the third row")
        file.write_text("[source]\nexclud = ['x.y']\n")
        daemon.signal(signal.SIGHUP)
        until(lambda: daemon.events("reload_refused"), "a wrong file is refused, and the daemon goes on")
        databases.source.execute("insert into t values (3, 'x')", dbname=databases.source_name)
        until(lambda: len(trail()) == 4, "the fourth row")
        assert daemon.stop() == 0
    assert trail() == [("t", "seen"), ("noise", None), ("t", "[redacted]"), ("t", "[redacted]")]
