r"""Changes into the lines of ``audit_logs``.

A line is the row as ``COPY audit_logs (all columns but row_hash) TO STDOUT`` prints it in UTC, in the table's column order::

    id created_at schema_name table_name record_id action old_data new_data changed_fields user_id user_email ip_address
    user_agent context context_trust db_user application_name capture unchanged_toast partition_name xid commit_lsn seq

Its leaf hash is SHA-256(0x00 || line), without the line's end, and is sent as the last column, ``row_hash``: so
``psql -c "copy (select id, ..., seq from audit_logs where id = 1) to stdout" | head -c -1`` is what a verifier hashes.
"""

from __future__ import annotations

from binascii import hexlify
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from itertools import compress
from operator import ne
from typing import TypeAlias, cast

from cdc_audit.model.context import Context
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Row, RowValues, Shape, Suppressed, Truncate
from cdc_audit.model.lsn import format_lsn
from cdc_audit.seal.copy_text import NULL, escape, field, json_field, optional
from cdc_audit.seal.personal import Openings, Random, commit_context
from cdc_audit.seal.plan import Image, Plan, make_plan
from cdc_audit.seal.redact import NO_RULES, STEMS, Redaction, mask_context, mask_keys

_Plans: TypeAlias = dict[int, tuple[Shape, Plan]]  # by id(): shapes are compared by identity
_Run: TypeAlias = Callable[
    [list[Change], int, _Plans, bytes, bytes, bytes, int, int, list[bytes], list[tuple[Plan, int]]],
    tuple[bytes, int, int],
]
_compiled: _Run | None = None
try:
    from cdc_audit.seal import _lines
except ImportError:
    pass
else:
    _lines.init_redaction(mask_keys, STEMS)
    _compiled = _lines.run

IS_COMPILED = _compiled is not None
"""Whether ``make native`` (or a wheel built with it) has compiled the hot loops."""

_NULL = NULL.decode()
_MAX_PLANS = 20_000
_MAX_KNOWN = 4096
_MAX_KNOWN_BYTES = 2048


# The fields that all lines of a call have: created_at, the context's, xid and commit_lsn. And where nobody said who: the
# application, "" if it isn't known either; else None.
_Shared: TypeAlias = tuple[bytes, bytes, bytes, str | None]


class LineWriter:
    """Makes lines; keeps the plans of the shapes seen so far. ``redacted_values`` counts columns' values in images, events'
    data and contexts (once for all rows of a call to ``write``) that redaction has changed. ``openings`` are those of the personal
    values; ``random`` gives random bytes for them. ``kinds`` counts rows by table and action until somebody takes them out; None:
    nobody asks.
    """

    def __init__(self, redaction: Redaction = NO_RULES, random: Random | None = None) -> None:
        self._redaction = redaction
        self.kinds: Counter[tuple[str, str]] | None = None
        self.openings = Openings(random)
        self._plans: _Plans = {}
        self._known: dict[Context, tuple[bytes, str | None]] = {}  # users make more than one transaction
        self.start_counting()

    def start_counting(self) -> None:
        """Count from nothing again: a new block begins."""
        self.openings.start_block()
        self.redacted_values = 0
        self.rows_by_action: Counter[str] = Counter()
        self.suppressed_by_table: Counter[str] = Counter()
        self.missing_rows: Counter[tuple[str, str]] = Counter()  # by table and application

    def set_redaction(self, redaction: Redaction) -> None:
        """Redact by other rules from here on."""
        self._redaction = redaction
        self._plans.clear()
        self._known.clear()

    def write(
        self,
        transaction: Begin,
        context: Context,
        changes: list[Change],
        *,
        first_id: int,
        first_seq: int,
        lines: list[bytes],
        leaves: list[bytes],
    ) -> None:
        """Append the lines (in pieces, each with its row_hash and line end) and a leaf hash for each change; ids and seqs count up
        from the first.
        """
        xid, end_lsn, committed_at = transaction
        created_at = committed_at.encode()
        where = f"{xid or _NULL}\t{format_lsn(end_lsn)}".encode()
        who, missing_of = self._who(context)
        shared = created_at, who, where, missing_of
        self.openings.share()
        if _compiled is None or self.openings.shared:
            self._write_each(changes, shared, first_id, first_seq, lines, leaves)
            return
        position, seqs_ahead = 0, first_seq - first_id
        counts: list[tuple[Plan, int]] = []
        while position < len(changes):
            row_id = first_id + position
            data, rows, redacted = _compiled(
                changes,
                position,
                self._plans,
                created_at,
                who,
                where,
                row_id,
                row_id + seqs_ahead,
                leaves,
                counts,
            )
            if rows:
                lines.append(data)
                self.redacted_values += redacted
                position += rows
                continue
            change = changes[position]
            if type(change) is tuple and not self._plan(cast("Row", change)[0]).is_personal:
                continue  # now it is known
            self._write_each([change], shared, row_id, row_id + seqs_ahead, lines, leaves)
            position += 1
        for plan, rows in counts:
            self._count(plan, rows, missing_of)

    def _write_each(
        self,
        changes: list[Change],
        shared: _Shared,
        row_id: int,
        seq: int,
        lines: list[bytes],
        leaves: list[bytes],
    ) -> None:
        created_at, who, where, missing_of = shared
        openings, pending = self.openings.shared, self.openings.pending
        plans = self._plans
        for change in changes:
            if type(change) is tuple:
                shape, new, old = cast("Row", change)
                found = plans.get(id(shape))
                plan = found[1] if found is not None else self._plan(shape)
                fields = self._row_fields(plan, new, old)
                tail = plan.tail
                if missing_of is not None:
                    self.missing_rows[plan.table, missing_of] += 1
                if self.kinds is not None:
                    self.kinds[plan.table, plan.action] += 1
            else:
                fields, tail = self._other_fields(change)  # type: ignore[arg-type]
            line = b"\t".join((b"%d" % row_id, created_at, *fields, who, tail, where, b"%d" % seq))
            leaf = sha256(b"\0" + line).digest()
            leaves.append(leaf)
            lines += (line, b"\t\\\\x%b\n" % hexlify(leaf))
            if openings or pending:
                self.openings.close_row(row_id)
            row_id += 1
            seq += 1

    def _count(self, plan: Plan, rows: int, missing_of: str | None) -> None:
        self.rows_by_action[plan.action] += rows
        if missing_of is not None:
            self.missing_rows[plan.table, missing_of] += rows
        if self.kinds is not None:
            self.kinds[plan.table, plan.action] += rows

    def _plan(self, shape: Shape) -> Plan:
        found = self._plans.get(id(shape))
        if found is not None:
            return found[1]
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        plan = make_plan(shape, self._redaction, self.openings)
        self._plans[id(shape)] = (shape, plan)  # the shape is kept alive, so its id stays its own
        return plan

    def _row_fields(self, plan: Plan, new: RowValues, old: RowValues) -> tuple[bytes, ...]:
        """The fields from schema_name to changed_fields of a row change."""
        self.rows_by_action[plan.action] += 1
        changed = NULL
        if plan.changed:  # of the values as they are: what is redacted has changed, too
            changed = b"{%b}" % b",".join(compress(plan.changed, map(ne, new, old)))
        old_data = new_data = NULL
        if plan.old is not None:
            if plan.old.rewrites:
                old = self._rewritten(plan.old, old)
            old_data = json_field(plan.old.template % plan.old.pick(old))
        if plan.new is not None:
            if plan.new.rewrites:
                new = self._rewritten(plan.new, new)
            new_data = json_field(plan.new.template % plan.new.pick(new))
        record = plan.record(old if plan.record_in_old else new)
        return plan.names, record, plan.action_field, old_data, new_data, changed

    def _rewritten(self, image: Image, values: RowValues) -> RowValues:
        """The values as the trail may have them."""
        values = list(values)
        for position, rewrite in image.rewrites:
            value = values[position]
            if value != b"null":
                values[position] = rewrite(value)
                self.redacted_values += values[position] != value
        return values

    def _other_fields(
        self, change: Truncate | Suppressed | ApplicationEvent
    ) -> tuple[tuple[bytes, ...], bytes]:
        """The fields from schema_name to changed_fields, and from capture to partition_name."""
        if isinstance(change, ApplicationEvent):
            self.rows_by_action[change.action] += 1
            schema, dot, table = change.table.partition(".")
            names = (schema, table) if dot and change.schema is None else (change.schema or "", change.table)
            data = json_field(self._counted(change.data, mask_keys(change.data))) if change.data else NULL
            record, capture, partition = optional(change.record_id), b"full", ""
            action = change.action
        else:
            names, partition, data, record = (change.schema, change.table), change.partition, NULL, NULL
            capture = b"full"
            action = "TRUNCATE"
            if isinstance(change, Suppressed):
                capture, action = b"suppressed", change.action
                self.suppressed_by_table[f"{change.schema}.{change.table}"] += 1
            self.rows_by_action[action] += 1
        if self.kinds is not None:
            self.kinds[f"{names[0]}.{names[1]}", action] += 1
        fields = (field(names[0]), field(names[1]), record, escape(action.encode()), NULL, data, NULL)
        return fields, b"%b\t%b\t%b" % (capture, NULL, optional(partition))

    def _who(self, context: Context) -> tuple[bytes, str | None]:
        """The fields from user_id to application_name; and the application where nobody said who, else None."""
        known = self._known.get(context)
        if known is not None:
            return known
        redacted = self.redacted_values
        fields = self._context_fields(context)
        found = fields, context.application_name if context.is_missing else None
        is_plain = not self._redaction.personal_context and redacted == self.redacted_values
        if is_plain and len(fields) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[context] = found
        return found

    def _context_fields(self, context: Context) -> bytes:
        rest = context.rest.encode()
        rest = self._counted(rest, mask_context(context)) if rest else b""
        if self._redaction.personal_context:
            context = commit_context(
                context._replace(rest=rest.decode()), self._redaction.personal_context, self.openings
            )
            rest = context.rest.encode()
        return b"\t".join(
            [
                optional(context.user_id),
                optional(context.user_email),
                optional(context.ip_address),
                optional(context.user_agent),
                json_field(rest) if rest else NULL,
                context.trust.value.encode(),
                optional(context.db_user),
                optional(context.application_name),
            ]
        )

    def _counted(self, before: bytes, after: bytes) -> bytes:
        self.redacted_values += after != before
        return after
