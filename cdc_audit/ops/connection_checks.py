"""Doctor's checks of the connections themselves: encrypted, and printing values as the decoder reads them."""

from __future__ import annotations

from psycopg import Connection

from cdc_audit.ops.check import Check, Outcome, Session, Side
from cdc_audit.postgres import connect
from cdc_audit.source.stream import OPTIONS, PINNED

_LOOPBACK = ("127.", "::1", "localhost")
_NAMED = "verify-full"


def source_tls(session: Session) -> Outcome:
    """Nobody on the way can read the changes."""
    return _tls(session.source, "source")


def audit_tls(session: Session) -> Outcome:
    """Nobody on the way can read the trail, or stand in for its database."""
    return _tls(session.audit, "audit")


def _tls(connection: Connection, side: Side) -> Outcome:
    info = connection.info
    mode = info.get_parameters().get("sslmode", "prefer")
    return tls(side, host=info.host, is_encrypted=bool(info.pgconn.ssl_in_use), mode=mode)


def tls(side: Side, *, host: str, is_encrypted: bool, mode: str) -> Outcome:
    """The verdict on a connection. A host that begins with "/" is a socket's folder; ``mode`` is libpq's sslmode."""
    remedy = (
        f"add sslmode={_NAMED} to [{side}] dsn; where a certificate of your own signs, also sslrootcert=FILE"
    )
    if host.startswith(("/", "@")) or not host:
        return Outcome("ok", "the connection is a local socket")
    if not is_encrypted and host.startswith(_LOOPBACK):
        return Outcome("ok", "the connection doesn't leave this machine")
    if not is_encrypted:
        return Outcome("warn", f"the connection to {host} is not encrypted", remedy)
    if mode != _NAMED:
        return Outcome(
            "info",
            f"the connection to {host} is encrypted, but with sslmode={mode} another server could stand in for it",
            remedy,
        )
    return Outcome("ok", f"the connection to {host} is encrypted, and the server's name verified")


def pinned_settings(session: Session) -> Outcome:
    """The stream's values are printed in the one way that the decoder knows, whatever roles and databases set."""
    wanted = {name.lower(): value for name, value in PINNED.items()}
    with connect(session.config.source.dsn, side="source", settings=OPTIONS) as connection:
        rows = session.rows_on(connection, "pinned", names=list(wanted))
    # DateStyle has a second part, the order of input.
    wrong = [row.name for row in rows if row.value.partition(",")[0].strip('"') != wanted[row.name]]
    if wrong:
        return Outcome(
            "fail",
            f"{', '.join(wrong)}: another value than the decoder needs, by the options of [source] dsn",
            "take these settings out of options in [source] dsn",
        )
    return Outcome("ok", "the settings that decide how values are printed are pinned")


def connection_checks() -> list[Check]:
    """The checks, in the order in which they make sense."""
    return [
        Check("source_tls", "source", source_tls, ("source_reachable",)),
        Check("pinned_settings", "source", pinned_settings, ("source_reachable",)),
        Check("audit_tls", "audit", audit_tls, ("audit_reachable",)),
    ]
