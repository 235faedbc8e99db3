from collections.abc import Callable, Sequence

from cdc_audit.decode.form import Form
from cdc_audit.model.event import Decoded

def rows(
    items: Sequence[object], position: int, forms: dict[bytes, Form], events: list[Decoded], /
) -> int: ...
def init_converters(
    timestamptz: Callable[[bytes], bytes],
    timestamp: Callable[[bytes], bytes],
    jsonb: Callable[[bytes], bytes],
    /,
) -> None: ...
