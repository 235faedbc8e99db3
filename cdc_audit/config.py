"""Every setting, its default, its bounds and its meaning. Pure: reading files and environment is ``cli.settings``.

The TOML section and key are the names here; the environment name is ``CDC_AUDIT_`` + section + ``_`` + key.
Unknown keys are errors. Durations are seconds, sizes are bytes. Descriptions, examples and the sections' docstrings are what
``cdc-audit config example`` prints.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdc_audit.errors import SettingError
from cdc_audit.model.anchor import HttpTarget, parse_target
from cdc_audit.model.retention import PRESETS, Policy, parse_span
from cdc_audit.model.rule import Suspicious

_TablePattern = Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_host_and_port(value: str) -> str:
    """The value, empty for ``off``: an empty environment variable counts as one that isn't set."""
    if value == "off":
        return ""
    host, colon, port = value.rpartition(":")
    if value and not (colon and host and port.isdigit() and int(port) < 65536):
        raise ValueError("must be host:port, or off")
    return value


class Source(_Section):
    """``[source]``: the database whose changes are audited."""

    name: str = Field(
        default="source", min_length=1, description="what this source is called in logs and metrics"
    )
    dsn: str = Field(
        default="",
        description="the daemon's connection: a role with REPLICATION",
        examples=["host=db.example.org dbname=app user=cdc_audit sslmode=verify-full"],
    )
    admin_dsn: str = Field(
        default="",
        description="for init, source and snapshot, where the daemon's role may not",
        examples=["host=db.example.org dbname=app user=postgres sslmode=verify-full"],
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
    exclude: tuple[_TablePattern, ...] = Field(
        default=(),
        description="what isn't, although tables names it",
        examples=[["public.sessions", "tmp.*"]],
    )

    @property
    def one_time_dsn(self) -> str:
        """The connection for one-time work."""
        return self.admin_dsn or self.dsn

    @property
    def slot_dsn(self) -> str:
        """The connection for work on the slot: the daemon's, since with what it can make it can go on."""
        return self.dsn or self.admin_dsn


class Audit(_Section):
    """``[audit]``: the database that keeps the trail, or the tables of a lake."""

    kind: Literal["postgresql", "iceberg"] = Field(
        default="postgresql",
        description="where the trail is kept: in a PostgreSQL database, or in two Apache Iceberg tables, for those who make more "
        "changes than one database should store",
    )
    catalog: str = Field(
        default="default",
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="for kind iceberg: the name under which pyiceberg's own configuration (.pyiceberg.yaml, or variables "
        "PYICEBERG_CATALOG__NAME__URI and so on) describes the catalog",
    )
    dsn: str = Field(
        default="",
        description="the daemon's connection: a member of audit_writer",
        examples=["host=audit.example.org dbname=audit user=audit_writer sslmode=verify-full"],
    )
    admin_dsn: str = Field(
        default="",
        description="for init and schema commands: may create schemas and roles",
        examples=["host=audit.example.org dbname=audit user=postgres sslmode=verify-full"],
    )
    audit_schema: str = Field(
        default="audit",
        alias="schema",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="one schema, one source, one ledger",
    )
    record_reads: bool = Field(
        default=False,
        description="the commands that read the trail record it: who, which command, what was asked, how many rows; "
        "to be set where they run",
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if self.kind == "iceberg" and (self.dsn or self.admin_dsn):
            raise ValueError("kind iceberg has no dsn: leave out dsn and admin_dsn")
        if self.kind == "iceberg" and self.record_reads:
            raise ValueError("record_reads needs a database: no command of ours reads rows of kind iceberg")
        return self

    @property
    def one_time_dsn(self) -> str:
        """The connection for one-time work. Raises SettingError where there is no database."""
        if self.kind == "iceberg":
            raise SettingError(
                "the trail is in a lake ([audit] kind = iceberg), and this asks a database",
                remedy="ask an engine that reads Iceberg: README, A lake instead of a database",
            )
        return self.admin_dsn or self.dsn


class Batch(_Section):
    """``[batch]``: when a block is closed. A block ends at a commit of the source."""

    max_rows: int = Field(default=50_000, ge=1, description="close a block at this many rows")
    max_bytes: int = Field(default=33_554_432, ge=65_536, description="or at this many bytes")
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
        default="cdc_audit",
        pattern=r"^[A-Za-z0-9_]{1,40}$",
        description="what the messages' names begin with",
    )
    key_file: str = Field(
        default="",
        description="the signing keys (cdc-audit source keys), where the daemon may not read cdc_audit.context_key",
        examples=["/etc/cdc-audit/context-keys"],
    )
    accept: tuple[Literal["bemi", "sequin"], ...] = Field(
        default=(),
        description="other packages whose messages of contexts are understood, too, as asserted",
        examples=[["bemi", "sequin"]],
    )


class Reads(_Section):
    """``[reads]``: what pgAudit writes into the server's log of reads, for cdc-audit reads follow beside the log files."""

    dsn: str = Field(
        default="",
        description="the follower's connection to the source (the primary): a role of cdc-audit source install --reads",
        examples=["host=/var/run/postgresql dbname=app user=cdc_audit_reads"],
    )
    directory: str = Field(
        default="",
        description="the folder with the server's log files of JSON lines: its log_directory",
        examples=["/var/log/postgresql"],
    )
    name: str = Field(
        default="",
        max_length=200,
        description="under which positions are kept, one for each server's log; empty: this host's name",
    )
    statement: Literal["redacted", "full", "none"] = Field(
        default="redacted",
        description="the SQL text: redacted is without strings, numbers and comments, full also has parameters, "
        "where pgaudit.log_parameter logs them",
    )
    poll_interval: float = Field(default=0.5, ge=0.05, le=60, description="seconds between two looks")
    listen: str = Field(default="127.0.0.1:9188", description="host:port of the follower's /metrics, or off")

    _host_and_port = field_validator("listen")(_check_host_and_port)


class RedactRule(_Section):
    """One entry of ``[[redact.rules]]``."""

    table: str = Field(
        default="*.*",
        pattern=r"^[^.]+\.[^.]+$",
        description="schema.table, * as wildcard",
        examples=["public.users"],
    )
    column: str = Field(min_length=1, description="a column's name, * as wildcard", examples=["notes"])
    mode: Literal["drop", "mask", "hmac", "personal", "keep"] = Field(
        description="leave out, replace by [redacted], replace by a keyed hash that equal values share, "
        "keep beside the row, where cdc-audit erase can erase it, or leave as it is",
        examples=["drop"],
    )


class Redact(_Section):
    """``[redact]``: values that never reach the trail. Columns and JSON keys named like secrets are masked without any rule."""

    rules: tuple[RedactRule, ...] = Field(
        default=(), description="what is done with which columns; the last rule that matches decides"
    )
    hmac_key_file: str = Field(
        default="",
        description="the key of mode hmac: at least 32 random bytes, readable by its owner only "
        "(head -c 32 /dev/urandom)",
        examples=["/etc/cdc-audit/hmac.key"],
    )
    personal_context: tuple[str, ...] = Field(
        default=(),
        description="what is personal in contexts, by name: user_email, ip_address, user_agent, ...",
        examples=[["user_email", "ip_address", "user_agent"]],
    )

    @field_validator("personal_context")
    @classmethod
    def _without_user_id(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "user_id" in value:
            raise ValueError("user_id can't be personal: cdc-audit erase --user finds rows by it")
        return value


class Ledger(_Section):
    """``[ledger]``: the proof."""

    signing_key_file: str = Field(
        default="",
        description="the Ed25519 key that signs blocks, PEM, readable by its owner only: cdc-audit key generate FILE",
        examples=["/etc/cdc-audit/signing.pem"],
    )
    heartbeat_interval: float = Field(
        default=30.0, ge=1, le=3600, description="a block even when idle, if WAL moved"
    )
    anchors: tuple[str, ...] = Field(
        default=(),
        description="where block hashes are kept besides: file:/path, https://host/path, s3://bucket/prefix",
        examples=[["file:/mnt/elsewhere/anchors.jsonl"]],
    )
    anchor_token_file: str = Field(
        default="",
        description="the bearer token for https anchors; read each time",
        examples=["/etc/cdc-audit/anchor-token"],
    )

    @field_validator("anchors")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, target in enumerate(value, 1):
            try:
                parse_target(target)
            except ValueError as error:
                raise ValueError(f"number {number}: {error}") from None
        return value


class Retention(_Section):
    """``[retention]``: how long rows stay in the audit database, and where archives are. Only cdc-audit archive run moves any."""

    preset: Literal["default", "hipaa", "pci"] = Field(
        default="default",
        description="what hot and keep are unless they are said: 1 and 7 years, hipaa 1 and 6 years, pci 3 months and 1 year",
    )
    hot: str = Field(
        default="",
        description="how long rows stay in the audit database after the end of their month",
        examples=["3 months"],
    )
    keep: str = Field(
        default="",
        description="how long they are kept at all, there or in an archive",
        examples=["7 years"],
    )
    archive: str = Field(
        default="",
        description="where archives are kept: file:/folder or s3://bucket/prefix?mode=COMPLIANCE&days=2555",
        examples=["file:/mnt/elsewhere/archive"],
    )

    @field_validator("hot", "keep")
    @classmethod
    def _is_span(cls, value: str) -> str:
        if value:
            parse_span(value)
        return value

    @field_validator("archive")
    @classmethod
    def _is_place(cls, value: str) -> str:
        try:
            is_place = not value or not isinstance(parse_target(value), HttpTarget)
        except ValueError:
            is_place = False
        if not is_place:
            raise ValueError("an archive is file:/an/absolute/path or s3://bucket/prefix")
        return value

    @model_validator(mode="after")
    def _hot_is_kept(self) -> Self:
        if self.policy.hot > self.policy.keep:
            raise ValueError("hot is longer than keep")
        return self

    @property
    def policy(self) -> Policy:
        """The preset, with what was said in its place."""
        preset = PRESETS[self.preset]
        return Policy(
            parse_span(self.hot) if self.hot else preset.hot,
            parse_span(self.keep) if self.keep else preset.keep,
        )


class Metrics(_Section):
    """``[metrics]``: /metrics, /healthz and /readyz."""

    listen: str = Field(default="127.0.0.1:9187", description="host:port, or off")

    _host_and_port = field_validator("listen")(_check_host_and_port)


class Log(_Section):
    """``[log]``: what is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="what is less than this is not said"
    )
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else json"
    )


class Config(_Section):
    """The whole configuration."""

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

    @model_validator(mode="after")
    def _can_erase(self) -> Self:
        is_personal = self.redact.personal_context or any(r.mode == "personal" for r in self.redact.rules)
        if self.audit.kind == "iceberg" and is_personal:
            raise ValueError(
                "[redact] keeps personal values beside the rows, which [audit] kind iceberg has no room for"
            )
        return self

    @model_validator(mode="after")
    def _knows_addresses(self) -> Self:
        kinds = {rule.kind for rule in self.suspicious.rules}
        if "new_address" in kinds and "ip_address" in self.redact.personal_context:
            raise ValueError(
                "a rule new_address needs addresses, which [redact] personal_context keeps out of the rows"
            )
        return self
