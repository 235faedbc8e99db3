"""``cdc-audit suspicious``: what the rules find in the stored trail."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cdc_audit.cli.reading import dsn_option, echo_json, moment, open_trail, record_reading
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import UsageError
from cdc_audit.model.rule import SuspiciousRule
from cdc_audit.trail import render_activity
from cdc_audit.trail.query import Filters, parse_time
from cdc_audit.trail.suspicious import findings

_LONGEST_S = 366 * 86_400


@click.command(epilog="Example: cdc-audit suspicious --since 7d --threshold 500 --window 10m")
@click.option("--since", metavar="TIME", default="24h", show_default=True, help="As in the log.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option("--rule", "name", metavar="NAME", help="Only this rule of the configuration.")
@click.option(
    "--threshold",
    type=click.IntRange(0, 1_000_000),
    help="Bulk operations of more rows than this. [default: 100]",
)
@click.option("--window", metavar="SPAN", help="Bulk operations within this: 10m, 1h, 1d. [default: 1h]")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@dsn_option
@with_config
def command(
    config: Config,
    *,
    since: str,
    until: str | None,
    name: str | None,
    threshold: int | None,
    window: str | None,
    as_json: bool,
    dsn: str | None,
) -> None:
    """What the rules in [suspicious] of the configuration find; without any, or with --threshold or --window, bulk operations:
    more than 100 changes by one user, of one action and table, within an hour.

    The hour is any hour, not one by the clock. Rows without a user are taken together (user -). See the rows of a line by:
    cdc-audit log --user --table --action --since --until. The daemon raises an alert for the same findings as they begin.

    Exit codes: 0 done (also if something was found), 2 usage, 69 the audit database is away, 77 the role may not read,
    78 configuration.
    """
    rules = _rules(config, name, threshold, window)
    filters = Filters(since=moment(since), until=moment(until))
    with open_trail(config, dsn) as connection:
        found = findings(connection, config.audit.audit_schema, filters, rules)
        record_reading(config, connection, len(found))
    if as_json:
        for row in found:
            echo_json(row._asdict())
    elif found:
        click.echo("\n".join(render_activity.findings(found)))
    else:
        click.echo("nothing", err=True)


def _rules(
    config: Config, name: str | None, threshold: int | None, window: str | None
) -> tuple[SuspiciousRule, ...]:
    rules = config.suspicious.rules
    if name is not None:
        if threshold is not None or window is not None:
            raise UsageError(
                "a rule has its own threshold and window", remedy="leave out --rule, or the others"
            )
        chosen = tuple(rule for rule in rules if rule.label == name)
        if not chosen:
            known = ", ".join(rule.label for rule in rules) or "none"
            raise UsageError(
                f"there is no such rule: {name[:60]!r}", remedy=f"those in the configuration: {known}"
            )
        return chosen
    if rules and threshold is None and window is None:
        return rules
    return (
        SuspiciousRule(
            kind="bulk",
            threshold=100 if threshold is None else threshold,
            window=_span("1h" if window is None else window),
        ),
    )


def _span(text: str) -> int:
    now = datetime.now(UTC)
    seconds = (now - parse_time(text, now)).total_seconds() if text[-1:] in tuple("smhdw") else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise UsageError("--window is not a span of time", remedy="say 10m, 1h, or 1d; a year at most")
    return int(seconds)
