"""What the demo runs on: two throw-away servers, the shop's schema, and the daemon as a process."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from psycopg import Connection
from psycopg.conninfo import make_conninfo

from cdc_audit.cli.demo import process, screen
from cdc_audit.cli.demo.cluster import Cluster
from cdc_audit.cli.demo.process import DaemonProcess
from cdc_audit.errors import SettingError
from cdc_audit.postgres import connect, load_sql

SLOT = "demo"
_PACKAGE = "cdc_audit.cli.demo"


@dataclass
class Stage:
    """The servers while the demo plays; ``daemon`` is set by ``start_daemon``."""

    source: Cluster
    audit: Cluster
    plugin: str
    daemon: DaemonProcess | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The configuration: the daemon's roles with the least rights, an administrator for one-time work."""
        return {
            "SOURCE_DSN": self.source.dsn("shop", "cdc_audit_reader"),
            "SOURCE_ADMIN_DSN": self.source.dsn("shop"),
            "SOURCE_SLOT": SLOT,
            "SOURCE_PLUGIN": self.plugin,
            "AUDIT_DSN": self.audit.dsn("audit", "cdc_audit_writer"),
            "AUDIT_ADMIN_DSN": self.audit.dsn("audit"),
            "LEDGER_SIGNING_KEY_FILE": str(self.signing_key),
            "BATCH_FLUSH_INTERVAL": "0",
            "LOG_FORMAT": "json",
        }

    @property
    def signing_key(self) -> Path:
        """The daemon's private key; the public one stands beside it."""
        return self.audit.folder / "signing.pem"

    @property
    def auditor_dsn(self) -> str:
        """The connection of the person who reads the trail."""
        return self.audit.dsn("audit", "auditor")

    def start_servers(self) -> None:
        """Both servers, with the shop's tables and roles in the source."""
        for cluster, database in ((self.source, "shop"), (self.audit, "audit")):
            cluster.start()
            cluster.create_database(database)
        self.source.execute(load_sql(_PACKAGE, "sql/shop_schema.sql"), dbname="shop")
        self.audit.execute(load_sql(_PACKAGE, "sql/audit_role.sql"))

    def cdc_audit(self, *arguments: str) -> None:
        """Show and run a one-time command, and show what it prints."""
        screen.command("cdc-audit " + shlex.join(arguments))
        screen.output(process.run(list(arguments), self.settings, self.audit.folder))

    def look(self, *arguments: str, expected: int = 0) -> str:
        """The same for a command that reads the trail, as the auditor; what it printed."""
        screen.command("cdc-audit " + shlex.join(arguments))
        settings = {"AUDIT_DSN": self.auditor_dsn}
        printed = process.run(list(arguments), settings, self.audit.folder, expected)
        screen.output(printed)
        return printed

    def let_the_auditor_in(self) -> None:
        """Grant the reading role that init has made to a person."""
        self.audit.execute(load_sql(_PACKAGE, "sql/auditor.sql"))

    def start_daemon(self) -> DaemonProcess:
        """Run the daemon until it is ready."""
        self.daemon = DaemonProcess(self.settings, self.audit.folder)
        self.daemon.wait_until_ready()
        return self.daemon

    def source_connection(self, stack: ExitStack, user: str, application_name: str) -> Connection:
        """A connection of the shop's world; it finds the shop's tables."""
        dsn = make_conninfo(self.source.dsn("shop", user), options="-c search_path=public")
        return stack.enter_context(connect(dsn, side="source", application_name=application_name))

    def audit_connection(self, stack: ExitStack, dsn: str) -> Connection:
        """A connection to the trail."""
        return stack.enter_context(connect(dsn, side="audit", application_name="cdc-audit demo"))

    def print_what_is_left_running(self) -> None:
        """For ``--keep``: how to look around, and how to stop and remove everything."""
        assert self.daemon is not None
        program = Path(sys.executable).with_name("cdc-audit")
        command = (
            shlex.quote(str(program)) if program.exists() else f"{shlex.quote(sys.executable)} -m cdc_audit"
        )
        screen.title("Everything keeps running")
        screen.say("To look around, paste this into a shell:")
        lines = [
            *(f"export CDC_AUDIT_{key}={shlex.quote(value)}" for key, value in self.settings.items()),
            f"{command} log --table payments",
            f"{command} slot status",
            f"psql {shlex.quote(self.audit.dsn('audit'))}    # the trail",
            f"psql {shlex.quote(self.source.dsn('shop'))}    # the shop: change something",
            f"curl http://{self.daemon.address}/metrics",
            f"tail -f {self.daemon.log}",
        ]
        screen.plain(lines)
        screen.say("To stop and remove it all:")
        screen.plain(
            [
                f"kill {self.daemon.pid}; sleep 1; kill -INT {self.source.pid} {self.audit.pid}; sleep 1",
                f"rm -r {self.source.folder} {self.audit.folder}",
            ]
        )

    def close(self) -> None:
        """Stop and remove everything, whatever state it is in."""
        if self.daemon is not None:
            self.daemon.stop(timeout=5)
        self.source.remove()
        self.audit.remove()


def new_stage(plugin: str | None) -> Stage:
    """Choose servers and plugin: wal2json where the server has it, unless told otherwise. Starts nothing."""
    source, audit = Cluster("source"), Cluster("audit")
    has_wal2json = source.binaries.has_wal2json
    if plugin == "wal2json" and not has_wal2json:
        major = source.binaries.major
        raise SettingError(
            f"PostgreSQL {major} in {source.binaries.folder} has no wal2json",
            remedy=f"install postgresql-{major}-wal2json, or use --plugin pgoutput",
        )
    return Stage(source, audit, plugin or ("wal2json" if has_wal2json else "pgoutput"))
