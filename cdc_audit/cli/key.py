"""``cdc-audit key``: the Ed25519 keys that blocks are signed with."""

from __future__ import annotations

import os
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cdc_audit.cli.settings import require_dsn, with_config
from cdc_audit.config import Config
from cdc_audit.errors import SettingError, UsageError
from cdc_audit.postgres import connect
from cdc_audit.seal.signature import Signer, key_id, public_from_pem
from cdc_audit.sink import ledger
from cdc_audit.sink.signing import load_signer

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("key")
def command() -> None:
    """Make, show and replace the key that the ledger's blocks are signed with.

    Example: cdc-audit key generate /etc/cdc-audit/signing.pem
    """


@command.command("generate")
@click.argument("file", type=_FILE)
def generate(file: Path) -> None:
    """Make a key: FILE (private, mode 0600) for the daemon, FILE.pub for whoever verifies. Overwrites nothing.

    Name FILE in [ledger] signing_key_file; give FILE.pub to the auditors, out of the administrators' reach.

    Exit codes: 0 done, 78 a file is there already or can't be written.

    Example: cdc-audit key generate /etc/cdc-audit/signing.pem
    """
    private = Ed25519PrivateKey.generate()
    signer = Signer(private)
    public_file = file.with_name(file.name + ".pub")
    if public_file.exists():
        raise SettingError(f"{public_file} is there already", remedy="choose another name")
    _create(file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _create(
        public_file,
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        0o644,
    )
    click.echo(f"key {signer.key_id}")
    click.echo(f"private key: {file}")
    click.echo(f"public key:  {public_file}")


@command.command("show")
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print the id of a key, private or public.

    Exit codes: 0 done, 78 not a key, or a private key that others may read.

    Example: cdc-audit key show /etc/cdc-audit/signing.pem
    """
    try:
        is_public = b"-----BEGIN PUBLIC KEY-----" in file.read_bytes()
    except OSError as error:
        raise SettingError(f"{file}: {error.strerror}") from error
    if is_public:
        click.echo(f"public key {key_id(read_public(file))}")
    else:
        signer = load_signer(str(file))
        assert signer
        click.echo(f"private key {signer.key_id}")


@command.command("rotate")
@click.option("--old", type=_FILE, required=True, help="The private key that the ledger is signed with.")
@click.option("--new", type=_FILE, required=True, help="The private key that takes over.")
@with_config
def rotate(config: Config, old: Path, new: Path) -> None:
    """Replace the ledger's key: append a block in which the old key names the new one. Stop the daemon first.

    Then name the new file in [ledger] signing_key_file, start the daemon, give the new public key to whoever verifies (who
    keeps the old one too), and destroy the old private key.

    Exit codes: 0 done, 69 the audit database is away, 75 a daemon is active, 77 not permitted, 78 a key or the ledger is not fit.

    Example: cdc-audit key rotate --old /etc/cdc-audit/signing.pem --new /etc/cdc-audit/signing-2027.pem
    """
    before, after = load_signer(str(old)), load_signer(str(new))
    assert before and after
    if before.key_id == after.key_id:
        raise UsageError("--old and --new are the same key", remedy="cdc-audit key generate FILE")
    dsn = require_dsn(config.audit.dsn or config.audit.admin_dsn, "audit")
    with connect(dsn, side="audit") as audit:
        block = ledger.rotate(audit, config.audit.audit_schema, old=before, new=after)
    click.echo(f"ledger block {block.block}: key {after.key_id} takes over from key {before.key_id}")
    click.echo(f"now set [ledger] signing_key_file to {new} and start the daemon")


def read_public(file: Path) -> bytes:
    """The raw public key of a PEM file. Raises SettingError."""
    try:
        return public_from_pem(file.read_bytes())
    except OSError as error:
        raise SettingError(f"public key {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingError(
            f"public key {file}: not an Ed25519 public key in PEM",
            remedy="give the FILE.pub that cdc-audit key generate made",
        ) from error


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a new file, durably, with exactly this mode whatever the umask."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SettingError(f"{path} is there already", remedy="choose another name") from None
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror}") from error
