"""``cdc-audit verify``: whether the trail is still what the daemon wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from cdc_audit.cli.key import read_public
from cdc_audit.cli.progress import Progress
from cdc_audit.cli.reading import record_reading
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError, IncompleteEvidenceError, SettingError, UsageError
from cdc_audit.postgres import connect
from cdc_audit.seal import proof
from cdc_audit.seal.signature import key_id
from cdc_audit.trail.anchor_sources import parse_source, read_source
from cdc_audit.trail.archive_store import open_store
from cdc_audit.trail.archive_verify import check_retirements
from cdc_audit.trail.image import printable
from cdc_audit.trail.verify import Report, Request, reading, verify
from cdc_audit.trail.verify_anchors import Anchors
from cdc_audit.trail.verify_findings import Finding, Kind
from cdc_audit.trail.verify_lake import verify_lake
from cdc_audit.trail.verify_proof import prove

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog="Example: cdc-audit verify --dsn 'host=audit user=alice' --public-key signing.pem.pub --anchor anchors.jsonl"
)
@click.option(
    "--public-key",
    "key_files",
    type=_FILE,
    multiple=True,
    help="A public key that you trust; all that the ledger was signed with, oldest first or not.",
)
@click.option(
    "--anchor",
    "sources",
    metavar="FILE|URL",
    multiple=True,
    help="Anchors, out of their reach: a file, s3://bucket/prefix, or https://... that gives back its lines.",
)
@click.option("--anchor-token-file", type=_FILE, help="The reader's own bearer token for https anchors.")
@click.option(
    "--since", metavar="BLOCK|TIME", default="", help="From this block on, or from the first since a time."
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that read rows."
)
@click.option(
    "--archive",
    metavar="URL",
    help="Where archives are: also check that the manifests are those of the ledger.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--proof", "row_id", type=click.IntRange(min=1), help="Write an inclusion proof for a row.")
@click.option("--check-proof", "proof_file", type=_FILE, help="Check such a proof; needs no database.")
@click.option("--dsn", metavar="DSN", help="The reader's own connection to the audit database.")
@with_config
def command(
    config: Config,
    *,
    key_files: Sequence[Path],
    sources: Sequence[str],
    anchor_token_file: Path | None,
    since: str,
    jobs: int,
    archive: str | None,
    as_json: bool,
    row_id: int | None,
    proof_file: Path | None,
    dsn: str | None,
) -> None:
    """Verify the trail: every row, every block, signatures and anchors. Names what was altered, removed or inserted.

    Bring keys and anchors of your own: what the audit database says about itself is what is in doubt. Without a public key a
    rewritten ledger can't be told from the true one; without an anchor a tail that was cut off, or an older state, can't.
    An anchor's bucket is read with all versions of its objects; what was overwritten or deleted there is told.

    Personal values that cdc-audit erase has erased are counted; one that is gone without its erasure block is named.

    Rows that cdc-audit archive run has taken out are explained by signed retention blocks, and counted; --archive also compares the
    manifests of their archives with the ledger. Whether the archives are whole is what cdc-audit archive verify tells.

    Give a role that has audit_admin by --dsn (or CDC_AUDIT_AUDIT_ADMIN_DSN); leave the password to ~/.pgpass.

    Exit codes: 0 all that was asked holds, 1 something is not what the daemon wrote, 2 usage, 3 nothing wrong was seen but
    evidence is missing (a key, a signature, an anchor), 69 the audit database is away, 77 the role may not read, 78 configuration.
    """
    public = [read_public(file) for file in key_files]
    keys = {key_id(one): one for one in public}
    if proof_file is not None:
        _check_proof(proof_file, keys, as_json)
        return
    schema = config.audit.audit_schema
    if config.audit.kind == "iceberg" and row_id is None and not dsn:
        if archive is not None:
            raise UsageError("a trail in a lake has no archives", remedy="leave out --archive")
        anchors = read_anchors(sources, anchor_token_file, schema, keys)
        request, progress = Request(keys, anchors, since, jobs), Progress(as_json).show
        report = verify_lake(config.audit.catalog, schema, request, progress)
        click.echo(_json(report, anchors) if as_json else describe(report, keys, anchors))
        _raise(report)
        return
    chosen = dsn or require_dsn(config.audit.one_time_dsn, "audit")
    if row_id is not None:
        with reading(chosen, schema) as connection:
            proven = proof.write(prove(connection, schema, row_id))
        _record(config, dsn, 1)
        click.echo(proven, nl=False)
        return
    anchors = read_anchors(sources, anchor_token_file, schema, keys)
    report = verify(chosen, schema, Request(keys, anchors, since, jobs), Progress(as_json).show)
    if archive is not None:
        harms = check_retirements(open_store(archive), report.retirements)
        report.findings.extend(Finding(Kind.ALTERED, "trail", 0, 0, f"archive: {one}") for one in harms)
    _record(config, dsn, report.rows)
    told = describe(report, keys, anchors, has_archive=archive is not None)
    click.echo(_json(report, anchors) if as_json else told)
    _raise(report)


def _record(config: Config, dsn: str | None, rows: int) -> None:
    if config.audit.record_reads:
        with connect(dsn or require_dsn(config.audit.one_time_dsn, "audit"), side="audit") as connection:
            record_reading(config, connection, rows)


def read_anchors(
    sources: Sequence[str], token_file: Path | None, schema: str, keys: dict[str, bytes]
) -> Anchors | None:
    """The anchors that the sources have; None: none are given."""
    if not sources:
        return None
    anchors = Anchors(schema, keys)
    for source in list(map(parse_source, sources)):
        read_source(anchors, source, str(token_file or ""))
    return anchors


def describe(
    report: Report, keys: dict[str, bytes], anchors: Anchors | None, *, has_archive: bool = False
) -> str:
    """What was verified, with what, and what was found, as lines for people."""
    lines = [
        f"read {report.blocks:,} blocks (from {report.first_block}) and {report.rows:,} rows in {report.seconds:.1f} s"
    ]
    lines.append(f"last block {report.last_block}, hash {report.last_hash.hex()}")
    if report.signed or keys:
        lines.append(f"signed blocks: {report.signed:,}, checked with {len(keys)} public keys")
    else:
        lines.append("nothing is signed: whoever can write all of the ledger can write another one")
    if anchors is None:
        lines.append("no anchors given: a tail that was cut off can't be seen")
    else:
        lines.append(f"anchored blocks: {report.anchored:,} of {len(anchors.hashes):,} anchors")
        lines += anchors.notes
    if report.erasures:
        lines.append(
            f"erased: {report.erased_values:,} values in {report.erased_rows:,} rows by {report.erasures:,} erasure blocks"
        )
    if report.retirements:
        gone = sum(one.rows for one in report.retirements)
        lines.append(
            f"archived: {gone:,} rows are not here any more, as {len(report.retirements):,} retention blocks say; "
            + ("their manifests were compared" if has_archive else "archives were not looked at (--archive)")
        )
    if report.purged_rows:
        lines.append(f"purged: {report.purged_rows:,} of them are nowhere any more, as signed blocks say")
    lines += map(str, report.findings)
    if report.uncounted:
        lines.append(f"and {report.uncounted:,} more")
    if not report.findings:
        lines += [f"missing evidence: {reason}" for reason in report.missing] or ["verified"]
    return "\n".join(lines)


def _json(report: Report, anchors: Anchors | None) -> str:
    code = 1 if report.findings else 3 if report.missing else 0
    shown = {
        "exit_code": code,
        "verdict": {0: "verified", 1: "tampered", 3: "incomplete evidence"}[code],
        **report._asdict(),
        "last_hash": report.last_hash.hex(),
        "findings": [one._asdict() for one in report.findings],
        "retirements": [one._asdict() for one in report.retirements],
        "anchor_notes": anchors.notes if anchors else [],
    }
    return printable(orjson.dumps(shown).decode())


def _raise(report: Report) -> None:
    """The verdict as an exit code."""
    if report.findings:
        count = len(report.findings) + report.uncounted
        raise CheckFailedError(f"the trail is not what the daemon wrote: {count:,} findings")
    if report.missing:
        raise IncompleteEvidenceError(f"incomplete evidence: {report.missing[0]}")


def _check_proof(file: Path, keys: dict[str, bytes], as_json: bool) -> None:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise SettingError(f"proof {file}: {error.strerror}") from error
    if not text:
        raise UsageError(f"proof {file} is empty")
    found, block = proof.check(text, keys)
    if as_json:
        click.echo(orjson.dumps({"verdict": "verified", "block": block.block, "line": found.line}).decode())
    else:
        row = found.line.partition("\t")[0]
        click.echo(
            f"row {row} is in block {block.block}, written {block.written_at}, signed by key {block.key_id}"
        )
        click.echo(found.line)
