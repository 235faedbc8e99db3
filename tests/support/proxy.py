"""A TCP proxy before a server: it changes, delays or withholds what is sent, or breaks connections.

Replacements keep the length, so that frames stay whole.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on loopback and passes everything on to ``host``:``port``.

    ``replace`` maps bytes that the server sends to bytes of equal length, ``replace_asked`` those that it is sent. From an
    answer on that holds ``hold_at``, nothing of what the server sends gets through on that connection, and ``held`` is set.
    ``rate`` slows down what the client sends, in bytes a second; 0 doesn't.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._gate = _open_gate()
        self._stalled: set[int] = set()
        self.replace: dict[bytes, bytes] = {}
        self.replace_asked: dict[bytes, bytes] = {}
        self.hold_at = b""
        self.held = threading.Event()
        self.rate = 0
        self.answers = 0  # pieces that the servers have sent
        self.replaced = 0  # of them, those that were changed
        self.broken = 0  # connections that ``cut`` broke

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing a socket doesn't wake a thread that waits for it, shutting it down does.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def stall(self) -> None:
        """Let nothing through in either direction, and nobody notice: no connection is closed."""
        self._gate.clear()

    def stall_one(self, port: int) -> None:
        """The same for one connection: the one that reaches the server from this port."""
        self._stalled.add(port)

    def resume(self) -> None:
        """End a stall: what was held back goes on its way."""
        self._gate.set()

    def cut(self) -> None:
        """Break every connection. New ones get through."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
                self.broken += 1
            one.close()
        self._sockets.clear()
        self._stalled.clear()  # ports are used again
        gate, self._gate = self._gate, _open_gate()
        gate.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except ConnectionError:  # the server is down: so is what stands before it
                    client.close()
                    continue
                for one in (client, server):  # as libpq and the server have it: no waiting for a full packet
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                port = server.getsockname()[1]
                for source, target, is_answer in ((client, server, False), (server, client, True)):
                    passing = (source, target, self._gate, port, is_answer)
                    threading.Thread(target=self._pass, args=passing, daemon=True).start()

    def _pass(
        self,
        source: socket.socket,
        target: socket.socket,
        gate: threading.Event,
        port: int,
        is_answer: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                if port in self._stalled:
                    continue
                for old, new in list((self.replace if is_answer else self.replace_asked).items()):
                    self.replaced += is_answer and old in data
                    data = data.replace(old, new)
                if is_answer:
                    self.answers += 1
                    if self.hold_at and self.hold_at in data:
                        self.hold_at = b""
                        self.held.set()
                        while source.recv(65536):
                            pass
                        break
                elif self.rate:
                    time.sleep(len(data) / self.rate)
                target.sendall(data)
        with contextlib.suppress(OSError):
            if port not in self._stalled:
                target.shutdown(socket.SHUT_WR)


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
