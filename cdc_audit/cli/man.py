"""``cdc-audit man``: the manual page, written from the commands' own help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from cdc_audit import __version__, errors
from cdc_audit.cli.settings import FLAGS

_COMMON = ("config_file", *FLAGS)
_FILES = {
    "cdc-audit.toml, /etc/cdc-audit/cdc-audit.toml": 'The configuration; "cdc-audit config example" prints '
    "one with every key. The environment name of a key is CDC_AUDIT_ + section + _ + key."
}


@click.command(epilog="Example: cdc-audit man | man -l -")
@click.pass_context
def command(context: click.Context) -> None:
    """Print the manual page cdc-audit(1): all commands with their options, exit codes and files."""
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    click.echo(page(root.command), nl=False)


def page(program: click.Group) -> str:
    """The page in man's own macros, without a date, so that the same program gives the same page."""
    about, _, example = (program.help or "").partition("\n\n")
    lines = [
        f'.TH CDC\\-AUDIT 1 "" "cdc\\-audit {__version__}" "User Commands"',
        ".SH NAME",
        f"cdc\\-audit \\- {_text(about.strip().rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B cdc\\-audit",
        ".I command",
        "[options]",
        ".SH DESCRIPTION",
        *_paragraphs(example),
        ".SH COMMANDS",
        *_commands(program, click.Context(program, info_name="cdc-audit")),
        ".SH COMMON OPTIONS",
        "Of all commands that read the configuration:",
        *_common_options(program),
        ".SH EXIT STATUS",
        *(line for code, text in _exit_codes().items() for line in _entry(str(code), text)),
        ".SH FILES",
        *(line for name, text in _FILES.items() for line in _entry(name, text)),
    ]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one is not None
        inner = click.Context(one, parent=context, info_name=name)
        arguments = " ".join(one.collect_usage_pieces(inner))
        yield f'.SS "{_text(f"{inner.command_path} {arguments}")}"'
        yield from _paragraphs(f"{inspect.cleandoc(one.help or '')}\n\n{one.epilog or ''}")
        for parameter in one.params:
            record = parameter.get_help_record(inner)
            if record is not None and record[1] and parameter.name not in _COMMON:
                yield from _entry(*record)
        if isinstance(one, click.Group):
            yield from _commands(one, inner)


def _common_options(program: click.Group) -> Iterator[str]:
    run = program.get_command(click.Context(program), "run")
    assert run is not None
    for parameter in run.params:
        record = parameter.get_help_record(click.Context(run))
        if record is not None and parameter.name in _COMMON:
            yield from _entry(*record)


def _entry(term: str, text: str) -> list[str]:
    return [".TP", f'.B "{_text(term)}"', *_lines(text)]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.replace("\b", "").strip().split("\n\n")):
        if number:
            yield ".PP"
        yield from _lines(paragraph)


def _lines(text: str) -> list[str]:
    """One line a line; a dot or quote at its beginning would be a macro."""
    return [re.sub(r"^([.'])", r"\\&\1", _text(line.strip())) for line in text.strip().splitlines()]


def _text(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _exit_codes() -> dict[int, str]:
    """By the error tree; where several errors share a code, the first one's words."""
    found = {0: "Done."}
    for kind in vars(errors).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, errors.CdcAuditError)
            and kind is not errors.CdcAuditError
        ):
            found.setdefault(kind.exit_code, (kind.__doc__ or "").partition("\n")[0])
    return dict(sorted(found.items()))
