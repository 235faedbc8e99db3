from cdc_audit.source.copyboth import Drained, GetCopyData, Libpq

def drain_past_psycopg(
    get_copy_data: GetCopyData, items: list[object], room: int, libpq: Libpq | None, /
) -> Drained: ...
