"""Reading the ledger's head and appending to it. The ledger is the checkpoint: its last row says where to resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import psycopg
from psycopg import Connection, sql

from cdc_audit.errors import AnotherDaemonError, SettingError
from cdc_audit.model.jsonb import canonical
from cdc_audit.model.ledger import Block
from cdc_audit.model.ledger import timestamp as timestamp
from cdc_audit.model.lsn import format_lsn, parse_lsn
from cdc_audit.postgres import explain, named_sql
from cdc_audit.seal import copy_binary
from cdc_audit.seal.block import EMPTY_ROOT, NO_HASH, block_hash
from cdc_audit.seal.signature import Signer, begins_signing

# The audit schema's version that this program writes to.
SCHEMA_VERSION = 6

# A daemon that flushes at once may be faster many times.
ATTEMPTS = 100


def statement(name: str, schema: str) -> sql.Composed:
    """One of this room's statements for a schema."""
    return sql.SQL(named_sql("cdc_audit.sink", "sql/ledger.sql")[name]).format(schema=sql.Identifier(schema))


def copy_rows(schema: str) -> sql.Composed:
    """COPY of a block's rows, in the format in which the writer sends them."""
    binary = sql.SQL(" (format binary)" if copy_binary.IS_COMPILED else "")
    return statement("copy_rows", schema) + binary


def block_of(row: tuple[Any, ...]) -> tuple[Block, bytes]:
    """The block and its hash from a row of ``last_block``."""
    *fields, stored_hash = row
    fields[7], fields[8] = parse_lsn(fields[7]), parse_lsn(fields[8])
    fields[11], fields[12] = bytes(fields[11]), bytes(fields[12])
    return Block(*fields), bytes(stored_hash)


def parameters(block: Block, hash_: bytes, signature: bytes) -> tuple[Any, ...]:
    """The values for ``append``; no signature is b""."""
    values: list[Any] = list(block)
    values[7], values[8] = format_lsn(block.start_lsn), format_lsn(block.end_lsn)
    values[9] = block.last_commit_at or None
    values[13] = block.detail or None
    values[14] = block.key_id or None
    return (*values, hash_, signature or None)


def sign(block: Block, hash_: bytes, signer: Signer | None) -> bytes:
    """The signature of a block whose header names the signer's key; b"" without one."""
    assert block.key_id == (signer.key_id if signer else ""), "the header names the key that signs"
    return signer.sign(hash_) if signer else b""


def check_version(version: int | None, schema: str) -> None:
    """Raises SettingError unless the audit schema is there and at this program's version."""
    if version is None:
        raise SettingError(f"audit database: schema {schema} is not there", remedy="cdc-audit init")
    if version < SCHEMA_VERSION:
        raise SettingError(
            f"audit database: schema {schema} is at version {version}, this program needs {SCHEMA_VERSION}",
            remedy="cdc-audit schema migrate",
        )
    if version > SCHEMA_VERSION:
        raise SettingError(
            f"audit database: schema {schema} is at version {version}, newer than this program's {SCHEMA_VERSION}",
            remedy="upgrade cdc-audit on this machine",
        )


def is_missing(error: psycopg.Error) -> bool:
    """Whether an error says that the audit schema is not there."""
    return error.sqlstate in {"3F000", "42P01", "42883"}


def require_version(connection: Connection, schema: str) -> None:
    """Raises SettingError unless the audit schema is there and at this program's version."""
    try:
        version = connection.execute(statement("version", schema)).fetchone()
    except psycopg.Error as error:
        if is_missing(error):
            check_version(None, schema)
        raise explain(error, side="audit") from error
    check_version((version and version[0]) or 0, schema)


def last_block(connection: Connection, schema: str) -> tuple[Block, bytes] | None:
    """The chain's last block and its hash, or None if the ledger is empty. Raises our errors."""
    require_version(connection, schema)
    try:
        row = connection.execute(statement("last_block", schema)).fetchone()
    except psycopg.Error as error:
        raise explain(error, side="audit") from error
    return block_of(row) if row else None


def append(
    connection: Connection,
    schema: str,
    kind: str,
    *,
    start_lsn: int | None = None,
    end_lsn: int | None = None,
    detail: Mapping[str, object],
    system_identifier: str | None = None,
    timeline: int | None = None,
    signer: Signer | None = None,
) -> Block:
    """Append a block without rows on top of the chain's last one; ``erasure``: and erase what its detail names.

    Positions that aren't given stay where the last block ends. Where it is the first one to be signed, the ``key`` block that
    begins signing comes before it. Raises SettingError if the ledger is empty or signed with another key, AnotherDaemonError
    if somebody else appended at the same time.
    """
    last = _head(connection, schema)
    if begins_signing(last[0], signer):
        assert signer
        last = _append_key(connection, schema, last, new=signer, old=None)
    at = last[0].end_lsn
    block, hash_ = without_rows(
        *last, kind=kind, start_lsn=at if start_lsn is None else start_lsn,
        end_lsn=at if end_lsn is None else end_lsn, detail=detail, written_at=_now(connection, schema),
        timeline=last[0].timeline if timeline is None else timeline, signer=signer,
    )  # fmt: skip
    if system_identifier is not None:
        block = block._replace(system_identifier=system_identifier)
        hash_ = block_hash(block)
    _insert(connection, schema, block, hash_, signer)
    return block


def append_beside_daemon(
    connection: Connection,
    schema: str,
    kind: str,
    *,
    detail: Mapping[str, object],
    signer: Signer | None,
) -> Block:
    """``append`` in a transaction of its own, again and again while a daemon at work is faster. Raises as ``append`` does."""
    for attempt in range(ATTEMPTS):
        try:
            with connection.transaction():
                return append(connection, schema, kind, detail=detail, signer=signer)
        except AnotherDaemonError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def rotate(connection: Connection, schema: str, *, old: Signer, new: Signer) -> Block:
    """Append the ``key`` block that makes ``new`` the successor of ``old``. Raises as ``append`` does.

    AnotherDaemonError too while a daemon writes this ledger: it would go on signing with the old key.
    """
    last = _head(connection, schema)
    if begins_signing(last[0], old):
        raise SettingError(
            "the ledger is not signed yet, so there is no key to replace",
            remedy="let [ledger] signing_key_file name the new key: the daemon begins with it",
        )
    row = connection.execute(statement("try_lock", schema), (schema,)).fetchone()
    if not row or not row[0]:
        raise AnotherDaemonError(
            "a daemon writes this ledger", remedy="stop it, repeat, start it with the new key"
        )
    return _append_key(connection, schema, last, new=new, old=old)[0]


def _head(connection: Connection, schema: str) -> tuple[Block, bytes]:
    last = last_block(connection, schema)
    if last is None:
        raise SettingError("the ledger is empty", remedy="cdc-audit init")
    return last


def _append_key(
    connection: Connection, schema: str, last: tuple[Block, bytes], *, new: Signer, old: Signer | None
) -> tuple[Block, bytes]:
    block, hash_ = key_block(*last, new=new, old=old, written_at=_now(connection, schema))
    _insert(connection, schema, block, hash_, old or new)
    return block, hash_


def genesis(
    connection: Connection,
    schema: str,
    *,
    system_identifier: str,
    timeline: int,
    slot: str,
    lsn: int,
    detail: Mapping[str, object],
    signer: Signer | None = None,
) -> Block:
    """Write block 0: the trail begins at ``lsn``, the slot's starting point."""
    block, hash_ = without_rows(
        before_genesis(system_identifier, slot, lsn), NO_HASH, kind="genesis", start_lsn=lsn, end_lsn=lsn, detail=detail,
        timeline=timeline, written_at=_now(connection, schema), signer=signer,
    )  # fmt: skip
    _insert(connection, schema, block, hash_, signer)
    return block


def before_genesis(system_identifier: str, slot: str, lsn: int) -> Block:
    """What block 0 stands on: no block at all, so the first row's id is 1."""
    return Block(-1, "", 1, 0, system_identifier, 0, slot, lsn, lsn, "", "", EMPTY_ROOT, NO_HASH, "", "")


def without_rows(
    previous: Block,
    previous_hash: bytes,
    *,
    kind: str,
    start_lsn: int,
    end_lsn: int,
    detail: Mapping[str, object],
    timeline: int,
    written_at: str,
    signer: Signer | None = None,
) -> tuple[Block, bytes]:
    """A block without rows on top of another one, for this signer to sign, and its hash."""
    block = previous._replace(
        block=previous.block + 1,
        kind=kind,
        first_id=previous.first_id + previous.row_count,
        row_count=0,
        timeline=timeline,
        start_lsn=start_lsn,
        end_lsn=end_lsn,
        written_at=written_at,
        rows_root=EMPTY_ROOT,
        prev_hash=previous_hash,
        detail=canonical(orjson.dumps(detail)).decode(),
        key_id=signer.key_id if signer else "",
    )
    return block, block_hash(block)


def key_block(
    previous: Block, previous_hash: bytes, *, new: Signer, old: Signer | None, written_at: str
) -> tuple[Block, bytes]:
    """The ``key`` block that makes ``new`` the successor of ``old`` or, without one, begins signing; and its hash."""
    return without_rows(
        previous, previous_hash, kind="key", start_lsn=previous.end_lsn, end_lsn=previous.end_lsn,
        detail=new.succession(previous_hash, old), timeline=previous.timeline, written_at=written_at, signer=old or new,
    )  # fmt: skip


def _now(connection: Connection, schema: str) -> str:
    row = connection.execute(statement("now", schema)).fetchone()
    assert row is not None
    return str(row[0])


def _insert(connection: Connection, schema: str, block: Block, hash_: bytes, signer: Signer | None) -> None:
    name = "erase" if block.kind == "erasure" else "append"
    try:
        connection.execute(statement(name, schema), parameters(block, hash_, sign(block, hash_, signer)))
    except psycopg.errors.UniqueViolation:
        raise AnotherDaemonError(
            f"block {block.block} of the ledger was written by somebody else just now",
            remedy="stop the daemon, then repeat",
        ) from None
    except psycopg.Error as error:
        raise explain(error, side="audit") from error
