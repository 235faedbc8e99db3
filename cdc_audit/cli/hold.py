"""``cdc-audit hold``: legal holds, under which rows stay where they are."""

from __future__ import annotations

from collections.abc import Iterator

import click
import orjson
from psycopg import Connection

from cdc_audit.cli.reading import moment
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.model.retention import Hold
from cdc_audit.postgres import connect
from cdc_audit.sink import holds
from cdc_audit.sink.signing import load_signer
from cdc_audit.trail.query import parse_table

_LONGEST_REASON = 1_000
_reason = click.option("--reason", metavar="TEXT", required=True, help="Why. Kept in the ledger for ever.")


@click.group("hold")
def command() -> None:
    """Legal holds: a month that has a row under one is not archived, and so not dropped, however old it is.

    A hold is a block of the ledger: signed, with who, when and why, and nobody can take it back unseen. Its number is the block's.

    Connects with [audit] admin_dsn and signs with [ledger] signing_key_file. The daemon may be running.

    Exit codes: 0 done, 2 usage, 69 the audit database is away, 75 the daemon was faster each time, 77 not permitted,
    78 configuration or key.

    Example: cdc-audit hold add --table crm.customers --record 4711 --reason "case 2026-118"
    """


@command.command(
    "add", epilog='Example: cdc-audit hold add --user u4711 --since 2026-01-01 --reason "case 2026-118"'
)
@click.option("--table", metavar="NAME", help="Table, or schema.table.")
@click.option("--record", metavar="ID", help="A record of that table, as in the log.")
@click.option("--user", metavar="ID", help="Who acted: a user id or an e-mail address.")
@click.option("--since", metavar="TIME", help="Committed at this time or later.")
@click.option("--until", metavar="TIME", help="Committed before this time.")
@_reason
@with_config
def add(
    config: Config,
    *,
    table: str | None,
    record: str | None,
    user: str | None,
    since: str | None,
    until: str | None,
    reason: str,
) -> None:
    """Put rows under a hold: those for which all that is given is so. Rows that are yet to come, too.

    What it names stays in the ledger for ever. It can't bring back what was dropped before: cdc-audit archive list shows that.
    """
    if record is not None and table is None:
        raise UsageError("--record is of a table", remedy="give --table NAME, too")
    hold = Hold(0, None, None, record, user, moment(since), moment(until), _said(reason))
    if table is not None:
        schema_name, table_name = parse_table(table)
        hold = hold._replace(schema_name=schema_name, table_name=table_name)
    if all(value is None for value in hold[1:-1]):
        raise UsageError("nothing to hold", remedy="give --table, --record, --user, --since or --until")
    if hold.since and hold.until and hold.since >= hold.until:
        raise UsageError("--until is not later than --since")
    signer = load_signer(config.ledger.signing_key_file)
    with _connection(config) as audit:
        block = holds.add(audit, config.audit.audit_schema, hold, signer)
    click.echo(f"hold {block.block}: {described(hold)}")


@command.command("release", epilog='Example: cdc-audit hold release 118 --reason "case 2026-118 is closed"')
@click.argument("number", type=click.IntRange(min=0))
@_reason
@with_config
def release(config: Config, *, number: int, reason: str) -> None:
    """End a hold. What is under no other one may then go, when it is due."""
    signer = load_signer(config.ledger.signing_key_file)
    with _connection(config) as audit:
        block = holds.release(audit, config.audit.audit_schema, number, _said(reason), signer)
    click.echo(f"hold {number} is released by block {block.block}")


@command.command("list", epilog="Example: cdc-audit hold list --all")
@click.option("--all", "is_all", is_flag=True, help="Those that were released, too.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each hold.")
@with_config
def list_holds(config: Config, *, is_all: bool, as_json: bool) -> None:
    """Show the holds that are in force."""
    with _connection(config) as audit:
        found = [one for one in holds.holds(audit, config.audit.audit_schema) if is_all or not one.released]
    for one in found:
        click.echo(_json(one) if as_json else "\n".join(_text(one)))
    if not found and not as_json:
        click.echo("no holds")


def described(hold: Hold) -> str:
    """What a hold holds, in words."""
    table = ".".join(part for part in (hold.schema_name, hold.table_name) if part is not None)
    parts = [
        *([f"table {table}"] if table else []),
        *([f"record {hold.record_id}"] if hold.record_id is not None else []),
        *([f"user {hold.user}"] if hold.user is not None else []),
        *([f"since {hold.since.isoformat()}"] if hold.since else []),
        *([f"until {hold.until.isoformat()}"] if hold.until else []),
    ]
    return ", ".join(parts)


def _said(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > _LONGEST_REASON:
        raise UsageError(f"--reason must have 1 to {_LONGEST_REASON:,} characters")
    return reason


def _json(one: holds.Held) -> str:
    shown = {**one.hold._asdict(), **one._asdict()}
    del shown["hold"]
    return orjson.dumps(shown).decode()


def _text(one: holds.Held) -> Iterator[str]:
    yield f"hold {one.hold.number}: {described(one.hold)}"
    yield f"  by {one.by}, {one.at.isoformat(timespec='seconds')}: {one.hold.reason}"
    if one.released_at:
        at = one.released_at.isoformat(timespec="seconds")
        yield f"  released by {one.released_by}, {at}: {one.release_reason}"


def _connection(config: Config) -> Connection:
    return connect(require_dsn(config.audit.one_time_dsn, "audit"), side="audit")
