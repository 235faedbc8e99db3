"""``cdc-audit verify`` and ``cdc-audit key`` on a real trail: verdicts, exit codes, rights, proofs; no false alarms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cdc_audit import postgres
from cdc_audit.cli.key import command as key_command
from cdc_audit.cli.show import command as show_command
from cdc_audit.cli.verify import command
from cdc_audit.errors import (
    AnotherDaemonError,
    CheckFailedError,
    IncompleteEvidenceError,
    NotPermittedError,
    SettingError,
    UsageError,
)
from cdc_audit.model.context import NO_CONTEXT
from cdc_audit.schema.migrate import migrate
from cdc_audit.sink import ledger
from cdc_audit.trail import verify as verifier
from cdc_audit.trail.verify import Request, reading, verify
from cdc_audit.trail.verify_proof import prove
from tests.integration.trail.tampering import (
    DECEMBER,
    KEY_A,
    KEYS,
    NOVEMBER,
    LedgerWriter,
    Superuser,
    superuser,
    write_trail,
)
from tests.support import second_verifier as second
from tests.support.servers import Server

Verify = Callable[..., Result]


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def trail(audit_cluster: Server) -> Iterator[str]:
    """A database with the small signed trail, and a login that may only read it."""
    name = audit_cluster.create_database()
    write_trail(audit_cluster.dsn(name))
    audit_cluster.execute("drop role if exists test_verifier")
    audit_cluster.execute("create role test_verifier login in role audit_admin")
    yield name
    audit_cluster.execute(f'drop database "{name}" with (force)')
    audit_cluster.execute("drop role test_verifier")


@pytest.fixture
def run(audit_cluster: Server, trail: str) -> Verify:
    """Call the command as the verifier, who is no superuser."""

    def call(*arguments: object, user: str = "test_verifier") -> Result:
        given = ["--dsn", audit_cluster.dsn(trail, user), *map(str, arguments)]
        return CliRunner().invoke(command, given)

    return call


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    """``--public-key`` for both keys of the trail."""
    options = []
    for number in (1, 2):
        public = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key()
        file = tmp_path / f"{number}.pub"
        file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        options += ["--public-key", str(file)]
    return options


def anchor_file(path: Path, audit_cluster: Server, trail: str, *, block: int, schema: str = "audit") -> Path:
    ((hash_,),) = audit_cluster.execute(
        "select encode(block_hash, 'hex') from audit.ledger where block = %s", (min(block, 11),), dbname=trail
    )
    said = {
        "schema": schema,
        "block": block,
        "hash": hash_,
        "signature": None,
        "key_id": None,
        "written_at": "",
    }
    path.write_text(json.dumps(said) + "\n")
    return path


def test_a_thousand_clean_blocks_raise_no_alarm(audit_cluster: Server) -> None:
    name = audit_cluster.create_database()
    dsn = audit_cluster.dsn(name)
    try:
        with postgres.connect(dsn, side="audit") as connection:
            migrate(connection, "audit", None)
            with connection.transaction():
                writer = LedgerWriter(connection, KEY_A)
                writer.genesis()
                months = [NOVEMBER] * 500 + [DECEMBER] * 500
                writer.blocks([(number % 5, at, (), NO_CONTEXT) for number, at in enumerate(months)])
        request = Request({KEY_A.key_id: KEY_A.public})
        report = verify(dsn, "audit", request, quiet)
        assert (report.findings, report.missing) == ([], [])
        assert (report.blocks, report.rows, report.signed) == (1001, 2000, 1001)
        assert second.verify(dsn, "audit", [KEY_A.public], {}) == []
    finally:
        audit_cluster.execute(f'drop database "{name}" with (force)')


def test_all_that_was_asked_holds(
    run: Verify, keys: list[str], tmp_path: Path, audit_cluster: Server, trail: str
) -> None:
    anchors = anchor_file(tmp_path / "anchors", audit_cluster, trail, block=11)
    result = run(*keys, "--anchor", anchors, "--json")
    assert result.exception is None, result.exception
    said = json.loads(result.stdout)
    assert (said["verdict"], said["exit_code"], said["findings"], said["missing"]) == ("verified", 0, [], [])
    assert (said["blocks"], said["rows"], said["signed"], said["anchored"]) == (12, 24, 12, 1)
    assert "verified" in run(*keys).output


def test_parts_of_a_trail_and_several_processes_give_the_same_verdict(
    run: Verify, keys: list[str], monkeypatch: pytest.MonkeyPatch, audit_cluster: Server, trail: str
) -> None:
    monkeypatch.setattr(verifier, "_STRETCH_ROWS", 4)
    whole = verify(audit_cluster.dsn(trail), "audit", Request(KEYS), quiet)
    shared = verify(audit_cluster.dsn(trail), "audit", Request(KEYS, jobs=2), quiet)
    assert (whole.findings, shared.findings) == ([], [])
    assert (whole.rows, shared.rows) == (24, 24)
    for since, blocks, rows in (
        ("5", 7, 13),
        ("8", 4, 10),
        ("11", 1, 4),
        ("2026-12-01", 3, 7),
        ("0", 12, 24),
    ):
        result = run(*keys, "--since", since, "--json")
        assert result.exception is None, (since, result.output)
        said = json.loads(result.stdout)
        assert (said["blocks"], said["rows"]) == (blocks, rows), since


@pytest.mark.parametrize("since", ["12", "500", "2099-01-01"])
def test_nothing_since_then_is_no_evidence(run: Verify, keys: list[str], since: str) -> None:
    result = run(*keys, "--since", since)
    assert isinstance(result.exception, IncompleteEvidenceError)


def test_without_key_or_with_one_key_too_many_evidence_is_incomplete(
    run: Verify, keys: list[str], tmp_path: Path
) -> None:
    assert isinstance(run().exception, IncompleteEvidenceError)
    stranger = Ed25519PrivateKey.generate().public_key()
    file = tmp_path / "stranger.pub"
    file.write_bytes(stranger.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    result = run(*keys, "--public-key", file)
    assert isinstance(result.exception, IncompleteEvidenceError)
    assert "no block is signed with it" in str(result.exception)


def test_with_one_key_too_few_a_block_is_signed_with_the_wrong_key(run: Verify, keys: list[str]) -> None:
    result = run(*keys[2:], "--json")
    assert isinstance(result.exception, CheckFailedError)
    found = json.loads(result.stdout)["findings"]
    assert {(one["kind"], one["first"], one["last"]) for one in found} == {("wrong key", 0, 7)}


def test_anchors_that_are_demanded_and_not_there_leave_evidence_incomplete(
    run: Verify, keys: list[str], tmp_path: Path, audit_cluster: Server, trail: str
) -> None:
    empty, nonsense = tmp_path / "empty", tmp_path / "nonsense"
    empty.write_text("")
    nonsense.write_text("hello\n")
    other = anchor_file(tmp_path / "other", audit_cluster, trail, block=11, schema="elsewhere")
    for file in (empty, nonsense, other, tmp_path / "missing"):
        assert isinstance(run(*keys, "--anchor", file).exception, IncompleteEvidenceError), file
    ahead = anchor_file(tmp_path / "ahead", audit_cluster, trail, block=14)
    result = run(*keys, "--anchor", ahead)
    assert isinstance(result.exception, CheckFailedError)
    assert "tail cut off: blocks 12-14" in result.output


def test_a_key_for_an_unsigned_ledger_and_an_empty_ledger_are_incomplete(audit_cluster: Server) -> None:
    name = audit_cluster.create_database()
    dsn = audit_cluster.dsn(name)
    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        assert verify(dsn, "audit", Request(), quiet).missing == ["the ledger is empty"]
        writer = LedgerWriter(connection)
        writer.genesis()
        writer.data(2)
        assert verify(dsn, "audit", Request(), quiet).missing == []
        assert verify(dsn, "audit", Request(KEYS), quiet).missing == [
            "a public key was given, but no block is signed"
        ]
        writer.signer = KEY_A
        writer.bare("gap", reason="signing begins before it")
        writer.data(2)
    report = verify(dsn, "audit", Request({KEY_A.key_id: KEY_A.public}), quiet)
    assert (report.findings, report.missing, report.blocks, report.signed) == ([], [], 5, 3)
    assert second.verify(dsn, "audit", [KEY_A.public], {}) == []
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_a_role_that_may_not_read_is_told_what_it_needs(run: Verify) -> None:
    result = run(user="audit_writer")
    assert isinstance(result.exception, NotPermittedError)
    assert 'grant audit_admin to "audit_writer"' in (result.exception.remedy or "")


def test_rows_that_a_policy_hides_from_the_verifier_are_no_verdict(
    run: Verify, keys: list[str], audit_cluster: Server, trail: str
) -> None:
    policy = "create policy hidden on audit.audit_logs using (user_id is distinct from 'u1')"
    audit_cluster.execute(f"{policy}; alter table audit.audit_logs enable row level security", dbname=trail)
    try:
        assert isinstance(run(*keys).exception, NotPermittedError)
    finally:
        undo = (
            "drop policy hidden on audit.audit_logs; alter table audit.audit_logs disable row level security"
        )
        audit_cluster.execute(undo, dbname=trail)


def test_a_trail_that_is_not_there_is_said(audit_cluster: Server) -> None:
    result = CliRunner().invoke(command, ["--dsn", audit_cluster.dsn()])
    assert isinstance(result.exception, SettingError)


def test_settings_of_a_role_do_not_change_the_verdict(
    run: Verify, keys: list[str], audit_cluster: Server
) -> None:
    for setting in (
        "timezone = 'Asia/Tokyo'", "datestyle = 'German'", "bytea_output = escape", "intervalstyle = iso_8601",
        "client_encoding = latin1", "search_path = nowhere", "statement_timeout = 1",
    ):  # fmt: skip
        audit_cluster.execute(f"alter role test_verifier set {setting}")
    assert run(*keys).exception is None
    audit_cluster.execute("alter role test_verifier reset all")


def test_a_proof_is_checked_without_a_database(run: Verify, keys: list[str], tmp_path: Path) -> None:
    for row in (1, 9, 24):
        file = tmp_path / "proof.json"
        file.write_text(run("--proof", row).stdout)
        checked = CliRunner().invoke(command, ["--check-proof", str(file), *keys])
        assert checked.exception is None, checked.exception
        assert f"row {row} is in block" in checked.output
    without_key = CliRunner().invoke(command, ["--check-proof", str(file)])
    assert isinstance(without_key.exception, IncompleteEvidenceError)
    assert isinstance(run("--proof", 25).exception, CheckFailedError)


def test_a_proof_with_any_byte_flipped_fails(run: Verify, keys: list[str], tmp_path: Path) -> None:
    text = run("--proof", 9).stdout.encode()
    file = tmp_path / "proof.json"
    for place in range(0, len(text), 7):
        file.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        checked = CliRunner().invoke(command, ["--check-proof", str(file), *keys])
        assert isinstance(checked.exception, CheckFailedError | IncompleteEvidenceError), place


def test_what_is_missing_just_before_the_part_that_is_looked_at_is_named(
    audit_cluster: Server, trail: str
) -> None:
    name = f"{trail}_part"
    audit_cluster.execute(f'create database "{name}" template "{trail}"')
    with superuser(audit_cluster.dsn(name)) as connection:
        Superuser(connection).do("delete from audit.ledger where block = 8")
    for since, found in (("8", ["removed: block 8"]), ("9", ["removed: block 8"]), ("10", [])):
        report = verify(audit_cluster.dsn(name), "audit", Request(KEYS, since=since), quiet)
        assert [str(one)[:16] for one in report.findings] == found, since
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_no_proof_is_made_of_a_block_that_was_tampered_with(audit_cluster: Server, trail: str) -> None:
    name = f"{trail}_copy"
    audit_cluster.execute(f'create database "{name}" template "{trail}"')
    with superuser(audit_cluster.dsn(name)) as connection:
        Superuser(connection).do("update audit.audit_logs set user_id = 'x' where id = 8")
        for row, refused in ((7, True), (8, True), (12, False)):
            result = CliRunner().invoke(command, ["--dsn", audit_cluster.dsn(name), "--proof", str(row)])
            assert isinstance(result.exception, CheckFailedError) is refused
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_show_proves_its_row_by_the_hashes_beside_the_others(audit_cluster: Server, trail: str) -> None:
    name = f"{trail}_shown"
    audit_cluster.execute(f'create database "{name}" template "{trail}"')
    dsn = audit_cluster.dsn(name)

    def refused() -> list[int]:
        shown = {
            number: CliRunner().invoke(show_command, [str(number), "--dsn", dsn]) for number in (7, 8, 12)
        }
        return [number for number, done in shown.items() if isinstance(done.exception, CheckFailedError)]

    with superuser(dsn) as connection:
        tampering = Superuser(connection)
        assert refused() == []
        tampering.do("update audit.audit_logs set user_id = 'x' where id = 8")
        assert refused() == [8]
        tampering.do("update audit.audit_logs set row_hash = sha256('x') where id = 8")
        assert refused() == [7, 8]
        tampering.do("update audit.audit_logs set row_hash = 'short' where id = 8")
        assert refused() == [7, 8]
        tampering.do("delete from audit.audit_logs where id = 8")
        with reading(dsn, "audit") as one, pytest.raises(CheckFailedError):
            prove(one, "audit", 8, of_whole_block=False)
    audit_cluster.execute(f'drop database "{name}" with (force)')


def test_a_key_is_made_once_private_and_readable_to_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "signing.pem"
    before = os.umask(0)
    try:
        made = CliRunner().invoke(key_command, ["generate", str(file)])
    finally:
        os.umask(before)
    assert made.exception is None
    assert file.stat().st_mode & 0o777 == 0o600
    shown = [CliRunner().invoke(key_command, ["show", name]).output for name in (str(file), f"{file}.pub")]
    identity = made.output.split()[1]
    assert shown == [f"private key {identity}\n", f"public key {identity}\n"]
    text = file.read_bytes()
    assert isinstance(CliRunner().invoke(key_command, ["generate", str(file)]).exception, SettingError)
    assert file.read_bytes() == text
    file.chmod(0o640)
    refused = CliRunner().invoke(key_command, ["show", str(file)]).exception
    assert isinstance(refused, SettingError)
    assert f"chmod 600 {file}" in (refused.remedy or "")
    assert isinstance(CliRunner().invoke(key_command, ["show", str(tmp_path / "no")]).exception, SettingError)


def private_file(path: Path, seed: int) -> str:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return str(path)


def test_a_key_is_rotated_by_the_one_that_is_in_force_and_never_beside_a_daemon(
    audit_cluster: Server, tmp_path: Path
) -> None:
    name = audit_cluster.create_database()
    dsn = audit_cluster.dsn(name)
    old, new = private_file(tmp_path / "old", 1), private_file(tmp_path / "new", 2)

    def rotate(before: str, after: str) -> Result:
        given = ["rotate", "--old", before, "--new", after]
        return CliRunner().invoke(key_command, given, env={"CDC_AUDIT_AUDIT_DSN": dsn})

    with postgres.connect(dsn, side="audit") as connection:
        migrate(connection, "audit", None)
        assert isinstance(rotate(old, new).exception, SettingError)
        LedgerWriter(connection).genesis()
        assert isinstance(rotate(old, new).exception, SettingError)
        writer = LedgerWriter(connection, KEY_A)
        writer.bare("heartbeat")
        assert isinstance(rotate(old, old).exception, UsageError)
        assert isinstance(rotate(new, old).exception, SettingError)
        connection.execute(ledger.statement("try_lock", "audit"), ("audit",))
        assert isinstance(rotate(old, new).exception, AnotherDaemonError)
    assert rotate(old, new).exception is None
    assert isinstance(rotate(old, new).exception, SettingError)
    report = verify(dsn, "audit", Request(KEYS), quiet)
    assert (report.findings, report.missing, report.signed) == ([], [], 3)
    audit_cluster.execute(f'drop database "{name}" with (force)')
