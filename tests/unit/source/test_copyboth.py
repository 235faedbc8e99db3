"""Draining the stream: what is taken, and what it ends with, compiled or not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdc_audit.source import copyboth
from cdc_audit.source.copyboth import Drained, _drain_in_python
from tests.support.native import compiled

HEADER = b"w" + bytes(range(24))
KEEPALIVE = b"k" + bytes(17)


def drained(drain: object, messages: list[bytes], room: int) -> tuple[Drained, list[object]]:
    """What it returns (with the message as bytes), and what it has appended."""
    ahead = iter(messages)

    def get_copy_data(asynchronous: int) -> tuple[int, memoryview]:
        assert asynchronous == 1
        message = next(ahead, None)
        return (0, memoryview(b"")) if message is None else (len(message) or -1, memoryview(message))

    items: list[object] = []
    length, data, size, header = drain(get_copy_data, items, room)  # type: ignore[operator]
    return (length, None if data is None else memoryview(bytes(data)), size, header), items


@pytest.mark.parametrize("kind", ["pure", "compiled"])
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
    drain = _drain_in_python
    if kind == "compiled":
        drain = compiled(request.getfixturevalue("native_package"), "source", "_drain").drain
    (length, data, size, header), items = drained(drain, messages, room)
    assert (length, items) == (ends, taken)
    assert size == sum(len(HEADER) + len(message) for message in taken)
    assert header == (HEADER if taken else b"")
    if ends is None:
        assert data is None
    elif ends > 0:
        assert data == memoryview(messages[len(taken)])


def test_an_error_of_the_connection_is_passed_on(native_package: Path) -> None:
    def broken(_: int) -> tuple[int, memoryview]:
        raise ConnectionError("gone")

    for drain in (_drain_in_python, compiled(native_package, "source", "_drain").drain, copyboth.drain):
        with pytest.raises(ConnectionError, match="gone"):
            drain(broken, [], 100)


@pytest.mark.parametrize("fraction", [0, 1, 10, 100_000, 999_999, 360_500])
def test_a_time_of_the_protocol_is_printed_as_postgresql_prints_it(fraction: int) -> None:
    moment = datetime(2026, 11, 28, 9, 28, 58, fraction, UTC)
    expected = f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{fraction:06}".rstrip("0") if fraction else "") + "+00"
    assert copyboth.as_text(copyboth.microseconds(moment)) == expected
