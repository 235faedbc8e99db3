"""What the output plugin is asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_audit.join import foreign

# Asked for where the plugin knows them; each server that doesn't answers 22023 and names the option.
QUOTED_NUMBERS = "numeric-data-types-as-string"
OPTIONAL = (QUOTED_NUMBERS,)
_SPECIAL = " ',.*\\"


def wal2json_options(
    *, prefix: str, exclude: Sequence[str] = (), accept: Sequence[str] = ()
) -> dict[str, str]:
    """The options for ``decode.wal2json``. Tables that are excluded by exact name are left out by the server already.

    ``accept`` names packages whose messages come along (``join.foreign``).
    """
    ours = (f"{prefix}.{kind}" for kind in ("context", "event", "ddl", "session", "read"))
    messages = [*ours, *foreign.prefixes(accept)]
    options = {
        "format-version": "2",
        "include-xids": "1",
        "include-timestamp": "1",
        "include-lsn": "1",
        "include-pk": "1",
        "include-types": "0",
        "include-type-oids": "1",
        "add-msg-prefixes": ",".join(messages),
        **dict.fromkeys(OPTIONAL, "1"),
    }
    exact = [_escaped(pattern) for pattern in exclude if _is_exact(pattern)]
    options["filter-tables"] = ",".join(["cdc_audit.*", *exact])
    return options


def left_out(exclude: Sequence[str]) -> frozenset[str]:
    """The patterns whose tables wal2json leaves out of a stream, from its start to its end."""
    return frozenset(pattern for pattern in exclude if _is_exact(pattern))


def _is_exact(pattern: str) -> bool:
    """Whether wal2json takes a pattern to mean the same: each part a name, or ``*`` alone."""
    return all(part == "*" or "*" not in part for part in pattern.split(".", 1))


def _escaped(pattern: str) -> str:
    parts = pattern.split(".", 1)
    return ".".join(
        part if part == "*" else "".join("\\" + c if c in _SPECIAL else c for c in part) for part in parts
    )


def pgoutput_options(*, publications: Sequence[str]) -> dict[str, str]:
    """The options for ``decode.pgoutput``."""
    quoted = ('"' + name.replace('"', '""') + '"' for name in publications)
    return {"proto_version": "1", "publication_names": ",".join(quoted), "messages": "true"}
