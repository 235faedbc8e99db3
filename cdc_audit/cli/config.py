"""``cdc-audit config``: what the configuration is and where each value comes from, and an example of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

import click
import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cdc_audit.cli.settings import given, with_config
from cdc_audit.config import Config
from cdc_audit.ops.log import without_passwords

_WIDTH = 110
_HEAD = """\
# cdc-audit: every key with its default; keys behind a # have none. Printed by `cdc-audit config example`.
#
# The environment name of a key is CDC_AUDIT_ + section + _ + key, and wins over this file. Passwords don't belong
# here: use ~/.pgpass, PGPASSFILE, or a file with the whole DSN, named by CDC_AUDIT_SOURCE_DSN_FILE.
"""


class Effective(NamedTuple):
    """One key's value as it counts, without secrets. ``origin`` is default, file, credential, environment or flag."""

    section: str
    key: str
    value: Any
    origin: str
    name: str


@click.group()
def command() -> None:
    """Show the configuration as it counts, or print an example of it.

    Example: cdc-audit config show
    """


@command.command("show", epilog="Example: cdc-audit config show --json | jq 'select(.origin != \"default\")'")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: section, key, value, origin, name.")
@with_config
@click.pass_context
def show(context: click.Context, config: Config, *, as_json: bool) -> None:
    """Show each key's value and where it comes from: default, file, credential, environment or flag.

    Passwords in connection strings and keys given as text are not shown. Connects to nothing.

    Exit codes: 0 done, 78 the configuration is wrong.
    """
    section = ""
    for one in effective(config, context.params):
        if as_json:
            click.echo(orjson.dumps(one._asdict()).decode())
            continue
        if one.section != section:
            click.echo(f"{chr(10) if section else ''}[{one.section}]")
            section = one.section
        origin = one.origin if one.origin == "default" else f"{one.origin} {one.name}"
        click.echo(f"{one.key} = {_toml(one.value)}  # {origin}")


@command.command("example")
def print_example() -> None:
    """Print a configuration file with every key, its meaning and its default.

    Example: cdc-audit config example > cdc-audit.toml
    """
    click.echo(example(), nl=False)


def effective(config: Config, parameters: Mapping[str, Any]) -> Iterator[Effective]:
    """Every key in the order of the documentation. ``parameters`` are the command's, as click has them."""
    origins = {(one.section, one.key): one for one in given(parameters)}
    for section, keys in config.model_dump(mode="json", by_alias=True).items():
        for key, value in keys.items():
            origin = origins.get((section, key))
            means, name = (origin.means, origin.name) if origin else ("default", "")
            yield Effective(section, key, _masked(value), means, name)


def example() -> str:
    """The text of a configuration file, which is valid as it stands."""
    return _HEAD + "".join(_section(name, info) for name, info in Config.model_fields.items())


def _section(name: str, info: FieldInfo) -> str:
    model = info.annotation
    assert isinstance(model, type) and issubclass(model, BaseModel)
    about = (model.__doc__ or "").partition(": ")[2].rstrip(".")
    # Tables of a list come last: whatever follows them would belong to them.
    keys = sorted(model.model_fields.items(), key=lambda item: item[0] == "rules")
    body = "".join(_key(name, one.alias or key, one) for key, one in keys)
    return f"\n{_comment(about)}[{name}]\n{body}"


def _key(section: str, key: str, info: FieldInfo) -> str:
    if key == "rules":
        return _comment(_about(info)) + _rule(section, get_args(info.annotation)[0])
    about = _comment(_about(info))
    if not info.default and info.examples:
        return f"{about}#{key} = {_toml(info.examples[0])}\n"
    return f"{about}{key} = {_toml(info.default)}\n"


def _rule(section: str, rule: type[BaseModel]) -> str:
    lines = [f"#[[{section}.rules]]"]
    for key, info in rule.model_fields.items():
        assert info.examples
        lines += [*_comment(_about(info)).splitlines(), f"#{key} = {_toml(info.examples[0])}"]
    return "\n".join(lines) + "\n"


def _about(info: FieldInfo) -> str:
    is_choice = get_origin(info.annotation) is Literal
    return (info.description or "") + (
        f" (one of {', '.join(get_args(info.annotation))})" if is_choice else ""
    )


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False))


def _toml(value: Any) -> str:
    """A value in TOML, whose basic strings take JSON's escapes."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _masked(value: Any) -> Any:
    if isinstance(value, str) and "-----BEGIN" in value:
        return "***"
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return without_passwords(value)
