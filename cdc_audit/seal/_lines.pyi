from collections.abc import Callable

from cdc_audit.model.event import Change, Shape
from cdc_audit.seal.plan import Plan

def run(
    changes: list[Change],
    position: int,
    plans: dict[int, tuple[Shape, Plan]],
    before: bytes,
    who: bytes,
    after: bytes,
    first_id: int,
    first_seq: int,
    leaves: list[bytes],
    counts: list[tuple[Plan, int]],
    /,
) -> tuple[bytes, int, int]: ...
def init_redaction(mask_keys: Callable[[bytes], bytes], stems: tuple[bytes, ...], /) -> None: ...
def perfect(nodes: list[bytes], /) -> bytes: ...
