"""A manifest is what was signed, to the byte."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cdc_audit.seal import manifest
from cdc_audit.seal.manifest import File, Manifest
from cdc_audit.seal.signature import Signer

A, B = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
SAID = Manifest(
    "audit", 3, "7000", "s", "2025-01", [(1, 3), (9, 12)], 7, 1, 5, 2, "0/10", "0/50", "2025-01-01T00:00:00+00:00",
    "2025-01-31T00:00:00+00:00", {"public.örders": 7}, "00" * 32, "", "2026-11-01 00:00:00+00",
    File("audit/rows/month=2025-01/1.parquet", 900, "11" * 32), File("audit/blocks/month=2025-01/1.parquet", 90, "22" * 32),
)  # fmt: skip


def test_what_was_written_is_read_back_with_the_key_and_without() -> None:
    text = manifest.write(SAID, A)
    assert manifest.read(text, {A.key_id: A.public, B.key_id: B.public}) == SAID
    assert manifest.read(text, {}) == SAID


def test_any_tool_that_knows_ed25519_checks_the_signature() -> None:
    title, body, signed, end = manifest.write(SAID, A).split(b"\n")
    public = Ed25519PublicKey.from_public_bytes(A.public)
    public.verify(bytes.fromhex(signed.decode().split()[1]), title + b"\n" + body + b"\n")
    assert (title, end) == (b"cdc-audit archive v1", b"")


def test_a_manifest_that_differs_in_any_byte_is_refused() -> None:
    text = manifest.write(SAID, A)
    keys = {A.key_id: A.public}
    for at in range(len(text)):
        for change in (1, 0x20, 0x80):
            altered = text[:at] + bytes([text[at] ^ change]) + text[at + 1 :]
            with pytest.raises(ValueError, match=r"not a manifest|signed with a key|the signature is not"):
                manifest.read(altered, keys)
        with pytest.raises(ValueError, match=r"not a manifest|signed with a key|the signature is not"):
            manifest.read(text[:at] + text[at + 1 :], keys)
    for altered in (b"", text + b"\n", text + b" ", b"\n" + text, text + text, text.upper()):
        with pytest.raises(ValueError, match=r"not a manifest|signed with a key|the signature is not"):
            manifest.read(altered, keys)


def test_a_manifest_that_another_key_signed_is_refused() -> None:
    with pytest.raises(ValueError, match="not given"):
        manifest.read(manifest.write(SAID, B), {A.key_id: A.public})
    forged = manifest.write(SAID, B).replace(B.key_id.encode(), A.key_id.encode())
    with pytest.raises(ValueError, match="the signature is not"):
        manifest.read(forged, {A.key_id: A.public})


@pytest.mark.parametrize(
    "wrong",
    [{"month": "../../etc"}, {"month": "2025-01/x"}, {"since": "2025-01-01T00:00:00"}, {"until": "then"}],
    ids=str,
)
def test_a_text_that_names_no_month_and_no_times_is_no_manifest_whoever_signed_it(
    wrong: dict[str, str],
) -> None:
    text = manifest.write(SAID._replace(**wrong), A)  # type: ignore[arg-type]
    for keys in ({}, {A.key_id: A.public}):
        with pytest.raises(ValueError, match="not a manifest"):
            manifest.read(text, keys)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, True), ("2025-01-31", None, True), ("2025-01-31T00:00:00.000001", None, False), (None, "2025-01-01", False),
        (None, "2025-01-01T00:00:00.000001", True), ("2024-01-01", "2026-01-01", True), ("2025-01-10", "2025-01-11", True),
    ],
)  # fmt: skip
def test_an_archive_holds_rows_from_its_first_to_its_last_inclusive(
    since: str | None, until: str | None, expected: bool
) -> None:
    times = [datetime.fromisoformat(one).replace(tzinfo=UTC) if one else None for one in (since, until)]
    assert SAID.overlaps(*times) == expected
