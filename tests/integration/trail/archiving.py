"""A small signed trail with old months, two of which interleave, and the commands that archive it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cdc_audit import postgres
from cdc_audit.cli import cdc_audit as program
from cdc_audit.schema.migrate import migrate
from cdc_audit.seal.redact import NO_RULES, Redaction
from cdc_audit.sink import ledger
from tests.integration.trail.tampering import ANN, BEN, KEY_A, LedgerWriter, superuser
from tests.support import second_verifier as second
from tests.support.servers import Server

# Where archive run may be killed, in this order.
POINTS = (
    "archive-rows-kept",
    "archive-checked",
    "archive-manifest-kept",
    "month-closed",
    "month-dropped",
    "month-recorded",
    "month-retired",
)
JANUARY, FEBRUARY, MARCH = (f"2025-{month}-07 11:22:33.5+00" for month in ("01", "02", "03"))


def write_old_trail(dsn: str, rows: int = 3) -> None:
    """Months of 2025, with so many rows a block, and the present one."""
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        with connection.transaction():
            writer = LedgerWriter(connection, KEY_A)
            writer.genesis()
            writer.data(rows, JANUARY, context=ANN)
            writer.data(rows, JANUARY)
            writer.bare("heartbeat")
            writer.data(rows, FEBRUARY, context=BEN)
            writer.data(rows, "2025-01-31 23:59:59.999999+00", context=BEN)  # the source's clock was put back
            writer.data(rows, FEBRUARY)
            writer.bare("gap", reason="slot lost, \\ ticket 4711")
            writer.data(rows, MARCH, context=ANN)
            writer.data(rows, f"{datetime.now(UTC):%Y-%m}-01 00:00:00+00", context=BEN)


@dataclass
class Scene:
    """One trail, one folder of archives, and the commands with their environment."""

    server: Server
    name: str
    folder: Path
    place: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    @property
    def public(self) -> str:
        return str(self.folder / "key.pem.pub")

    def environment(self, **more: str) -> dict[str, str]:
        given = {
            "AUDIT_DSN": self.dsn, "LEDGER_SIGNING_KEY_FILE": str(self.folder / "key.pem"), "RETENTION_ARCHIVE": self.place, **more,
        }  # fmt: skip
        return {**os.environ, **{f"CDC_AUDIT_{key}": value for key, value in given.items()}}

    def call(self, *arguments: str, **more: str) -> Result:
        """A command in this process; its error is in ``exception``."""
        env: dict[str, str | None] = {**self.environment(**more)}
        return CliRunner().invoke(program, arguments, env=env)

    def told(self, *arguments: str, **more: str) -> str:
        """What a command that must succeed prints."""
        done = self.call(*arguments, **more)
        assert done.exception is None, (arguments, done.output, done.exception)
        return done.output

    def refusal(self, *arguments: str, **more: str) -> str:
        """How a command that must fail fails: exit code and message."""
        done = self.call(*arguments, **more)
        assert done.exception is not None, done.output
        return f"{getattr(done.exception, 'exit_code', '?')} {done.exception}"

    def rows(self, table: str = "audit.audit_logs") -> list[bytes]:
        """All rows as PostgreSQL prints them, by id."""
        statement = second.ROWS.replace("{}.audit_logs", table)
        with superuser(self.dsn) as connection:
            return list(second.copied(connection, statement, "audit"))

    def verified(self) -> None:
        """``verify`` and ``archive verify`` are content."""
        assert "verified" in self.told("verify", "--public-key", self.public, "--archive", self.place)
        assert "verified" in self.told("archive", "verify", "--public-key", self.public)

    def months(self) -> list[str]:
        """The months of 2025 that still have a partition."""
        query = (
            "select relname from pg_class where relname ~ '^audit_logs_2025_..$' and relkind = 'r' order by 1"
        )
        return [name[-7:] for (name,) in self.server.execute(query, dbname=self.name)]

    def write(self, work: Callable[[LedgerWriter], object], redaction: Redaction = NO_RULES) -> None:
        """More blocks, behind the last one."""
        with postgres.connect(self.dsn, side="audit") as connection, connection.transaction():
            writer = LedgerWriter(connection, KEY_A, redaction)
            head = ledger.last_block(connection, "audit")
            assert head
            writer.go_on(head[0].end_lsn)
            work(writer)


def key_files(folder: Path) -> None:
    """KEY_A as files."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    file = folder / "key.pem"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pem.pub").write_bytes(public)


def flipped(path: Path, at: int) -> Callable[[], object]:
    """Change a byte; call the result to change it back."""
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    return lambda: path.write_bytes(content)
