"""What the source refuses, in our words: each with the statement or command that mends it.

SQLSTATEs decide where they can, since a server may speak any language; words of its messages only where one
SQLSTATE stands for several things. Read in PostgreSQL 14 to 18: logical.c, slot.c, walsender.c,
logicalfuncs.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from cdc_audit import postgres
from cdc_audit.errors import AnotherDaemonError, CdcAuditError, NotPermittedError, PoisonError, SettingError
from cdc_audit.model.lsn import parse_lsn

RECREATE = 'cdc-audit slot recreate --reason "..."'
_LIBRARY = re.compile(r"^[A-Za-z0-9_]+$")
_OPTION = re.compile(r'option "([^"]*)"')
_LSN = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
# Errors of these classes are a change's own, where their context says at which position: data, limits, internal.
_IN_DECODING = {"22", "54", "XX"}
_MAJOR_UNKNOWN = "<major version>"


@contextmanager
def explained() -> Iterator[None]:
    """Turn psycopg's errors of the source into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise postgres.explain(error, side="source") from error


def explain_refusal(
    error: psycopg.Error, *, role: str, slot: str, plugin: str, major: int | None = None
) -> CdcAuditError:
    """Our error for what creating, reading, advancing or dropping a slot gave. Never holds row values.

    ``role`` is the one that was connected, ``major`` the server's major version where it is known.
    """
    refusal = _Refusal(error, role, slot, plugin, major)
    if refusal.state[:2] in _IN_DECODING and _LSN.search(refusal.context):
        return _poison(refusal)
    make = _BY_STATE.get(refusal.state)
    found = make(refusal) if make else None
    if found is None and not error.sqlstate:
        found = _no_state(refusal)
    return found or postgres.explain(error, side="source")


def not_a_replication_role(role: str) -> NotPermittedError:
    """The role may not use replication slots."""
    return NotPermittedError(
        f'source database: role "{role}" may not use replication slots',
        remedy=f"alter role {_quoted(role)} replication;",
    )


def plugin_refused(role: str, plugin: str) -> SettingError:
    """``output_plugin_libraries`` doesn't name the plugin. In the remedy a quoted list would be one name."""
    if not _LIBRARY.match(plugin):
        plugin = _quoted(plugin)
    least = f"alter role {_quoted(role)} set output_plugin_libraries = {_libraries('pgoutput', plugin)};"
    whole = f"alter system set output_plugin_libraries = {_libraries('pgoutput', 'test_decoding', plugin)};"
    return SettingError(
        f'source database: output_plugin_libraries does not allow the output plugin "{plugin}" (42501)',
        remedy=f"{least}\nor, for all roles, {whole} select pg_reload_conf()",
    )


class _Refusal:
    """One error of the server with what its explanation needs."""

    def __init__(self, error: psycopg.Error, role: str, slot: str, plugin: str, major: int | None) -> None:
        self.message = (error.diag.message_primary or str(error)).strip().replace("\n", " ")
        self.detail = error.diag.message_detail or ""
        self.context = error.diag.context or ""
        self.state = error.sqlstate or ""
        self.role, self.slot, self.plugin, self.major = role, slot, plugin, major

    @property
    def names_plugin(self) -> bool:
        return bool(self.plugin) and self.plugin in self.message

    @property
    def text(self) -> str:
        return f"source database: {self.message}" + (f" ({self.state})" if self.state else "")


def _not_permitted(refusal: _Refusal) -> CdcAuditError:
    # In whatever language: the other refusals of this kind don't name the plugin.
    if refusal.names_plugin or "output plugin" in refusal.message:
        return plugin_refused(refusal.role, refusal.plugin)
    return not_a_replication_role(refusal.role)


def _no_state(refusal: _Refusal) -> CdcAuditError | None:
    """An error while connecting has no SQLSTATE in libpq, only words."""
    if "replication role" in refusal.message or "start WAL sender" in refusal.message:
        return not_a_replication_role(refusal.role)
    return None


def _missing(refusal: _Refusal) -> CdcAuditError:
    if "publication" in refusal.message:
        return SettingError(
            refusal.text,
            remedy='cdc-audit init, then: cdc-audit slot recreate --reason "the publication was missing"',
        )
    return SettingError(
        f'source database: replication slot "{refusal.slot}" does not exist (42704)',
        remedy=f"cdc-audit slot create, or, if there was one before: {RECREATE}",
    )


def _active(refusal: _Refusal) -> CdcAuditError:
    return AnotherDaemonError(
        refusal.text, remedy="stop the daemon that holds the slot, or let this one wait as its standby"
    )


def _not_in_state(refusal: _Refusal) -> CdcAuditError | None:
    if "wal_level" in refusal.message:
        return SettingError(
            refusal.text, remedy="alter system set wal_level = logical; and restart the source server"
        )
    if "not created in this database" in refusal.message:
        return SettingError(
            refusal.text, remedy="correct the database name in [source] dsn, or [source] slot"
        )
    if "cannot be advanced" in refusal.message or "cannot advance" in refusal.message:
        return SettingError(refusal.text, remedy="cdc-audit slot status")
    lost = ("can no longer", "cannot read from", "invalidated", "wal_removed")
    if any(word in refusal.message or word in refusal.detail for word in lost):
        return SettingError(
            f'source database: replication slot "{refusal.slot}" was invalidated; what it held is lost'
            f" ({refusal.state})",
            remedy=f"{RECREATE}\nraise max_slot_wal_keep_size of the source server",
        )
    return SettingError(refusal.text, remedy="cdc-audit slot status")


def _file_missing(refusal: _Refusal) -> CdcAuditError:
    if refusal.names_plugin:
        major = refusal.major or _MAJOR_UNKNOWN
        package = f"apt-get install postgresql-{major}-{refusal.plugin}"
        return SettingError(
            f'source database: the server does not have the output plugin "{refusal.plugin}" (58P01)',
            remedy=f'{package} on the source server; or set [source] plugin = "pgoutput"',
        )
    return SettingError(refusal.text, remedy=RECREATE)


def _option_unknown(refusal: _Refusal) -> CdcAuditError | None:
    # Only an option's name is told: other errors of this class may quote what they read.
    option = _OPTION.search(refusal.message)
    if option is None:
        return None
    return SettingError(
        f'source database: output plugin "{refusal.plugin}" does not take the option "{option[1]}" (22023)',
        remedy=f"install a newer {refusal.plugin} on the source server",
    )


def _all_in_use(refusal: _Refusal) -> CdcAuditError:
    return SettingError(
        refusal.text,
        remedy="drop a slot that nobody needs (select slot_name, active from pg_replication_slots;), or "
        "alter system set max_replication_slots = ...; and restart the source server",
    )


def _exists(refusal: _Refusal) -> CdcAuditError:
    return SettingError(refusal.text, remedy="cdc-audit slot status")


def _poison(refusal: _Refusal) -> CdcAuditError:
    # Not the server's own words: they may quote the value.
    at = _LSN.search(refusal.context)
    where = f" at {at[0]}" if at else ""
    why = "is too large for" if refusal.state == "54000" else "can't be read by"
    return PoisonError(
        f"source database: a change or message{where} {why} the output plugin ({refusal.state})",
        lsn=parse_lsn(at[0]) if at else 0,
    )


def _on_standby(refusal: _Refusal) -> CdcAuditError:
    return SettingError(
        refusal.text, remedy="let [source] dsn name the primary (a standby can't before PostgreSQL 16)"
    )


_BY_STATE: dict[str, Callable[[_Refusal], CdcAuditError | None]] = {
    "0A000": _on_standby,
    "22023": _option_unknown,
    "28000": lambda refusal: (
        not_a_replication_role(refusal.role) if "replication" in refusal.message else None
    ),
    "42501": _not_permitted,
    "42704": _missing,
    "42710": _exists,
    "53400": _all_in_use,
    "54000": _poison,
    "55000": _not_in_state,
    "55006": _active,
    "58P01": _file_missing,
}


def _libraries(*names: str) -> str:
    return ", ".join(dict.fromkeys(names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
