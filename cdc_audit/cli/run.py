"""``cdc-audit run``: the daemon as a process: signals, metrics, readiness."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import click
import psycopg

from cdc_audit import __version__
from cdc_audit.cli.settings import load_config, require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CdcAuditError
from cdc_audit.ops import log, months, notify
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.server import Server
from cdc_audit.ops.watch import Watch
from cdc_audit.ops.webhook import Webhook
from cdc_audit.pipeline.daemon import Daemon
from cdc_audit.seal.lines import IS_COMPILED
from cdc_audit.sink.redaction import load_redaction
from cdc_audit.sink.signing import load_signer


@click.command("run")
@with_config
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@click.option(
    "--accept-gap",
    metavar="REASON",
    default="",
    help="Go on although changes are missing; REASON goes into the ledger.",
)
@click.option(
    "--no-standby", is_flag=True, help="Exit 75 if another daemon is active, instead of waiting to take over."
)
@click.pass_context
def command(context: click.Context, config: Config, check: bool, accept_gap: str, no_standby: bool) -> None:
    """The daemon: reads the slot, writes the audit database, acknowledges what is durable.

    SIGTERM finishes the open block and exits 0; a second one exits at once. SIGHUP reads tables, redaction,
    what is suspicious, and log level again.
    A second daemon on the same slot waits and takes over when the first one ends.

    Example: cdc-audit run --config /etc/cdc-audit/cdc-audit.toml
    """
    require_dsn(config.source.dsn, "source")
    if config.audit.kind == "postgresql":
        require_dsn(config.audit.dsn, "audit")
    load_signer(config.ledger.signing_key_file)
    load_redaction(config.redact)
    if check:
        click.echo("the configuration is valid")
        return
    log.configure(config.log.level, config.log.format)
    metrics = Metrics(
        version=__version__,
        psycopg_implementation=psycopg.pq.__impl__,
        source=config.source.name,
        rules=[rule.label for rule in config.suspicious.rules],
    )
    webhook = _webhook(config)
    watch = Watch(
        metrics,
        heartbeat_interval=config.ledger.heartbeat_interval,
        forward=webhook.offer,
        names_users=config.suspicious.name_users,
    )
    watch.informed(
        "started",
        version=__version__,
        source=config.source.name,
        slot=config.source.slot,
        plugin=config.source.plugin,
        compiled=IS_COMPILED,
    )
    server = Server(config.metrics.listen, metrics, watch) if config.metrics.listen else None
    try:
        if server is not None:
            host, port = server.start()
            watch.informed("listening", host=host, port=port)
        daemon = Daemon(config, watch, accept_gap=accept_gap, waits=not no_standby)
        # What is there now stays, and rows make no cycles: looking for some every 700 objects costs 3 % of the time.
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        asyncio.run(_serve(daemon, config, watch, webhook, context))
    except CdcAuditError as error:
        watch.warned("stopped", reason=error.message, remedy=error.remedy)
        raise
    finally:
        notify.stopping()
        if server is not None:
            server.stop()


def _webhook(config: Config) -> Webhook:
    said = config.suspicious
    return Webhook(
        said.webhook,
        token_file=said.webhook_token_file,
        source=config.source.name,
        name_users=said.name_users,
    )


async def _serve(
    daemon: Daemon, config: Config, watch: Watch, webhook: Webhook, context: click.Context
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        watch.informed("stopping")
        notify.stopping()
        loop.remove_signal_handler(signal.SIGTERM)  # a second one ends the process
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        daemon.stop()

    def reload() -> None:
        notify.reloading()
        try:
            config = load_config(context.params.get("config_file"))
            daemon.reload(config)
        except CdcAuditError as error:
            watch.warned("reload_refused", reason=error.message)
        else:
            said = config.suspicious
            webhook.use(said.webhook, token_file=said.webhook_token_file, name_users=said.name_users)
            watch.watch_rules([rule.label for rule in said.rules], names_users=said.name_users)
            log.set_level(config.log.level)
            watch.informed("reloaded")
        notify.ready()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    notify.ready()
    beside = [
        asyncio.create_task(_watchdog(watch)),
        asyncio.create_task(webhook.run(watch.webhook_failed)),
    ]
    if config.audit.kind == "postgresql":
        tending = months.tend(
            config.audit.dsn, config.audit.audit_schema, watch, hot=config.retention.policy.hot
        )
        beside.append(asyncio.create_task(tending))
    try:
        await daemon.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await webhook.close(watch.webhook_failed)


async def _watchdog(watch: Watch) -> None:
    """Tell systemd that the loop is alive, as long as it is."""
    interval = notify.watchdog_interval()
    while interval is not None:
        if watch.not_live() is None:
            notify.watchdog()
        await asyncio.sleep(interval / 2)
