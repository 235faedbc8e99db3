"""Whether the source lets the daemon use the output plugin: really tried, on a temporary slot."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping

import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import SettingError
from cdc_audit.postgres import conninfo
from cdc_audit.source import plugin as refusals
from cdc_audit.source.plugin_options import OPTIONAL

PATIENCE_SECONDS = 10.0
_CANCELED = "57014"
_UNKNOWN_OPTION = "22023"


class NoFreeSlotError(SettingError):
    """All replication slots are taken, so the plugin could not be tried."""


class Probe:
    """One replication connection of the daemon's role, for ``major`` of the server. Close it when done."""

    def __init__(self, dsn: str, *, slot: str, plugin: str, major: int) -> None:
        """Connect. Raises our error for whatever refuses a replication connection."""
        self._plugin = plugin
        self._major = major
        self._slot = f"{slot[:40]}_doctor_{os.getpid()}"
        self._role = str(psycopg.conninfo.conninfo_to_dict(dsn).get("user") or "")
        text = conninfo(dsn, application_name="cdc-audit-doctor")
        try:
            self._connection = Connection.connect(text, autocommit=True, replication="database")
        except psycopg.Error as error:
            raise self._refusal(error) from error
        self._role = self._connection.info.user

    def close(self) -> None:
        """End the connection, and with it the temporary slot."""
        self._connection.close()

    def create_slot(self, patience: float = PATIENCE_SECONDS) -> bool:
        """Load the plugin into a temporary slot; False if open transactions outlast ``patience`` seconds.

        The server loads the plugin before it waits, so a plugin that isn't allowed is known either way.
        Raises SettingError with the remedy, NoFreeSlotError if no slot is free.
        """
        command = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL {} NOEXPORT_SNAPSHOT").format(
            sql.Identifier(self._slot), sql.Identifier(self._plugin)
        )
        timer = threading.Timer(patience, self._cancel)
        timer.start()
        try:
            self._connection.execute(command)
        except psycopg.Error as error:
            if error.sqlstate == _CANCELED:
                return False
            if error.sqlstate == "53400":
                raise NoFreeSlotError("all replication slots are in use") from error
            raise self._refusal(error) from error
        finally:
            timer.cancel()
            timer.join()
        return True

    def unknown_options(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """The optional options that this plugin doesn't know. Raises SettingError for a necessary one.

        Starts to stream if all is well: only ``close`` makes sense afterwards.
        """
        wanted, unknown = dict(options), []
        while True:
            try:
                self._connection.execute(self._start(wanted))
            except psycopg.Error as error:
                refused = [name for name in OPTIONAL if name in wanted and f'"{name}"' in str(error)]
                if error.sqlstate != _UNKNOWN_OPTION or not refused:
                    raise self._refusal(error) from error
                for name in refused:
                    unknown.append(name)
                    del wanted[name]
                self.create_slot()  # an error ends a session's temporary slots
            else:
                return tuple(unknown)

    def _cancel(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe()

    def _start(self, options: Mapping[str, str]) -> sql.Composed:
        pairs = (
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in options.items()
        )
        return sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(
            sql.Identifier(self._slot), sql.SQL(", ").join(pairs)
        )

    def _refusal(self, error: psycopg.Error) -> Exception:
        return refusals.explain_refusal(
            error, role=self._role, slot=self._slot, plugin=self._plugin, major=self._major
        )
