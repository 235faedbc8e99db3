"""How far a long command is: a line on standard error, only on a terminal."""

from __future__ import annotations

import sys

import click


class Progress:
    """``is_off`` where a program reads the output. ``show`` it again and again; when all is done the line goes."""

    def __init__(self, is_off: bool) -> None:
        self._is_on = sys.stderr.isatty() and not is_off

    def show(self, done: int, total: int) -> None:
        """So many rows of so many."""
        if self._is_on:
            share = done / total if total else 1.0
            bar = "=" * int(30 * share)
            ending = "\r\x1b[K" if done >= total else ""
            click.echo(f"\r[{bar:<30}] {share:4.0%}  {done:,} of {total:,} rows{ending}", nl=False, err=True)
