"""``cdc-audit demo``: two throw-away PostgreSQL servers, an application at work, and its audit trail."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack

import click

from cdc_audit.cli.demo import screen
from cdc_audit.cli.demo.claims import Claims
from cdc_audit.cli.demo.shop import Shop
from cdc_audit.cli.demo.stage import Stage, new_stage
from cdc_audit.cli.demo.story import Story
from cdc_audit.errors import CheckFailedError


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave everything running, and print how to look around.")
@click.option(
    "--plugin",
    type=click.Choice(["wal2json", "pgoutput"]),
    help="The slot's output plugin (default: wal2json where the server has it).",
)
def command(keep: bool, plugin: str | None) -> None:
    """Show the whole thing at work: two throw-away PostgreSQL servers, a small shop, and its audit trail.

    Changes nothing outside a temporary directory, takes less than a minute, and ends with exit code 1 if
    anything that it claims isn't so.

    Example: cdc-audit demo
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    stage = new_stage(plugin)
    kept = False
    try:
        _play(stage, keep=keep)
        kept = keep
    finally:
        if not kept:
            stage.close()


def _play(stage: Stage, *, keep: bool) -> None:
    _set_up(stage)
    with ExitStack() as stack:
        shop = Shop(stage.source_connection(stack, "shop_app", "shop"))
        dba = stage.source_connection(stack, "shop_dba", "psql")
        trail = stage.audit_connection(stack, stage.auditor_dsn)
        assert stage.daemon is not None
        screen.title("The shop at work, and its trail (▸) as it arrives")
        story = Story(shop, dba, trail, stage.daemon)
        story.play()

        screen.title("Who did what?")
        stage.look("log", "--table", "payments", "--record", str(story.ids["payment"]))
        stage.look("log", "--user", "carla", "--limit", "3")

        screen.title("Is it all there?")
        claims = Claims(shop, story.ids["payment"])
        claims.about_the_trail(trail)
        claims.about_tampering(stage)
        if not keep:
            claims.about_the_stop(stage, trail, stage.daemon.stop())
            screen.title("And if a superuser covers up what the administrator did?")
            claims.about_the_proof(stage)
    if claims.failed:
        raise CheckFailedError(f"{claims.failed} of the claims above are not so")
    if keep:
        stage.print_what_is_left_running()
    else:
        click.echo()
        screen.say(
            "That was all; the servers are gone. `cdc-audit demo --keep` leaves them running to look around."
        )


def _set_up(stage: Stage) -> None:
    screen.title("Two PostgreSQL servers: a shop's database, and one for its audit trail")
    major, folder = stage.source.binaries.major, stage.source.binaries.folder
    screen.say(
        f"PostgreSQL {major} from {folder}, output plugin {stage.plugin}; no change to anything else here."
    )
    stage.start_servers()

    screen.title("Set up")
    stage.cdc_audit("key", "generate", stage.signing_key.name)
    stage.cdc_audit("init")
    stage.cdc_audit("source", "tables", "--set-full", "public.*")
    stage.let_the_auditor_in()

    screen.title("The daemon")
    daemon = stage.start_daemon()
    screen.command("cdc-audit run")
    screen.output(f"ready, process {daemon.pid}; metrics at http://{daemon.address}/metrics")
