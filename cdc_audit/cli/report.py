"""``cdc-audit report``: a signed report for an auditor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from psycopg import Connection

from cdc_audit.cli.key import read_public
from cdc_audit.cli.progress import Progress
from cdc_audit.cli.reading import dsn_option, moment, open_trail, record_reading, tier_option
from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.cli.verify import describe, read_anchors
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError, SettingError, UsageError
from cdc_audit.seal.signature import key_id
from cdc_audit.sink.signing import load_signer
from cdc_audit.trail import render_report
from cdc_audit.trail.archive_store import Store, open_store
from cdc_audit.trail.archive_verify import check_retirements, verify_archives
from cdc_audit.trail.report import Section, sections
from cdc_audit.trail.tiers import all_tiers
from cdc_audit.trail.verify import Report, Request, verify
from cdc_audit.trail.verify_findings import Finding, Kind

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog="Example: cdc-audit report --since 2026-10-01 --until 2026-11-01 --output october --public-key signing.pem.pub "
    "--signing-key report.pem"
)
@click.option("--since", metavar="TIME", required=True, help="As in the log; inclusive.")
@click.option("--until", metavar="TIME", default="now", show_default=True, help="Before this moment.")
@click.option(
    "--output",
    type=_FILE,
    required=True,
    help="Writes OUTPUT.html, OUTPUT.csv, and their signatures OUTPUT.*.sig.",
)
@click.option("--public-key", "key_files", type=_FILE, multiple=True, help="As for cdc-audit verify.")
@click.option("--anchor", "sources", metavar="FILE|URL", multiple=True, help="As for cdc-audit verify.")
@click.option("--anchor-token-file", type=_FILE, help="As for cdc-audit verify.")
@click.option(
    "--signing-key",
    type=_FILE,
    help="Ed25519 key of who makes the report: cdc-audit key generate FILE. Without it nothing is signed.",
)
@tier_option
@dsn_option
@with_config
def command(
    config: Config,
    *,
    since: str,
    until: str,
    output: Path,
    key_files: Sequence[Path],
    sources: Sequence[str],
    anchor_token_file: Path | None,
    signing_key: Path | None,
    tier: str,
    dsn: str | None,
) -> None:
    """A report on a time, as one HTML file that needs nothing else, and as CSV.

    Scope, rows by action, actors, deletions, changes without a believable user or without whole images, all gaps, and the result of
    verifying the whole trail with the keys and anchors given. Signatures are Ed25519 over the file:
    openssl pkeyutl -verify -rawin -pubin -inkey report.pem.pub -in OUTPUT.html -sigfile OUTPUT.html.sig

    With --tier all rows in archives are counted, too, and the archives that have rows of this time are verified: their files, every
    row, every block, signatures. Of archives of other times only manifests are. Without it the report names each archived month of
    this time, with how many rows are so not counted.

    The report is written also if the verification fails, and says so; not if an archive can't be read.

    Exit codes: 0 done, 1 the trail or an archive is not what was written, 2 usage, 69 the audit database or the archive is away,
    77 the role may not read, 78 configuration.
    """
    start, end = moment(since), moment(until)
    assert start is not None
    assert end is not None
    if start >= end:
        raise UsageError("--since is not before --until", remedy="exchange them, or say an earlier --since")
    signer = load_signer(str(signing_key or ""))
    keys = {key_id(one): one for one in map(read_public, key_files)}
    schema = config.audit.audit_schema
    anchors = read_anchors(sources, anchor_token_file, schema, keys)
    store = open_store(config.retention.archive) if tier == "all" else None
    with open_trail(config, dsn, tier, since=start, until=end) as connection:
        found = _counted(connection, schema, store, start, end)
        record_reading(config, connection, sum(len(one.rows) for one in found))
    checked = verify(
        require_dsn(dsn or config.audit.one_time_dsn, "audit"),
        schema,
        Request(keys, anchors),
        Progress(False).show,
    )
    told = "" if store is None else _verified(store, schema, keys, checked, start, end)
    told += describe(checked, keys, anchors, has_archive=store is not None)
    title = f"Audit trail of {config.source.name}, {start.isoformat()} to {end.isoformat()}"
    made = f"made at {datetime.now(UTC).isoformat(timespec='seconds')}; keys given: {', '.join(keys) or 'none'}\n"
    files = {
        ".html": render_report.html(title, found, made + told).encode(),
        ".csv": "".join(f"{line}\n" for line in render_report.csv(found, made + told)).encode(),
    }
    if signer is not None:
        files |= {f"{name}.sig": signer.sign_document(data) for name, data in files.items()}
    for path in _write(output, files):
        click.echo(path)
    if checked.findings:
        raise CheckFailedError(
            "the trail is not what the daemon wrote",
            remedy="see which rows: cdc-audit verify" + (", cdc-audit archive verify" if store else ""),
        )


def _counted(
    connection: Connection, schema: str, store: Store | None, since: datetime, until: datetime
) -> list[Section]:
    if store is None:
        return sections(connection, schema, since, until)
    with all_tiers(connection, schema, store) as tiers:
        return sections(connection, schema, since, until, tiers.counted(since, until))


def _verified(
    store: Store, schema: str, keys: Mapping[str, bytes], checked: Report, since: datetime, until: datetime
) -> str:
    """Verify archives; what is wrong with them, or missing, is added to what was found of the trail. Says which, in lines."""
    if not any(one.manifest for one in checked.retirements):
        return "archives: there is none\n"
    found = verify_archives(store, schema, keys, lambda one: one.overlaps(since, until))
    harms = [*check_retirements(store, checked.retirements), *found.harms]
    checked.findings.extend(Finding(Kind.ALTERED, "trail", 0, 0, f"archive: {one}") for one in harms)
    checked.missing.extend(f"archives: {one}" for one in found.missing)
    lines = []
    for what, some in (
        ("verified with files, rows, blocks and signatures", found.archives),
        ("purged, so verified without rows", found.purged),
        ("of other times, of which only manifests were verified", found.others),
    ):
        if some:
            names = ", ".join(one.month for one in some)
            lines.append(f"archives {what}: {names} ({sum(one.rows for one in some):,} rows)\n")
    return "".join(lines)


def _write(output: Path, files: Mapping[str, bytes]) -> list[Path]:
    written = []
    for suffix, data in files.items():
        path = output.with_name(output.name + suffix)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise SettingError(
                f"{path}: {error.strerror}", remedy="say --output FILE in a folder that you may write to"
            ) from error
        written.append(path)
    return written
