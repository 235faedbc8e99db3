"""Draining the stream: what is taken, and what it ends with, compiled or not."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg import pq

from cdc_audit.source import copyboth
from cdc_audit.source.copyboth import Drained, _drain_in_python
from cdc_audit.source.libpq import addresses
from tests.support.native import compiled

HEADER = b"w" + bytes(range(24))
KEEPALIVE = b"k" + bytes(17)


class FakeLibpq:
    """PQgetCopyData and PQfreemem over messages; b"" ends the stream, None is an error."""

    def __init__(self, messages: Sequence[bytes | None]) -> None:
        self._ahead = iter(messages)
        self.held: dict[int, ctypes.Array[ctypes.c_char]] = {}
        get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)
        self._functions = get(self._get_copy_data), ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._free)

    @property
    def addresses(self) -> tuple[int, int, int]:
        get, free = (ctypes.cast(function, ctypes.c_void_p).value for function in self._functions)
        assert get
        assert free
        return 4242, get, free

    def _get_copy_data(self, connection: int, buffer: Any, asynchronous: int) -> int:
        assert (connection, asynchronous) == (4242, 1)
        message = next(self._ahead, 0)
        if not isinstance(message, bytes) or not message:
            return 0 if message == 0 else -2 if message is None else -1
        held = ctypes.create_string_buffer(message, len(message))
        self.held[ctypes.addressof(held)] = held
        buffer[0] = ctypes.addressof(held)
        return len(message)

    def _free(self, address: int) -> None:
        del self.held[address]


def drained(drain: object, messages: list[bytes], room: int) -> tuple[Drained, list[object]]:
    """What it returns (with the message as bytes), and what it has appended."""
    ahead = iter(messages)

    def get_copy_data(asynchronous: int) -> tuple[int, memoryview]:
        assert asynchronous == 1
        message = next(ahead, None)
        return (0, memoryview(b"")) if message is None else (len(message) or -1, memoryview(message))

    items: list[object] = []
    length, data, size, header = drain(get_copy_data, items, room, None)  # type: ignore[operator]
    return (length, None if data is None else memoryview(bytes(data)), size, header), items


@pytest.mark.parametrize("kind", ["pure", "compiled", "past psycopg"])
@pytest.mark.parametrize(
    ("messages", "room", "ends", "taken"),
    [
        ([], 100, 0, []),
        ([HEADER + b"one", HEADER, HEADER + b"three"], 1000, 0, [b"one", b"", b"three"]),
        ([HEADER + b"one", HEADER + b"two"], 10, None, [b"one"]),
        ([HEADER + b"one", KEEPALIVE, HEADER + b"two"], 1000, len(KEEPALIVE), [b"one"]),
        ([HEADER + b"one", b""], 1000, -1, [b"one"]),
        ([HEADER[:20]], 1000, 20, []),
        ([b"x" * 40], 1000, 40, []),
    ],
)
def test_messages_are_taken_up_to_something_else_or_the_end_of_the_room(
    kind: str,
    messages: list[bytes],
    room: int,
    ends: int | None,
    taken: list[bytes],
    request: pytest.FixtureRequest,
) -> None:
    drain: Any = _drain_in_python
    libpq = FakeLibpq(messages)
    if kind != "pure":
        drain = compiled(request.getfixturevalue("native_package"), "source", "_drain").drain_past_psycopg
    if kind == "past psycopg":
        drain = partial(_past_psycopg, drain, libpq)
    (length, data, size, header), items = drained(drain, messages, room)
    assert not libpq.held, "a message's memory was not given back"
    assert (length, items) == (ends, taken)
    assert size == sum(len(HEADER) + len(message) for message in taken)
    assert header == (HEADER if taken else b"")
    if ends is None:
        assert data is None
    elif ends > 0:
        assert data == memoryview(messages[len(taken)])


def _past_psycopg(
    drain: Any, libpq: FakeLibpq, _: object, items: list[object], room: int, __: None
) -> Drained:
    def unused(asynchronous: int) -> tuple[int, memoryview]:
        raise AssertionError("psycopg was asked")

    found: Drained = drain(unused, items, room, libpq.addresses)
    return found


def test_an_error_of_the_connection_is_passed_on(native_package: Path) -> None:
    def broken(_: int) -> tuple[int, memoryview]:
        raise ConnectionError("gone")

    compiled_drain = compiled(native_package, "source", "_drain").drain_past_psycopg
    for drain in (_drain_in_python, compiled_drain, copyboth.drain):
        with pytest.raises(ConnectionError, match="gone"):
            drain(broken, [], 100, None)
    libpq = FakeLibpq([HEADER + b"one", None])
    items: list[object] = []
    with pytest.raises(ConnectionError, match="gone"):
        compiled_drain(broken, items, 100, libpq.addresses)
    assert items == [b"one"]
    assert not libpq.held


def test_a_connection_of_psycopgs_c_build_is_drained_past_it() -> None:
    connection = pq.PGconn.connect_start(b"host=/nowhere")
    found = addresses(connection)
    if pq.__impl__ == "python":
        assert found is None
    else:
        assert found is not None
        assert found[0] == getattr(connection, "pgconn_ptr")  # noqa: B009 - the protocol does not name it
        address = ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__).PQfreemem
        assert found[2] == ctypes.cast(address, ctypes.c_void_p).value
    connection.finish()
    assert addresses(connection) is None


@pytest.mark.parametrize("fraction", [0, 1, 10, 100_000, 999_999, 360_500])
def test_a_time_of_the_protocol_is_printed_as_postgresql_prints_it(fraction: int) -> None:
    moment = datetime(2026, 11, 28, 9, 28, 58, fraction, UTC)
    expected = f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{fraction:06}".rstrip("0") if fraction else "") + "+00"
    assert copyboth.as_text(copyboth.microseconds(moment)) == expected
