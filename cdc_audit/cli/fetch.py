"""``cdc-audit archive fetch``: archives into a folder, for who verifies them elsewhere."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from cdc_audit.cli.months import chosen, month_options, none_meant
from cdc_audit.cli.settings import with_config
from cdc_audit.config import Config
from cdc_audit.errors import CheckFailedError, SettingError
from cdc_audit.trail.archive_fetch import Fetched, Fetching
from cdc_audit.trail.archive_store import Folder, open_store
from cdc_audit.trail.archive_verify import Harm


@click.command(
    "fetch", epilog="Example: cdc-audit archive fetch /mnt/evidence --since 2024-01 --until 2024-03"
)
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@month_options
@click.option(
    "--archive", "place", metavar="URL", help="Where the archives are, if not in [retention] archive."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object for the manifests, and for each month.")
@with_config
def command(
    config: Config, *, folder: Path, since: str | None, until: str | None, place: str | None, as_json: bool
) -> None:
    """Copy archives into a folder, where cdc-audit archive verify needs neither a network nor a database.

    All manifests come, and of the months that are meant their files. Each file is compared with the SHA-256 in its manifest before
    it has its name. What is here and is right does not come again: whatever was cut short is to be repeated. Whose word manifests
    are, archive verify tells; one that is here is never replaced: if it differs from the archive's, that is said.

    Exit codes: 0 done, 1 a file is not what its manifest says, and did not come (all others did), 2 usage, 69 the archive or the
    folder is away, 78 configuration.
    """
    is_meant = chosen(since, until)
    store = open_store(place or config.retention.archive)
    into = _made(folder)
    fetching = Fetching(store, config.audit.audit_schema, into)
    known, all_of_it = fetching.manifests()
    _say(None, all_of_it, as_json)
    meant = [said for said in known if is_meant(said.month)]
    harms: list[Harm] = [*all_of_it.harms]
    for said in meant:
        fetched = fetching.archive(said)
        _say(said.month, fetched, as_json)
        harms += fetched.harms
    if harms:
        raise CheckFailedError(
            f"archive {store.name}: {len(harms):,} files did not come: {harms[0]}",
            remedy="see all that is wrong: cdc-audit archive verify",
        )
    if not meant:
        raise none_meant()
    if not as_json:
        months = "".join(
            f" --{name} {month}" for name, month in (("since", since), ("until", until)) if month
        )
        click.echo(
            f"to verify them: cdc-audit archive verify --archive {into.name} --public-key FILE{months}"
        )


def _made(folder: Path) -> Folder:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"{folder}: {error.strerror}", remedy="say a folder that you may make, in one that is there"
        ) from error
    return Folder(folder.absolute())


def _say(month: str | None, fetched: Fetched, as_json: bool) -> None:
    for one in fetched.harms:
        click.echo(str(one), err=True)
    if as_json:
        shown = {"month": month, "files": fetched.files, "bytes": fetched.bytes, "here": fetched.here}
        click.echo(orjson.dumps(shown).decode())
    else:
        here = f", {fetched.here:,} were here already" if fetched.here else ""
        click.echo(f"{month or 'manifests'}: {fetched.files:,} files, {fetched.bytes:,} bytes{here}")
