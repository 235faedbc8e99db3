from collections.abc import Callable, Sequence

from cdc_audit.decode.relation import Plain
from cdc_audit.model.event import Decoded

def rows(
    items: Sequence[object], position: int, plain: dict[bytes, Plain], events: list[Decoded], /
) -> int: ...
def init_converters(
    string: Callable[[bytes], bytes],
    jsonb: Callable[[bytes], bytes],
    numeric: Callable[[bytes], bytes],
    timestamp: Callable[[bytes], bytes],
    timestamptz: Callable[[bytes], bytes],
    null: bytes,
    /,
) -> None: ...
