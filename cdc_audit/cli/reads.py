"""``cdc-audit reads``: what pgAudit writes of reads into the server's log, into the trail."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError, SettingError, UnavailableError
from cdc_audit.ops import log, notify
from cdc_audit.ops.reads_watch import ReadsWatch
from cdc_audit.ops.server import Server
from cdc_audit.postgres import connect
from cdc_audit.source import reads
from cdc_audit.source.follower import Follower
from cdc_audit.source.log_files import LogFolder

_LONGEST_PAUSE_S = 10.0


@click.group("reads")
def command() -> None:
    """Who read what: follow what pgAudit writes into the server's log.

    Example: cdc-audit reads follow
    """


@command.command("follow")
@click.option(
    "--from-start", is_flag=True, help="At the first start: begin with what the files hold already."
)
@click.option("--once", is_flag=True, help="Send what is there, and end.")
@with_config
def follow(config: Config, from_start: bool, once: bool) -> None:
    """Follow the source's log files ([reads] directory) and send each line of pgAudit's about a read into the source.

    From there it takes the slot's way into the trail, as a row SELECT: each line once, whatever is killed. Runs beside the log
    files, with a role of cdc-audit source install --reads. Needs PostgreSQL 15 or newer, pgAudit, and log_destination = jsonlog.
    SIGTERM ends it.

    Exit codes: 0 done, 2 usage, 69 the source is away (with --once), 77 a right is missing, 78 configuration or server setting.

    Example: cdc-audit reads follow --config /etc/cdc-audit/reads.toml
    """
    dsn = require_dsn(config.reads.dsn, "reads")
    if not config.reads.directory:
        raise SettingError(
            "[reads] directory is not set",
            remedy="set CDC_AUDIT_READS_DIRECTORY, or directory in section [reads], to the server's log_directory",
        )
    log.configure(config.log.level, config.log.format)
    watch = ReadsWatch()
    folder = LogFolder(Path(config.reads.directory))
    follower = Follower(folder, config.reads.name or socket.gethostname(), config.reads.statement, watch)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _served(config.reads.listen, watch), contextlib.closing(folder):
            _run(follower, watch, stop, config, dsn, from_start=from_start, once=once)
    except CdcAuditError as error:
        watch.warned("stopped", reason=error.message, remedy=error.remedy)
        raise
    finally:
        notify.stopping()


def _run(
    follower: Follower,
    watch: ReadsWatch,
    stop: threading.Event,
    config: Config,
    dsn: str,
    *,
    from_start: bool,
    once: bool,
) -> None:
    """Follow until told to stop, also past times in which the source is away."""
    pause = config.reads.poll_interval
    notify.ready()
    while not stop.is_set():
        try:
            with connect(dsn, side="reads", application_name="cdc-audit reads") as connection:
                found = reads.facts(connection)
                refused = reads.refusal(found)
                if refused is not None:
                    raise refused
                is_first = follower.connect(connection, found, from_start=from_start)
                watch.following(database=found.database, role=found.role, first_time=is_first)
                if not found.has_rows:
                    watch.warned(
                        "log_rows_off", remedy="pgaudit.log_rows = on gives the transaction of each read"
                    )
                pause = config.reads.poll_interval
                while not stop.is_set():
                    moved = follower.round()
                    if once and not moved and not follower.is_waiting:
                        return
                    notify.watchdog()
                    if not moved:
                        stop.wait(pause)
        except UnavailableError as error:
            if once:
                raise
            watch.away(error.message)
            watch.trying()
            stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


@contextlib.contextmanager
def _served(listen: str, watch: ReadsWatch) -> Iterator[None]:
    server = Server(listen, watch, watch) if listen else None
    if server is not None:
        host, port = server.start()
        watch.informed("listening", host=host, port=port)
    try:
        yield
    finally:
        if server is not None:
            server.stop()
