"""``cdc-audit undo``: prints SQL that takes changes back."""

from __future__ import annotations

import click

from cdc_audit.cli.reading import dsn_option, moment, open_trail, record_reading
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError, UsageError
from cdc_audit.trail.query import Filters, read_log
from cdc_audit.trail.undo import script


@click.command(epilog="Example: cdc-audit undo --xid 738 --as u42 --reason 'ticket 4711' > undo.sql")
@click.option("--xid", type=click.IntRange(min=0), help="All changes of this transaction.")
@click.option("--id", "row_id", type=click.IntRange(min=1), help="The change of this row of the trail.")
@click.option("--user", metavar="WHO", help="All changes of this user; with --since.")
@click.option("--since", metavar="TIME", help="With --user: as in the log.")
@click.option("--until", metavar="TIME", help="With --user: before this moment.")
@click.option(
    "--as", "actor", metavar="ID", default="undo", show_default=True, help="user_id of who undoes it."
)
@click.option("--reason", metavar="TEXT", help="Why; goes to the context (default: what is undone).")
@dsn_option
@with_config
def command(
    config: Config,
    *,
    xid: int | None,
    row_id: int | None,
    user: str | None,
    since: str | None,
    until: str | None,
    actor: str,
    reason: str | None,
    dsn: str | None,
) -> None:
    """Print SQL that takes changes back, newest first. It runs nothing: read it, then run it on the source.

    The SQL is one transaction. It refuses, and leaves everything as it is, if a row isn't what the change made of it. Its changes
    come into the trail like any others, with --as and --reason as their context. The tables' triggers run.

    What has no whole images (REPLICA IDENTITY FULL gives them), was redacted, erased, or emptied by TRUNCATE can't be taken back:
    then nothing is printed.

    Exit codes: 0 done, 1 it can't be taken back, or there is nothing to take back; 2 usage, 69 the audit database is away,
    77 the role may not read, 78 configuration.
    """
    if [xid, row_id, user].count(None) != 2 or (user is None) != (since is None) or (until and user is None):
        raise UsageError(
            "what is to be undone?", remedy="give one of: --xid XID, --id ID, --user WHO with --since TIME"
        )
    what = f"xid {xid}" if xid is not None else f"row {row_id}" if row_id is not None else "a user's changes"
    filters = Filters(
        xid=xid,
        id=row_id,
        user=user,
        since=moment(since),
        until=moment(until),
        limit=None,
        oldest_first=True,
    )
    with open_trail(config, dsn) as connection:
        rows = list(read_log(connection, config.audit.audit_schema, filters))
        record_reading(config, connection, len(rows))
    if xid is not None and len({row.commit_lsn for row in rows}) > 1:
        raise UsageError(
            f"xid {xid} is that of several transactions", remedy="give --id for each of its rows"
        )
    if not rows:
        raise CheckFailedError("the trail has no such changes", remedy="see what it has: cdc-audit log")
    click.echo("\n".join(script(rows, context={"user_id": actor, "reason": reason or f"undo of {what}"})))
