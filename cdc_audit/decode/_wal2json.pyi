from collections.abc import Callable, Sequence

from cdc_audit.decode.form import Form
from cdc_audit.model.event import Begin, Commit, Decoded, Message

def events(
    items: Sequence[object],
    position: int,
    forms: dict[bytes, Form],
    events: list[Decoded],
    begin: bytes,
    is_empty: bool,
    takes_begin: bool,
    takes_commit: bool,
    /,
) -> tuple[int, bytes, bool]: ...
def init_events(begin: type[Begin], commit: type[Commit], message: type[Message], /) -> None: ...
def init_converters(
    timestamptz: Callable[[bytes], bytes],
    timestamp: Callable[[bytes], bytes],
    jsonb: Callable[[bytes], bytes],
    /,
) -> None: ...
