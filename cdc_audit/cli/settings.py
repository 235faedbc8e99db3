"""Where settings come from: command-line flags over environment over files named by ``*_FILE`` over cdc-audit.toml.

``CDC_AUDIT_SOURCE_DSN_FILE=/run/secrets/dsn`` gives ``[source] dsn`` from that file's first line. With systemd credentials,
a file ``source_dsn`` in ``$CREDENTIALS_DIRECTORY`` does the same.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar, cast

import click
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cdc_audit.config import (
    Audit,
    Batch,
    Config,
    Context,
    Ledger,
    Log,
    Metrics,
    Reads,
    Redact,
    Retention,
    Source,
)
from cdc_audit.errors import SettingError
from cdc_audit.model.rule import Suspicious
from cdc_audit.postgres import parse_dsn

DEFAULT_FILES = (Path("cdc-audit.toml"), Path("/etc/cdc-audit/cdc-audit.toml"))
_PREFIX = "CDC_AUDIT_"
_SECTIONS = tuple(Config.model_fields)
_LISTS = {"accept", "tables", "exclude", "anchors", "personal_context"}  # comma-separated in the environment

_P = ParamSpec("_P")
_R = TypeVar("_R")


def load_config(file: Path | None, flags: Mapping[str, Mapping[str, object]] | None = None) -> Config:
    """The configuration. ``flags`` are section -> key -> value as given on the command line.

    Raises SettingError that names the first wrong key and where the keys are documented.
    """
    try:
        is_missing = file is not None and not file.is_file()
        found = _found(file)
    except OSError as error:  # a folder on the way may be closed to this account
        raise SettingError(f"cannot read {error.filename}: {error.strerror}") from error
    if is_missing:
        raise SettingError(
            f"configuration file {file} does not exist", remedy="correct --config or CDC_AUDIT_CONFIG"
        )
    try:
        given: dict[str, Any] = dict(flags or {})
        return Config.model_validate(_layers(found)(**given).model_dump(by_alias=True))
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"configuration file {found}: {error}", remedy=f"correct {found}") from error
    except ValidationError as error:
        raise SettingError(_first_error(error, found)) from None
    except OSError as error:
        raise SettingError(f"cannot read {error.filename}: {error.strerror}") from error


class Given(NamedTuple):
    """A value that somebody gave: by which means, and under which name of that (a file, a variable, a flag)."""

    section: str
    key: str
    value: Any
    means: Literal["file", "credential", "environment", "flag"]
    name: str


def given(parameters: Mapping[str, Any]) -> list[Given]:
    """All that was given, what wins last. ``parameters`` are those of a command ``with_config``, which has read the same."""
    file, flags = _file_and_flags(dict(parameters))
    path = _found(file)
    sections = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
    values = [
        Given(section, key, value, "file", str(path))
        for section, keys in sections.items()
        for key, value in keys.items()
    ]
    values += [*_from_secret_files(), *_from_environment()]
    for name, (section, key, _) in FLAGS.items():
        if key in flags.get(section, {}):
            values.append(Given(section, key, flags[section][key], "flag", f"--{name.replace('_', '-')}"))
    return values


# Flag -> section and key: what most commands need without any file.
FLAGS = {
    "source_dsn": ("source", "dsn", "The source database ([source] dsn)."),
    "audit_dsn": ("audit", "dsn", "The audit database ([audit] dsn)."),
    "slot_name": ("source", "slot", "The replication slot ([source] slot)."),
    "schema_name": ("audit", "schema", "The audit schema ([audit] schema)."),
}


def with_config(function: Callable[Concatenate[Config, _P], _R]) -> Callable[_P, _R]:
    """Give a click command ``--config FILE``, a flag for each of the most needed keys, and the loaded configuration as its
    first argument.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        file, flags = _file_and_flags(kwargs)
        return function(load_config(file, flags), *args, **kwargs)

    command: Callable[_P, _R] = wrapped
    for name, (_, _, text) in reversed(FLAGS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar="TEXT", help=text)(command)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="CDC_AUDIT_CONFIG",
        help="Configuration file (default: ./cdc-audit.toml, then /etc/cdc-audit/cdc-audit.toml).",
    )(command)


def flags_of(parameters: Mapping[str, Any]) -> list[str]:
    """The same flags again, for another command ``with_config``."""
    names = {"config_file": "--config", **{name: f"--{name.replace('_', '-')}" for name in FLAGS}}
    return [
        part for name, flag in names.items() if parameters.get(name) for part in (flag, str(parameters[name]))
    ]


def require_dsn(dsn: str, section: str) -> str:
    """The DSN, or a SettingError that says how to give one, or that it can't be read."""
    if not dsn:
        raise SettingError(
            f"[{section}] dsn is not set",
            remedy=f"set CDC_AUDIT_{section.upper()}_DSN or the key dsn in section [{section}] of cdc-audit.toml",
        )
    parse_dsn(dsn)
    return dsn


def _found(file: Path | None) -> Path | None:
    return file or next((path for path in DEFAULT_FILES if path.is_file()), None)


def _file_and_flags(parameters: dict[str, Any]) -> tuple[Path | None, dict[str, dict[str, object]]]:
    """Take what ``with_config`` has added out of a command's parameters."""
    file = cast("Path | None", parameters.pop("config_file", None))
    flags: dict[str, dict[str, object]] = {}
    for name, (section, key, _) in FLAGS.items():
        if (value := parameters.pop(name, None)) is not None:
            flags.setdefault(section, {})[key] = value
    return file, flags


def _by_section(values: Iterable[Given]) -> dict[str, Any]:
    sections: dict[str, dict[str, Any]] = {}
    for one in values:
        sections.setdefault(one.section, {})[one.key] = one.value
    return sections


def _from_secret_files() -> Iterator[Given]:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    for section in _SECTIONS:
        for key in _keys(section):
            name = f"{_PREFIX}{section}_{key}".upper() + "_FILE"
            path = Path(os.environ[name]) if os.environ.get(name) else None
            if path is None and directory and (Path(directory) / f"{section}_{key}").is_file():
                path = Path(directory) / f"{section}_{key}"
            if path is not None:
                yield Given(section, key, path.read_text(encoding="utf-8").strip(), "credential", str(path))


def _from_environment() -> Iterator[Given]:
    for name, value in os.environ.items():
        section, _, key = name.removeprefix(_PREFIX).lower().partition("_")
        if not name.startswith(_PREFIX) or section not in _SECTIONS or not key or not value:
            continue
        if key.endswith("_file") and key.removesuffix("_file") in _keys(section):
            continue
        parts = [part.strip() for part in value.split(",")]
        yield Given(section, key, parts if key in _LISTS else value, "environment", name)


class _SecretFiles(PydanticBaseSettingsSource):
    """Values from files: ``CDC_AUDIT_<SECTION>_<KEY>_FILE`` and systemd's credentials directory."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base's form
        """Unused: __call__ reads all sections at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return _by_section(_from_secret_files())


class _Environment(PydanticBaseSettingsSource):
    """``CDC_AUDIT_<SECTION>_<KEY>``. A variable with a section's prefix and an unknown key is an error, like in the file."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base's form
        """Unused: __call__ reads all sections at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return _by_section(_from_environment())


def _keys(section: str) -> tuple[str, ...]:
    fields = Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    return tuple(info.alias or key for key, info in fields.items())


def _layers(file: Path | None) -> type[BaseSettings]:
    class Layers(BaseSettings):
        model_config = SettingsConfigDict(extra="forbid", toml_file=file)

        source: Source = Source()
        audit: Audit = Audit()
        batch: Batch = Batch()
        context: Context = Context()
        reads: Reads = Reads()
        redact: Redact = Redact()
        ledger: Ledger = Ledger()
        retention: Retention = Retention()
        suspicious: Suspicious = Suspicious()
        metrics: Metrics = Metrics()
        log: Log = Log()

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del env_settings, dotenv_settings, file_secret_settings
            toml = TomlConfigSettingsSource(settings_cls)
            return init_settings, _Environment(settings_cls), _SecretFiles(settings_cls), toml

    return Layers


def _first_error(error: ValidationError, file: Path | None) -> str:
    """One line for the first thing that is wrong; the value itself may be a password and isn't shown."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    name = f"[{where[0]}] {'.'.join(where[1:])}" if len(where) > 1 else "".join(where) or "the whole"
    source = f"configuration ({file or 'no file'}, environment, flags)"
    if first["type"] == "extra_forbidden":
        known = (
            ", ".join(_keys(where[0])) if len(where) > 1 and where[0] in _SECTIONS else ", ".join(_SECTIONS)
        )
        return f"{source}: unknown key {name}; known are: {known}"
    return f"{source}: {name}: {first['msg']}"
