"""Doctor's checks of the source server: its stream can be read, by this role, with this plugin."""

from __future__ import annotations

from pathlib import Path

from cdc_audit.config import Config
from cdc_audit.ops.check import Check, Outcome, Session
from cdc_audit.ops.coverage_checks import coverage_checks
from cdc_audit.ops.hardening_checks import hardening_checks
from cdc_audit.ops.plugin_probe import NoFreeSlotError, Probe
from cdc_audit.schema.migrate import quoted
from cdc_audit.source import facts, install, plugin, sidecar, slot
from cdc_audit.source.facts import SourceFacts
from cdc_audit.source.plugin_options import wal2json_options

_OLDEST, _NEWEST = 14, 18
_STANDBY_SINCE = 16


def dsn(session: Session) -> Outcome:
    """[source] dsn is there."""
    if session.config.source.dsn:
        return Outcome("ok", "[source] dsn is set")
    return Outcome(
        "fail",
        "[source] dsn is not set",
        "set CDC_AUDIT_SOURCE_DSN, or dsn in section [source] of cdc-audit.toml",
    )


def reachable(session: Session) -> Outcome:
    """The daemon's role can connect."""
    session.facts = facts.read(session.connect("source", session.config.source.dsn))
    return Outcome("ok", f"connected to database {session.facts.database} as {session.facts.user}")


def version(session: Session) -> Outcome:
    """PostgreSQL 14 to 18, and a server that can decode."""
    found = _facts(session)
    if found.major < _OLDEST:
        return Outcome("fail", f"the source is PostgreSQL {found.major}", "upgrade it to 14 or newer")
    if found.in_recovery and found.major < _STANDBY_SINCE:
        return Outcome(
            "fail",
            f"the source is a standby of PostgreSQL {found.major}, which can't decode",
            "let [source] dsn name the primary",
        )
    if found.major > _NEWEST:
        return Outcome(
            "warn",
            f"PostgreSQL {found.major} is newer than this program knows (14 to 18)",
            "upgrade cdc-audit on this machine",
        )
    return Outcome("ok", f"PostgreSQL {found.major}" + (", a standby" if found.in_recovery else ""))


def wal_level(session: Session) -> Outcome:
    """The WAL holds what logical decoding needs."""
    level = _facts(session).wal_level
    if level != "logical":
        return Outcome(
            "fail",
            f"wal_level is {level}",
            "alter system set wal_level = logical;\nrestart the source server",
        )
    return Outcome("ok", "wal_level is logical")


def role(session: Session) -> Outcome:
    """The daemon's role may replicate, and isn't a superuser."""
    found = _facts(session)
    if found.is_superuser:
        return Outcome(
            "warn",
            f"role {found.user} is a superuser, which is more than the daemon needs",
            "create role cdc_audit_reader login replication;\nlet [source] dsn use it, and run cdc-audit source install",
        )
    if not found.has_replication and not session.row("source", "replicates_by_membership").value:
        error = plugin.not_a_replication_role(found.user)
        return Outcome("fail", error.message, error.remedy or "")
    too_much = session.row("source", "attributes").too_much
    if too_much:
        return Outcome(
            "warn",
            f"role {found.user} has rights that the daemon doesn't need: {', '.join(too_much)}",
            f"alter role {quoted(found.user)} {' '.join(f'no{power}' for power in too_much)};",
        )
    return Outcome("ok", f"role {found.user} may replicate")


def free_slot(session: Session) -> Outcome:
    """A replication slot is left, unless ours is there already."""
    found = _facts(session)
    used = f"{found.used_replication_slots} of {found.max_replication_slots} replication slots are in use"
    is_full = found.used_replication_slots >= found.max_replication_slots
    if is_full and slot.status(session.source, session.config.source.slot) is None:
        return Outcome(
            "fail",
            used,
            f"alter system set max_replication_slots = {found.max_replication_slots + 5};\n"
            "restart the source server\nor drop a slot that nobody needs",
        )
    return Outcome("ok", used)


def free_wal_sender(session: Session) -> Outcome:
    """A walsender is left, unless ours is running already."""
    senders = session.row("source", "wal_senders")
    state = slot.status(session.source, session.config.source.slot)
    used = f"{senders.used} of {senders.allowed} walsenders are in use"
    if senders.used >= senders.allowed and not (state and state.active):
        return Outcome(
            "fail",
            used,
            f"alter system set max_wal_senders = {senders.allowed + 5};\nrestart the source server",
        )
    return Outcome("ok", used)


def output_plugin(session: Session) -> Outcome:
    """The plugin is installed and allowed, and takes our options: tried with a temporary slot."""
    config, major = session.config, _facts(session).major
    name = config.source.plugin
    probe = Probe(config.source.dsn, slot=config.source.slot, plugin=name, major=major)
    try:
        if not probe.create_slot():
            return Outcome("ok", f"{name} is installed and allowed (its options wait for open transactions)")
        if name == "wal2json":
            context = config.context
            options = wal2json_options(
                prefix=context.prefix, exclude=config.source.exclude, accept=context.accept
            )
            session.unknown_options = probe.unknown_options(options)
    except NoFreeSlotError:
        return Outcome("info", f"{name} was not tried: it takes a free replication slot")
    finally:
        probe.close()
    return Outcome("ok", f"{name} is installed and allowed")


def plugin_options(session: Session) -> Outcome:
    """The plugin knows what it needs to be exact."""
    if "numeric-data-types-as-string" in session.unknown_options:
        return Outcome(
            "info",
            "this wal2json can't tell NaN and infinity from null in a nullable numeric column (2.6 can)",
            "install wal2json 2.6 or newer on the source server if such values matter",
        )
    if session.unknown_options:
        return Outcome("info", f"the plugin doesn't know {', '.join(session.unknown_options)}")
    return Outcome("ok", "the plugin knows all options")


def keep_size(session: Session) -> Outcome:
    """WAL that is held back for a daemon that stays away can't fill the source's disk."""
    limit = _facts(session).max_slot_wal_keep_size
    if limit == "-1":
        return Outcome(
            "warn",
            "max_slot_wal_keep_size is -1: while the daemon is away, the slot may fill the source's disk; with a limit, "
            "changes are lost once it is passed, so take what your longest outage writes",
            "alter system set max_slot_wal_keep_size = '50GB';\nselect pg_reload_conf();",
        )
    return Outcome("ok", f"max_slot_wal_keep_size is {limit}")


def idle_timeout(session: Session) -> Outcome:
    """No clock decides that changes are lost."""
    found = session.rows("source", "settings", names=["idle_replication_slot_timeout"])
    if not found:
        return Outcome("ok", "this server has no idle_replication_slot_timeout")
    if found[0].setting == "0":
        return Outcome("ok", "idle_replication_slot_timeout is 0: only the WAL's size ends a slot")
    return Outcome(
        "warn",
        f"idle_replication_slot_timeout is {found[0].setting} {found[0].unit}: a daemon that is away for longer loses its "
        "slot, and changes with it, also where the disk has room; max_slot_wal_keep_size guards the disk",
        "alter system set idle_replication_slot_timeout = 0;\nselect pg_reload_conf();",
    )


def sender_timeout(session: Session) -> Outcome:
    """A daemon whose host has died frees its slot by itself."""
    timeout = _facts(session).wal_sender_timeout_ms
    if timeout == 0:
        return Outcome(
            "warn",
            "wal_sender_timeout is 0: when the daemon's host dies its slot stays taken for ever",
            f"alter role {quoted(_facts(session).user)} set wal_sender_timeout = '60s';",
        )
    return Outcome("ok", f"wal_sender_timeout is {timeout / 1000:g} s")


def encoding(session: Session) -> Outcome:
    """The stream's text can be read without guessing."""
    found = _facts(session).server_encoding
    if found != "UTF8":
        return Outcome(
            "warn",
            f"server_encoding is {found}: values are converted, invalid bytes can't be kept exactly",
            "none but a dump and restore into a database with encoding UTF8",
        )
    return Outcome("ok", "server_encoding is UTF8")


def functions(session: Session) -> Outcome:
    """What applications call to say who acts is there, in the program's version."""
    found = install.installed(session.source)
    if found is None:
        return Outcome(
            "warn",
            "schema cdc_audit is not installed: applications can't say in a way that can be trusted who acts",
            "cdc-audit source install",
        )
    prefix = session.config.context.prefix
    if found.prefix != prefix:
        text = (
            f'the installed functions send messages with prefix "{found.prefix}", the daemon reads "{prefix}"'
        )
        return Outcome("fail", text, "cdc-audit source install")
    text = f"the source functions have version {found.version}, this program {install.VERSION}"
    if found.version < install.VERSION:
        return Outcome("warn", text, "cdc-audit source install")
    if found.version > install.VERSION:
        return Outcome("warn", text, "upgrade cdc-audit on this machine")
    return Outcome("ok", f"the source functions have version {found.version}")


def context_keys(session: Session) -> Outcome:
    """The daemon can check the signatures of contexts."""
    key_file = session.config.context.key_file
    if key_file:
        return Outcome(
            "ok", f"{len(sidecar.read_key_file(Path(key_file)))} signing keys in [context] key_file"
        )
    key = session.row("source", "context_key")
    if key is None:
        return Outcome("skip", "not checked, because schema cdc_audit is not installed")
    if not key.may_read:
        user = _facts(session).user
        return Outcome(
            "warn",
            f"role {user} may not read the signing keys: no context can be told from a forged one",
            f"grant usage on schema cdc_audit to {quoted(user)};\n"
            f"grant select on cdc_audit.context_key to {quoted(user)};\n"
            "or let [context] key_file name a file with what cdc-audit source keys prints",
        )
    return Outcome("ok", "the daemon's role may read the signing keys")


def source_checks(config: Config) -> list[Check]:
    """The checks of the source, in the order in which they make sense."""
    there = ("source_reachable",)
    can_decode = (
        "source_version",
        "source_wal_level",
        "source_role",
        "source_free_slot",
        "source_wal_senders",
    )
    checks = [
        Check("source_dsn", "source", dsn),
        Check("source_reachable", "source", reachable, ("source_dsn",)),
        Check("source_version", "source", version, there),
        Check("source_wal_level", "source", wal_level, there),
        Check("source_role", "source", role, there),
        Check("source_free_slot", "source", free_slot, there),
        Check("source_wal_senders", "source", free_wal_sender, there),
        Check("output_plugin", "source", output_plugin, can_decode),
    ]
    if config.source.plugin == "wal2json":
        checks.append(Check("plugin_options", "source", plugin_options, ("output_plugin",)))
    return [
        *checks,
        Check("max_slot_wal_keep_size", "source", keep_size, there),
        Check("idle_replication_slot_timeout", "source", idle_timeout, there),
        Check("wal_sender_timeout", "source", sender_timeout, there),
        Check("source_encoding", "source", encoding, there),
        *coverage_checks(),
        Check("source_functions", "source", functions, there),
        Check("context_keys", "source", context_keys, there),
        *hardening_checks(),
    ]


def _facts(session: Session) -> SourceFacts:
    assert session.facts is not None
    return session.facts
