"""The HTTP server for Prometheus and probes, in a daemon thread. It reads a state and asks no database."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from cdc_audit.errors import SettingError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_TEXT = "text/plain; charset=utf-8"
_Answer = tuple[HTTPStatus, str, bytes]


class Exposition(Protocol):
    """Metrics in Prometheus' text."""

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and body for a request's Accept header."""


class Health(Protocol):
    """Why a process is not live or not ready, or None."""

    def not_live(self) -> str | None:
        """Why it should be restarted."""

    def not_ready(self) -> str | None:
        """Why it doesn't do its work at this moment."""


class Server:
    """Serves ``/metrics``, ``/healthz`` (``/livez`` is the same) and ``/readyz``; a probe's 503 says why."""

    def __init__(self, listen: str, metrics: Exposition, watch: Health) -> None:
        """``listen`` is host:port as in ``[metrics] listen``; port 0 takes a free one."""
        host, _, port = listen.rpartition(":")
        self._listen = listen
        self._address = (host.strip("[]"), int(port))
        self._metrics = metrics
        self._watch = watch
        self._server: _Server | None = None

    def start(self) -> tuple[str, int]:
        """Listen, and answer from now on; returns host and port as bound. Raises SettingError if it can't."""
        host, port = self._address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            server = type("_Bound", (_Server,), {"address_family": family})((host, port), _QuietHandler)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {self._listen} for [metrics]: {error.strerror or error}",
                remedy="set listen in section [metrics], or CDC_AUDIT_METRICS_LISTEN, to a free host:port",
            ) from error
        server.set_app(self._answer)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()
        return str(server.server_address[0]), int(server.server_address[1])

    def stop(self) -> None:
        """Stop listening; may be called more than once."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):  # wakes its thread at once, where the system lets it
                server.socket.shutdown(socket.SHUT_RDWR)
            server.shutdown()
            server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            answer: _Answer = HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"GET or HEAD\n"
        elif environ["PATH_INFO"] == "/metrics":
            content_type, exposition = self._metrics.exposition(environ.get("HTTP_ACCEPT", ""))
            answer = HTTPStatus.OK, content_type, exposition
        else:
            answer = self._probe(environ["PATH_INFO"])
        status, content_type, body = answer
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        headers.append(("Cache-Control", "no-store"))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _probe(self, path: str) -> _Answer:
        probes: dict[str, Callable[[], str | None]] = {
            "/healthz": self._watch.not_live,
            "/livez": self._watch.not_live,
            "/readyz": self._watch.not_ready,
        }
        if path not in probes:
            return HTTPStatus.NOT_FOUND, _TEXT, b"/metrics /healthz /livez /readyz\n"
        reason = probes[path]()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
        return status, _TEXT, f"{reason or 'ok'}\n".encode()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's full name, which can hang on a broken DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away isn't worth a traceback."""


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # a client that sends nothing doesn't keep its thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's form
        """No request log."""
