"""Months are chosen as they are written, both ends included."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cdc_audit.cli.months import chosen, month_options
from cdc_audit.errors import UsageError


@click.command()
@month_options
def command(*, since: str | None, until: str | None) -> None:
    """Says which of some months are meant."""
    meant = chosen(since, until)
    click.echo(" ".join(one for one in ("2023-12", "2024-01", "2024-02", "2024-11") if meant(one)))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ((), "2023-12 2024-01 2024-02 2024-11"),
        (("--since", "2024-01"), "2024-01 2024-02 2024-11"),
        (("--until", "2024-02"), "2023-12 2024-01 2024-02"),
        (("--since", "2024-02", "--until", "2024-02"), "2024-02"),
    ],
    ids=" ".join,
)
def test_both_ends_are_meant(asked: tuple[str, ...], meant: str) -> None:
    assert CliRunner().invoke(command, asked).output == f"{meant}\n"


@pytest.mark.parametrize("asked", ["2024", "2024-1", "2024-13", "2024-00", "2024-01-01", "24-01", "", "now"])
def test_what_is_no_month_is_refused(asked: str) -> None:
    refused = CliRunner().invoke(command, ["--since", asked]).exception
    assert isinstance(refused, UsageError) and "2024-01" in str(refused)


def test_a_span_without_a_month_is_refused() -> None:
    refused = CliRunner().invoke(command, ["--since", "2024-02", "--until", "2024-01"]).exception
    assert isinstance(refused, UsageError)
