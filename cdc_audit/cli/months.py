"""``--since MONTH`` and ``--until MONTH``, by which commands choose archives."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

from cdc_audit.errors import UsageError

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def month_options(command: Callable[..., None]) -> Callable[..., None]:
    """The two options, as ``since`` and ``until``."""
    until = click.option("--until", metavar="MONTH", callback=_month, help="Through this month.")
    since = click.option(
        "--since", metavar="MONTH", callback=_month, help="From this month on, as in 2024-01."
    )
    return since(until(command))


def _month(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    del context, option
    if value is not None and not _MONTH.fullmatch(value):
        raise UsageError(f"not a month: {value[:40]!r}", remedy="say it as in 2024-01")
    return value


def chosen(since: str | None, until: str | None) -> Callable[[str], bool]:
    """Whether a month is meant. Raises UsageError if none can be."""
    if since and until and since > until:
        raise UsageError("--since is after --until", remedy="exchange them")
    return lambda month: (not since or since <= month) and (not until or month <= until)


def none_meant() -> UsageError:
    """What to raise where no archive is of a month that is meant."""
    return UsageError("no archived month is meant", remedy="see which there are: cdc-audit archive list")
