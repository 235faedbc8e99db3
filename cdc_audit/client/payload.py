"""Fields into a JSON text that ``cdc_audit.set_context`` takes, whatever is in them. Pure.

The source refuses what isn't an object, is over 8192 bytes as jsonb prints it, or nested deeper than 16, and jsonb holds
neither NUL, lone surrogates nor NaN. A refusal would abort the application's transaction, so nothing of that kind leaves
here: it is replaced or cut, and what had no room is named under ``_left_out``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import islice

MAX_BYTES = 8192
_MAX_DEPTH = 12  # an event stands two levels deeper
_MAX_TEXT = 1024  # characters of one string of a context
_MAX_ITEMS = 100  # of one list or object in a context
_MAX_VALUES = 2000  # of one field, so that what holds itself ends
_MAX_INTEGER = 1 << 63
_FIRST = ("user_id", "user_email", "email", "ip_address", "user_agent")
# Of an event: what its context may take, so that its data have the rest.
_CONTEXT_IN_EVENT = 2048
# JSON as jsonb prints it, as to its length.
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def context_text(fields: Mapping[str, object], budget: int = MAX_BYTES) -> str:
    """The JSON object, or "" if there is no field. Raises nothing."""
    if not fields:
        return ""
    return _dumps(_fitting(fields, budget))


def event_texts(
    action: str,
    table: str | None,
    record_id: object,
    data: Mapping[str, object] | None,
    context: Mapping[str, object],
) -> tuple[str, str | None, str | None, str | None]:
    """The arguments of ``cdc_audit.log_event``. The context goes along inside the data, under the key ``context``.

    Raises ValueError where the data have no room: what an application reports on purpose isn't cut.
    """
    body = _Cleaner(text=MAX_BYTES, items=MAX_BYTES).mapping(data, 0) if data else {}
    if context:
        body["context"] = _fitting(context, _CONTEXT_IN_EVENT)
    text = _dumps(body) if body else None
    record = None if record_id is None else _text(record_id)
    around = len(_dumps({"action": action, "table": table, "record_id": record, "data": None}).encode())
    if text is not None and len(text.encode()) + around > MAX_BYTES:
        raise ValueError(f"an event's data and context take at most {MAX_BYTES} bytes as JSON")
    return _text(action), None if table is None else _text(table), record, text


def _fitting(fields: Mapping[str, object], budget: int) -> dict[str, object]:
    """As many fields as have room, those with a column of their own first."""
    order = [name for name in _FIRST if name in fields] + [name for name in fields if name not in _FIRST]
    kept: dict[str, object] = {}
    left_out: list[str] = []
    room = budget - 640  # for _left_out
    for name in order:
        key, value = _text(name), _Cleaner().value(fields[name], 1)
        size = len(_dumps({key: value}).encode())
        if size > room:
            left_out.append(key[:32])
            continue
        room -= size
        kept[key] = value
    if left_out:
        names = left_out[:4]
        kept["_left_out"] = names if len(left_out) <= len(names) else [*names, f"+{len(left_out) - 4}"]
    return kept


class _Cleaner:
    """Values into what jsonb holds; strings are cut at ``text`` characters, lists and objects at ``items``."""

    def __init__(self, *, text: int = _MAX_TEXT, items: int = _MAX_ITEMS) -> None:
        self._text = text
        self._items = items
        self._seen = 0

    def value(self, value: object, depth: int) -> object:
        self._seen += 1
        if self._seen > _MAX_VALUES:
            return "[cut]"
        if isinstance(value, Enum):
            value = value.value
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and -_MAX_INTEGER < value < _MAX_INTEGER:
            return int(value)
        if isinstance(value, float):
            # jsonb prints an exponent's zeros, and has no NaN
            shown = repr(float(value))
            return shown if shown.strip("-0123456789.") else float(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return "[too deep]" if depth >= _MAX_DEPTH else _safely(lambda: self._container(value, depth))
        return _text(value, self._text)

    def mapping(self, value: Mapping[str, object], depth: int) -> dict[str, object]:
        kept = {_text(key): self.value(item, depth + 1) for key, item in islice(value.items(), self._items)}
        if len(value) > self._items:
            kept["_left_out"] = len(value) - self._items
        return kept

    def _container(self, value: Mapping[str, object] | Iterable[object], depth: int) -> object:
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        items = list(islice(value, self._items + 1))
        kept = [self.value(item, depth + 1) for item in items[: self._items]]
        return [*kept, "[more]"] if len(items) > self._items else kept


def _text(value: object, most: int = _MAX_TEXT) -> str:
    """A value as a string that jsonb holds, at most so many characters of it."""
    if type(value) is str and len(value) <= most and value.isascii() and "\0" not in value:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value[: most + 1]).decode("utf-8", "replace")
    else:
        text = str(_safely(lambda: str(value)))
    if len(text) > most:
        text = text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _safely(make: Callable[[], object]) -> object:
    """What ``make`` gives; where a value's own code fails, a text that says so."""
    try:
        return make()
    except Exception as error:  # an application's __str__ may do anything
        return f"[{type(error).__name__}]"
