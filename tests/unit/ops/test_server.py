"""The HTTP server over a real socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cdc_audit.errors import SettingError
from cdc_audit.ops.metrics import Metrics
from cdc_audit.ops.server import Server
from cdc_audit.ops.watch import Watch


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1", psycopg_implementation="python", source="shop")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(metrics: Metrics, clock: Clock) -> Watch:
    return Watch(metrics, monotonic=clock)


@pytest.fixture
def address(metrics: Metrics, watch: Watch) -> Iterator[tuple[str, int]]:
    server = Server("127.0.0.1:0", metrics, watch)
    yield server.start()
    server.stop()


def get(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str, str]:
    """(status, content type, body)."""
    try:
        with urlopen(Request(f"http://{address[0]}:{address[1]}{path}", method=method), timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_metrics_are_served_as_prometheus_reads_them(address: tuple[str, int]) -> None:
    status, content_type, body = get(address, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "cdc_audit_build_info{" in body


def test_readyz_says_why_the_daemon_is_not_ready(address: tuple[str, int], watch: Watch) -> None:
    watch.state("waiting", "audit database: connection refused")
    assert get(address, "/readyz") == (
        503,
        "text/plain; charset=utf-8",
        "waiting: audit database: connection refused\n",
    )
    watch.state("streaming", None)
    assert get(address, "/readyz")[::2] == (200, "ok\n")


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
def test_liveness_depends_on_the_loop_and_not_on_the_databases(
    path: str, address: tuple[str, int], watch: Watch, clock: Clock
) -> None:
    watch.state("waiting", "audit database: connection refused")
    assert get(address, path)[::2] == (200, "ok\n")
    clock.now += 100
    assert get(address, path)[::2] == (503, "the loop has not gone round for 100 s\n")


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/nothing"])
def test_head_has_the_headers_of_get_and_no_body(path: str, address: tuple[str, int]) -> None:
    assert get(address, path, "HEAD")[0] == get(address, path)[0]
    assert get(address, path, "HEAD")[2] == ""


def test_any_other_path_is_not_found_and_any_other_method_is_refused(address: tuple[str, int]) -> None:
    assert get(address, "/")[0] == 404
    assert get(address, "/metrics/..")[0] == 404
    assert get(address, "/readyz", "POST")[0] == 405
    assert get(address, "/readyz", "DELETE")[0] == 405


def test_nothing_is_written_to_standard_error_even_by_clients_that_go_away(
    address: tuple[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    get(address, "/readyz")
    with socket.create_connection(address) as client:
        client.sendall(b"GARBAGE\r\n\r\n")
    with socket.create_connection(address) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    get(address, "/metrics")
    assert capfd.readouterr() == ("", "")


def test_an_address_in_use_is_a_setting_error_with_what_to_do(
    address: tuple[str, int], metrics: Metrics, watch: Watch
) -> None:
    with pytest.raises(
        SettingError, match=r"cannot listen on 127\.0\.0\.1:\d+ .*Address already in use"
    ) as caught:
        Server(f"127.0.0.1:{address[1]}", metrics, watch).start()
    assert "CDC_AUDIT_METRICS_LISTEN" in str(caught.value.remedy)


def test_a_host_that_is_not_ours_is_a_setting_error(metrics: Metrics, watch: Watch) -> None:
    with pytest.raises(SettingError, match="cannot listen on 192\\.0\\.2\\.1:0"):
        Server("192.0.2.1:0", metrics, watch).start()


def test_a_stopped_server_frees_its_address_and_may_be_stopped_again(metrics: Metrics, watch: Watch) -> None:
    server = Server("127.0.0.1:0", metrics, watch)
    host, port = server.start()
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(host, port, timeout=2).connect()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_written_in_brackets(metrics: Metrics, watch: Watch) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = Server("[::1]:0", metrics, watch)
    host, _ = server.start()
    server.stop()
    assert host == "::1"
