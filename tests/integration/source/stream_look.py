"""A look into the stream through test_decoding, which every server has and always allows."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from psycopg import Connection

from cdc_audit.model.lsn import parse_lsn

_MESSAGE = re.compile(r"message: transactional: (\d) prefix: (.*?), sz: \d+ content:(.*)", re.DOTALL)


class Sent(NamedTuple):
    """A logical message. ``xid`` is the transaction's, as the stream shows it; ``lsn`` is the message's."""

    transactional: bool
    prefix: str
    content: str
    xid: int
    lsn: int

    @property
    def body(self) -> dict[str, Any]:
        """What was signed, parsed."""
        found: dict[str, Any] = json.loads(self.content.split(":", 3)[3])
        return found


class Look:
    def __init__(self, connection: Connection, slot: str) -> None:
        self._connection = connection
        self._slot = slot

    def lines(self) -> list[str]:
        """What test_decoding prints of all that has come since the last look."""
        return [line for _, _, line in self._changes()]

    def messages(self) -> list[Sent]:
        """The messages among it."""
        matches = [(lsn, xid, _MESSAGE.fullmatch(line)) for lsn, xid, line in self._changes()]
        return [Sent(m[1] == "1", m[2], m[3], xid, parse_lsn(lsn)) for lsn, xid, m in matches if m]

    def _changes(self) -> list[tuple[str, int, str]]:
        # A commit makes sure that messages outside of transactions are on disk and so in the stream.
        self._connection.execute("create table public.flushed(); drop table public.flushed")
        return self._connection.execute(
            "select lsn::text, xid::text::int, data from pg_logical_slot_get_changes(%s, null, null)",
            (self._slot,),
        ).fetchall()
