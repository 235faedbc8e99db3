r"""Personal values: in a row stands a commitment, beside it, until it is erased, what opens it.

A value's commitment is SHA-256(0x03 || salt || value): 16 random bytes, then the value's JSON text as jsonb prints it. In the
row stands ``personal:<64 hexadecimal digits>``: as a JSON string in an image or in ``context``, as text in ``user_email`` and
``user_agent``; ``ip_address`` is null, and its commitment stands in ``context`` under that name. The row's line, and so its
leaf, covers the commitment, never the value: a row is the same row before and after its values are erased.

The opening is a row of ``personal_values``: id, part (``old_data``, ``new_data``, ``context``), field (column or key),
commitment, salt, value. Rows under one context share its commitments; each has an opening of its own. A data block whose rows
have openings says so in its detail, since what looks like a commitment may be anybody's data::

    {"personal": {"hash": "<SHA-256 in hex>", "count": <openings>}}

The hash is over what this prints for the block's rows, so an opening that is gone or was added shows::

    copy (select id, part, field, encode(commitment, 'hex') from personal_values where ... order by id, part, field) to stdout

Parts and fields are ordered by their bytes. To erase is to set salt and value to null. The ``erasure`` block that says so
stands later in the same ledger. Its detail names inclusive ranges of ids, rising, and the parts whose values in these rows
are erased, all of them::

    {"by": <session_user>, "ids": [[first, last], ...], "parts": [...], "reason": <text>, "values": <how many were erased>}

What may change is that an opening is there; a commitment, or that there was one, never does. Without the salt a commitment
tells nothing of its value: nobody can try out values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

import orjson

from cdc_audit.model.context import Context
from cdc_audit.model.jsonb import canonical, string
from cdc_audit.model.ledger import Block
from cdc_audit.seal.copy_text import escape, json_field

PARTS = ("context", "new_data", "old_data")
_SALT_BYTES = 16
_E_MAIL = frozenset({"email", "user_email"})
_COLUMNS = ("user_email", "ip_address", "user_agent")

Random = Callable[[int], bytes]


def commitment(salt: bytes, value: bytes) -> bytes:
    """What stands for a value: 32 bytes."""
    return sha256(b"\3" + salt + value).digest()


def text_of(committed: bytes) -> str:
    """How a commitment is written in a row."""
    return f"personal:{committed.hex()}"


class Opening(NamedTuple):
    """One value's opening, but for the row's id. ``said`` is hashed, ``stored`` is what COPY takes: fields after the id."""

    part: bytes
    field: bytes
    said: bytes
    stored: bytes


class Openings:
    """The openings of the block that is being made. ``random`` gives so many random bytes.

    ``commit`` and ``share`` come first, then ``close_row`` for the row. ``pending`` and ``shared`` are the next row's, and the same
    lists for ever: where both are empty, ``close_row`` need not be called.
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random
        self.pending: list[Opening] = []
        self.shared: list[Opening] = []
        self._taken: list[bytes] = []
        self._size = 0
        self.start_block()

    def start_block(self) -> None:
        """Count and hash from nothing again."""
        self.count = 0
        self._hash = sha256()

    def commit(self, part: str, field: str, value: bytes) -> str:
        """The text that stands for a value (its JSON text) in the next row."""
        assert self._random is not None, "personal values need a source of salts"
        salt = self._random(_SALT_BYTES)
        committed = commitment(salt, value)
        name = escape(field.encode())
        said = b"%b\t%b\t%b\n" % (part.encode(), name, committed.hex().encode())
        stored = b"%b\t%b\t\\\\x%b\t\\\\x%b\t%b\n" % (
            part.encode(), name, committed.hex().encode(), salt.hex().encode(), json_field(value)
        )  # fmt: skip
        self.pending.append(Opening(part.encode(), field.encode(), said, stored))
        return text_of(committed)

    def committer(self, part: str, field: str) -> Callable[[bytes], bytes]:
        """What puts the commitment, as a JSON string, in a value's place in an image."""
        return lambda value: b'"%b"' % self.commit(part, field, value).encode()

    def share(self) -> None:
        """What was committed to since the last row is every row's from here on, until the next call."""
        if self.pending or self.shared:
            self.shared[:] = sorted(self.pending)
            self.pending.clear()

    def close_row(self, row_id: int) -> None:
        """The pending and shared openings are this row's."""
        self.pending.sort()
        for opening in [*self.shared, *self.pending]:  # "context" is the first part
            self._hash.update(b"%d\t%b" % (row_id, opening.said))
            self._taken.append(b"%d\t%b" % (row_id, opening.stored))
            self._size += len(self._taken[-1])
            self.count += 1
        self.pending.clear()

    def take(self) -> bytes:
        """Lines for ``personal_values``, in its column order: those of the rows closed since the last call."""
        data = b"".join(self._taken)
        self._taken.clear()
        return data

    def take_size(self) -> int:
        """How many bytes of lines came since the last call."""
        size, self._size = self._size, 0
        return size

    def detail(self, more: str = "") -> str:
        """The block's detail as jsonb prints it, or "": ``more``, an object or "", and what is to be said of them."""
        said = detail(self.count, self._hash.digest()) if self.count else ""
        return canonical(f"{more[:-1]}, {said[1:]}").decode() if more and said else more or said


def detail(count: int, hash_: bytes) -> str:
    """The detail of a data block with so many openings."""
    return f'{{"personal": {{"hash": "{hash_.hex()}", "count": {count}}}}}'


def said_of(detail_text: str) -> tuple[int, str]:
    """How many openings a data block's detail says there are, and their hash in hex; (0, "") if it says nothing.

    Raises ValueError if it can't be read.
    """
    try:
        said = orjson.loads(detail_text).get("personal") if detail_text else None
        return (int(said["count"]), str(said["hash"])) if said else (0, "")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a data block's detail") from error


class Erasure(NamedTuple):
    """What an ``erasure`` block says was erased: these parts of the rows in these inclusive ranges, rising."""

    parts: tuple[str, ...]
    ids: tuple[tuple[int, int], ...]


def erasure_of(block: Block) -> Erasure:
    """The erasure of an ``erasure`` block. Raises ValueError unless it is well formed and names rows before the block only."""
    try:
        said = orjson.loads(block.detail)
        parts = tuple(map(str, said["parts"]))
        ids = tuple((int(first), int(last)) for first, last in said["ids"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an erasure's detail") from None
    bounds = [bound for one in ids for bound in one]
    if not ids or bounds != sorted(bounds) or bounds[-1] >= block.first_id or not set(parts) <= set(PARTS):
        raise ValueError("an erasure of rows that are not before it")
    return Erasure(parts, ids)


def commit_context(context: Context, names: Iterable[str], openings: Openings) -> Context:
    """A context with commitments in place of what is personal in it: columns and keys by these names; null stays null.

    ``email`` and ``user_email`` are one name: applications may say either.
    """
    wanted = frozenset(names)
    if wanted & _E_MAIL:
        wanted |= _E_MAIL
    columns: dict[str, str] = {}
    rest = _members(context.rest)
    for name in _COLUMNS:
        text: str = getattr(context, name)
        if name in wanted and text:
            columns[name] = openings.commit("context", name, string(text))
    for name, value in rest.items():
        if name in columns:  # two e-mail addresses, one of which is none: a field has one opening
            rest[name] = "[redacted]"
        elif name in wanted and value is not None:
            rest[name] = openings.commit("context", name, canonical(orjson.dumps(value)))
    if not openings.pending:
        return context
    if "ip_address" in columns:
        rest["ip_address"] = columns["ip_address"]
    return context._replace(
        user_email=columns.get("user_email", context.user_email),
        ip_address="" if "ip_address" in columns else context.ip_address,
        user_agent=columns.get("user_agent", context.user_agent),
        rest=canonical(orjson.dumps(rest)).decode() if rest else "",
    )


def _members(rest: str) -> dict[str, object]:
    """The members of a context's rest; numbers stay as they are written."""
    members: dict[str, object] = (
        json.loads(rest, parse_float=orjson.Fragment, parse_int=orjson.Fragment) if rest else {}
    )
    return members
