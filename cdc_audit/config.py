"""Every setting, its default, its bounds and its meaning. Pure: reading files and environment is ``cli.settings``.

The TOML section and key are the names here; the environment name is ``CDC_AUDIT_`` + section + ``_`` + key.
Unknown keys are errors. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_TablePattern = Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Section):
    """``[source]``: the database whose changes are audited."""

    name: str = Field(
        default="source", min_length=1, description="what this source is called in logs and metrics"
    )
    dsn: str = Field(default="", description="the daemon's connection: a role with REPLICATION")
    admin_dsn: str = Field(
        default="", description="for init, slot and source commands, where the daemon's role may not"
    )
    slot: str = Field(
        default="cdc_audit", pattern=r"^[a-z0-9_]{1,63}$", description="the logical replication slot"
    )
    plugin: Literal["wal2json", "pgoutput"] = Field(
        default="wal2json", description="the slot's output plugin"
    )
    tables: tuple[_TablePattern, ...] = Field(
        default=("*.*",), description="what is audited: schema.table, * as wildcard"
    )
    exclude: tuple[_TablePattern, ...] = Field(default=(), description="what isn't, although tables names it")

    @property
    def one_time_dsn(self) -> str:
        """The connection for one-time work."""
        return self.admin_dsn or self.dsn


class Audit(_Section):
    """``[audit]``: the database that keeps the trail."""

    dsn: str = Field(default="", description="the daemon's connection: a member of audit_writer")
    admin_dsn: str = Field(
        default="", description="for init and schema commands: may create schemas and roles"
    )
    audit_schema: str = Field(
        default="audit",
        alias="schema",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="one schema, one source, one ledger",
    )
    record_reads: bool = Field(default=False, description="write an audit row for each query of the trail")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("record_reads")
    @classmethod
    def _not_yet(cls, value: bool) -> bool:
        if value:
            raise ValueError("this version does not record queries of the trail")
        return value

    @property
    def one_time_dsn(self) -> str:
        """The connection for one-time work."""
        return self.admin_dsn or self.dsn


class Batch(_Section):
    """``[batch]``: when a block is closed. A block ends at a commit of the source."""

    max_rows: int = Field(default=10_000, ge=1, description="close a block at this many rows")
    max_bytes: int = Field(default=8_388_608, ge=65_536, description="or at this many bytes")
    flush_interval: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        description="or this many seconds after its oldest commit; 0: as soon as the input runs dry. "
        "A header of about 500 bytes is kept for ever: 1 s makes at most 86,400 blocks a day",
    )


class Context(_Section):
    """``[context]``: who acts."""

    prefix: str = Field(
        default="cdc_audit", pattern=r"^[A-Za-z0-9_]{1,40}$", description="of the messages' names"
    )
    key_file: str = Field(
        default="", description="the signing keys, where the daemon may not read cdc_audit.context_key"
    )


class RedactRule(_Section):
    """One entry of ``[[redact.rules]]``."""

    table: str = Field(default="*.*", pattern=r"^[^.]+\.[^.]+$", description="schema.table, * as wildcard")
    column: str = Field(min_length=1, description="a column's name, * as wildcard")
    mode: Literal["drop", "mask", "keep"] = Field(
        description="leave out, replace by [redacted], or leave as it is"
    )


class Redact(_Section):
    """``[redact]``: values that never reach the trail. Columns named like secrets are masked without any rule."""

    rules: tuple[RedactRule, ...] = ()


class Ledger(_Section):
    """``[ledger]``: the proof."""

    signing_key_file: str = Field(default="", description="Ed25519 private key, PEM")
    heartbeat_interval: float = Field(
        default=30.0, ge=1, le=3600, description="a block even when idle, if WAL moved"
    )
    anchors: tuple[str, ...] = Field(
        default=(), description="where block hashes are kept besides: file:/an/absolute/path"
    )

    @field_validator("anchors")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not target.startswith("file:/") for target in value):
            raise ValueError("an anchor is file:/an/absolute/path; other kinds are not there yet")
        return value


class Metrics(_Section):
    """``[metrics]``: /metrics, /healthz and /readyz."""

    listen: str = Field(default="127.0.0.1:9187", description="host:port; empty switches it off")

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if value and not (colon and host and port.isdigit() and int(port) < 65536):
            raise ValueError("must be host:port")
        return value


class Log(_Section):
    """``[log]``: what is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else json"
    )


class Config(_Section):
    """The whole configuration."""

    source: Source = Source()
    audit: Audit = Audit()
    batch: Batch = Batch()
    context: Context = Context()
    redact: Redact = Redact()
    ledger: Ledger = Ledger()
    metrics: Metrics = Metrics()
    log: Log = Log()
