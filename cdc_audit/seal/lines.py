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
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import compress
from operator import ne
from typing import cast

from cdc_audit.config import RedactRule
from cdc_audit.model.context import Context
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Row, RowValues, Shape, Suppressed, Truncate
from cdc_audit.model.lsn import format_lsn
from cdc_audit.seal.copy_text import NULL, escape, field, json_field, optional
from cdc_audit.seal.plan import Image, Plan, make_plan
from cdc_audit.seal.redact import REDACTED

_MAX_PLANS = 20_000


class LineWriter:
    """Makes lines; keeps the plans of the shapes seen so far. ``rules`` say what is redacted besides what names tell."""

    def __init__(self, rules: Sequence[RedactRule] = ()) -> None:
        self._rules = tuple(rules)
        self._plans: dict[int, tuple[Shape, Plan]] = {}  # by id(): shapes are compared by identity
        self.start_counting()

    def start_counting(self) -> None:
        """Count from nothing again."""
        self.redacted_values = 0
        self.rows_by_action: Counter[str] = Counter()
        self.suppressed_by_table: Counter[str] = Counter()
        self.untrusted_by_table: Counter[str] = Counter()

    def set_rules(self, rules: Sequence[RedactRule]) -> None:
        """Redact by other rules from here on."""
        self._rules = tuple(rules)
        self._plans.clear()

    def write(
        self,
        transaction: Begin,
        context: Context,
        changes: Iterable[Change],
        *,
        first_id: int,
        first_seq: int,
        lines: list[bytes],
        leaves: list[bytes],
    ) -> None:
        """Append a line (with row_hash and line end) and a leaf hash for each change; ids and seqs count up from the first."""
        created_at = transaction.committed_at.encode()
        who = context_fields(context)
        where = b"%b\t%b" % (
            str(transaction.xid).encode() if transaction.xid else NULL,
            format_lsn(transaction.end_lsn).encode(),
        )
        plans = self._plans
        row_id, seq = first_id, first_seq
        untrusted = context.trust.value == "none"
        for change in changes:
            if type(change) is tuple:
                shape, new, old = cast("Row", change)
                found = plans.get(id(shape))
                plan = found[1] if found is not None else self._plan(shape)
                fields = self._row_fields(plan, new, old)
                tail = plan.tail
                if untrusted:
                    self.untrusted_by_table[plan.table] += 1
            else:
                fields, tail = self._other_fields(change)  # type: ignore[arg-type]
            line = b"\0%d\t%b\t%b\t%b\t%b\t%b\t%d" % (row_id, created_at, fields, who, tail, where, seq)
            leaf = sha256(line).digest()
            leaves.append(leaf)
            lines.append(b"%b\t\\\\x%b\n" % (line[1:], hexlify(leaf)))
            row_id += 1
            seq += 1

    def _plan(self, shape: Shape) -> Plan:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        plan = make_plan(shape, self._rules)
        self._plans[id(shape)] = (shape, plan)  # the shape is kept alive, so its id stays its own
        return plan

    def _row_fields(self, plan: Plan, new: RowValues, old: RowValues) -> bytes:
        """The fields from schema_name to changed_fields of a row change."""
        self.rows_by_action[plan.action] += 1
        record = plan.record(old if plan.record_in_old else new)
        changed = NULL
        if plan.changed:
            changed = b"{%b}" % b",".join(compress(plan.changed, map(ne, new, old)))
        return b"%b\t%b\t%b\t%b\t%b\t%b" % (
            plan.names,
            record,
            plan.action.encode(),
            NULL if plan.old is None else self._image(plan.old, old),
            NULL if plan.new is None else self._image(plan.new, new),
            changed,
        )

    def _image(self, image: Image, values: RowValues) -> bytes:
        for position in image.masked:
            if values[position] != b"null":
                values[position] = REDACTED
                self.redacted_values += 1
        text = image.template % image.pick(values)
        return text.replace(b"\\", b"\\\\")

    def _other_fields(self, change: Truncate | Suppressed | ApplicationEvent) -> tuple[bytes, bytes]:
        """The fields from schema_name to changed_fields, and from capture to partition_name."""
        if isinstance(change, ApplicationEvent):
            self.rows_by_action[change.action] += 1
            schema, dot, table = change.table.partition(".")
            names = (schema, table) if dot else ("", change.table)
            data = json_field(change.data) if change.data else NULL
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
        fields = [field(names[0]), field(names[1]), record, escape(action.encode()), NULL, data, NULL]
        return b"\t".join(fields), b"%b\t%b\t%b" % (capture, NULL, optional(partition))


def context_fields(context: Context) -> bytes:
    """The fields from user_id to application_name."""
    return b"\t".join(
        [
            optional(context.user_id),
            optional(context.user_email),
            optional(context.ip_address),
            optional(context.user_agent),
            json_field(context.rest.encode()) if context.rest else NULL,
            context.trust.value.encode(),
            optional(context.db_user),
            optional(context.application_name),
        ]
    )
