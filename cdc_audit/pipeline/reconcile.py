"""At each start: does the slot fit the ledger, and where is the stream resumed? Pure.

The ledger's last block says through where everything is durable. The slot must not be ahead of that (somebody else consumed it,
or it was made anew: then changes are missing), the cluster must be the ledger's, and after a promotion the blocks that the new
timeline never had are named.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cdc_audit.errors import SettingError, StreamError
from cdc_audit.model.ledger import Block
from cdc_audit.model.lsn import format_lsn, parse_lsn

_HISTORY = re.compile(r"^\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)")


class SourceState(NamedTuple):
    """What the source says of itself and of the slot. ``history`` is the timeline's history file, "" on timeline 1."""

    system_identifier: str
    timeline: int
    history: str
    slot: str
    plugin: str
    confirmed_flush_lsn: int


class NewBlock(NamedTuple):
    """A block without rows that has to be written before anything else."""

    kind: str
    start_lsn: int
    end_lsn: int
    detail: dict[str, object]


class Poison(NamedTuple):
    """A transaction that an operator gives up since it can't be decoded: ``lsn`` names it, ``error`` says how it fails, without
    its values.
    """

    lsn: int
    xid: int
    end_lsn: int
    error: str
    reason: str


class Resumption(NamedTuple):
    """Resume after ``lsn``, when these blocks are written."""

    lsn: int
    blocks: tuple[NewBlock, ...]


def resume(
    last: Block, source: SourceState, *, plugin: str, accept_gap: str = "", poison: Poison | None = None
) -> Resumption:
    """Where to resume. Raises SettingError, with what to do, where going on would lose or mix up changes.

    ``accept_gap`` is an operator's reason for going on although changes are missing; it goes into the ledger. ``poison`` is the
    next transaction with anything to store after the ledger's end: what came before it must be stored.
    """
    if source.plugin != plugin:
        raise SettingError(
            f"slot {source.slot} uses the plugin {source.plugin}, but [source] plugin is {plugin}",
            remedy=f'set [source] plugin = "{source.plugin}"',
        )
    if source.system_identifier != last.system_identifier:
        raise SettingError(
            f"the source is another cluster ({source.system_identifier}) than the ledger's ({last.system_identifier})",
            remedy="correct [source] dsn, or audit the new cluster into a schema of its own ([audit] schema)",
        )
    if source.slot != last.slot and not accept_gap:
        raise SettingError(
            f"slot {source.slot} is not the ledger's, which was written from slot {last.slot}: another database of the cluster?",
            remedy="correct [source] slot or [audit] schema: one source, one slot, one schema. If the slot was made anew under "
            'another name: cdc-audit run --accept-gap "why"',
        )
    blocks: list[NewBlock] = []
    lsn = last.end_lsn
    if source.timeline != last.timeline:
        turned = _turn_of_timeline(last, source)
        blocks.append(turned)
        lsn = turned.end_lsn
    if source.confirmed_flush_lsn > lsn:
        missing = f"{format_lsn(lsn)} to {format_lsn(source.confirmed_flush_lsn)}"
        if not accept_gap:
            raise SettingError(
                f"the slot is ahead of the ledger: changes from {missing} were taken by somebody else, "
                f"or slot {source.slot} was made anew",
                remedy='cdc-audit run --accept-gap "why changes are missing" (writes a gap block, then goes on)',
            )
        blocks.append(
            NewBlock("gap", lsn, source.confirmed_flush_lsn, {"reason": accept_gap, "cause": "slot is ahead"})
        )
        lsn = source.confirmed_flush_lsn
    if poison is not None and poison.end_lsn > lsn:
        detail: dict[str, object] = {
            "reason": poison.reason,
            "cause": poison.error,
            "lsn": format_lsn(poison.lsn),
            "xid": poison.xid,
            "lost": f"all changes of transaction {poison.xid}",
        }
        blocks.append(NewBlock("poison", lsn, poison.end_lsn, detail))
        lsn = poison.end_lsn
    return Resumption(lsn, tuple(blocks))


def _turn_of_timeline(last: Block, source: SourceState) -> NewBlock:
    """The block that records a promotion: what the ledger holds past the switch point never was on the new timeline."""
    if source.timeline < last.timeline:
        raise SettingError(
            f"the source is on timeline {source.timeline}, older than the ledger's {last.timeline}: a former primary?",
            remedy="point [source] dsn to the present primary",
        )
    switch_lsn = _switch_point(source, last.timeline)
    detail: dict[str, object] = {"from_timeline": last.timeline, "to_timeline": source.timeline}
    if last.end_lsn <= switch_lsn:
        return NewBlock("timeline", last.end_lsn, last.end_lsn, detail)
    detail["phantoms_from"] = format_lsn(switch_lsn)
    detail["phantoms_to"] = format_lsn(last.end_lsn)
    return NewBlock("divergence", last.end_lsn, switch_lsn, detail)


def _switch_point(source: SourceState, timeline: int) -> int:
    for line in source.history.splitlines():
        match = _HISTORY.match(line)
        if match and int(match[1]) == timeline:
            return parse_lsn(match[2])
    raise StreamError(
        f"timeline {source.timeline}'s history does not name timeline {timeline}, which the ledger ends on"
    )
