"""Anchors to an HTTP endpoint, which is well, fails, stalls, redirects, goes away and comes back; and read from it again."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cdc_audit import remote
from cdc_audit.model.anchor import parse_target
from cdc_audit.sink.anchor import Anchors as Writer
from cdc_audit.trail.anchor_sources import read_source
from cdc_audit.trail.verify_anchors import Anchors
from tests.support.anchor_endpoint import Endpoint
from tests.unit.trail.test_verify_anchors import receipt

Results = list[tuple[str, str, str | None]]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


def anchored(target: str, block: int, token_file: object = "") -> tuple[str, str, str | None]:
    """What is reported of writing one block to one target."""
    results: Results = []

    async def scenario() -> None:
        writer = Writer([target], "audit", lambda *result: results.append(result), token_file=str(token_file))
        writer.note(receipt(block))
        await writer.close()

    asyncio.run(scenario())
    (result,) = results
    return result


def reason(target: str, block: int = 1, token_file: object = "") -> str | None:
    return anchored(target, block, token_file)[2]


def read(url: str, token_file: object = "") -> Anchors:
    anchors = Anchors("audit", {})
    read_source(anchors, parse_target(url), str(token_file))
    return anchors


def test_what_an_endpoint_was_sent_can_be_read_from_it_by_a_verifier(endpoint: Endpoint) -> None:
    assert anchored(f"{endpoint.url}?key=secret", 7) == ("https", endpoint.url, None)
    assert reason(endpoint.url, 8) is None
    assert [json.loads(line)["block"] for line in endpoint.lines] == [7, 8]
    anchors = read(endpoint.url)
    assert (list(anchors.hashes), anchors.missing) == ([7, 8], [])


def test_an_endpoint_that_fails_stalls_or_goes_away_gets_the_next_block_when_it_is_well_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.3)
    endpoint.status = 500
    assert reason(endpoint.url, 1) == "it answered 500"
    endpoint.status = 200
    assert reason(endpoint.url, 2) is None
    endpoint.stall = True
    assert reason(endpoint.url, 3) == "no answer within 0 s"
    endpoint.stop()
    assert reason(endpoint.url, 4) == "Connection refused"
    endpoint.stall = False
    endpoint.start()
    assert reason(endpoint.url, 5) is None
    kept = [json.loads(line)["block"] for line in endpoint.lines]
    assert (kept[0], kept[-1]) == (2, 5)


def test_a_redirection_is_not_followed_and_takes_no_token_along(endpoint: Endpoint, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    endpoint.token = "secret"
    with Endpoint() as elsewhere:
        endpoint.status, endpoint.location = 307, elsewhere.url
        assert reason(endpoint.url, token_file=token) == "it answered 307"
        assert elsewhere.requests == 0


def test_the_token_is_sent_and_read_anew_each_time(endpoint: Endpoint, tmp_path: Path) -> None:
    token = tmp_path / "token"
    endpoint.token = "second"
    assert reason(endpoint.url, 1, token) == "the token file can't be read: No such file or directory"
    for text, said in (
        ("first\n", "it answered 401"),
        ("", "the token file does not hold one line of text"),
        ("second\r\nHost: other", "the token file does not hold one line of text"),
        ("s\u00e9cond", "the token file can't be read: not a text file"),
        ("second\n", None),
    ):
        token.write_text(text, newline="")
        assert reason(endpoint.url, 1, token) == said
    assert len(endpoint.lines) == 1
    assert list(read(endpoint.url, token).hashes) == [1]


def test_an_endpoint_that_gives_nothing_back_is_missing_evidence(endpoint: Endpoint) -> None:
    assert "holds no anchor of schema audit" in read(f"{endpoint.url}?key=secret").missing[0]
    endpoint.status = 503
    assert read(f"{endpoint.url}?key=secret").missing == [f"anchor {endpoint.url}: it answered 503"]
    endpoint.status, endpoint.lines = 200, [b"<html>"]
    assert read(endpoint.url).missing == [f"anchor {endpoint.url}, line 1: not an anchor"]
    endpoint.stop()
    assert read(endpoint.url).missing == [f"anchor {endpoint.url}: Connection refused"]


def test_an_answer_that_breaks_off_is_missing_evidence_and_what_came_counts(endpoint: Endpoint) -> None:
    endpoint.lines = [b'{"schema":"audit","block":1,"hash":"00","signature":null,"key_id":null}']
    endpoint.promised = 1000
    anchors = read(endpoint.url)
    assert anchors.missing == [f"anchor {endpoint.url}: the answer broke off"]
    assert list(anchors.hashes) == [1]


@pytest.fixture
def https(tmp_path: Path) -> Iterator[str]:
    """An https endpoint whose certificate, at ``tmp_path/cert.pem``, nobody vouches for."""
    key, name = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, None)
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_certificates_are_checked(https: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in str(reason(https))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert reason(https) is None
    assert "CERTIFICATE_VERIFY_FAILED" in str(reason(https.replace("127.0.0.1", "localhost")))
