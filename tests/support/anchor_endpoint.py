"""``Endpoint``: somebody's HTTP service that keeps anchors and gives them back; it can be told to fail in several ways."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


class Endpoint:
    """Keeps what is posted. ``status``: what it answers; ``stall``: it answers nothing until ``released``."""

    def __init__(self, token: str = "", port: int = 0) -> None:
        self.lines: list[bytes] = []
        self.status = 200
        self.location = ""
        self.stall = False
        self.promised = 0  # bytes that it says it sends; 0: what it does send
        self.requests = 0
        self.token = token
        self._released = threading.Event()
        self._server: _Server | None = None
        self.port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after ``stop``, on the same port again."""
        self._released.clear()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.endpoint = self
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Go away, letting go of who waits."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/anchors"

    def wait_if_stalled(self) -> None:
        if self.stall:
            self._released.wait()

    def save(self, path: Path) -> None:
        path.write_bytes(b"".join(line + b"\n" for line in self.lines))


class _Server(ThreadingHTTPServer):
    endpoint: Endpoint
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hung up needs no traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_let_in() and self.server.endpoint.status == 200:
            self.server.endpoint.lines.append(body)
        self._answer(b"")

    def do_GET(self) -> None:
        self._is_let_in()
        self._answer(b"".join(line + b"\n" for line in self.server.endpoint.lines))

    def do_HEAD(self) -> None:
        self._is_let_in()
        self._answer(b"")

    def _is_let_in(self) -> bool:
        endpoint = self.server.endpoint
        endpoint.requests += 1
        endpoint.wait_if_stalled()
        wanted = f"Bearer {endpoint.token}" if endpoint.token else None
        self._allowed = self.headers.get("Authorization") == wanted
        return self._allowed

    def _answer(self, body: bytes) -> None:
        endpoint = self.server.endpoint
        self.send_response(endpoint.status if self._allowed else 401)
        if endpoint.location:
            self.send_header("Location", endpoint.location)
        self.send_header("Content-Length", str(endpoint.promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
