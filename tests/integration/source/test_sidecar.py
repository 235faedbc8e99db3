"""The connection beside the stream, to a source that goes silent while it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_audit import postgres
from cdc_audit.errors import UnavailableError
from cdc_audit.source.sidecar import Sidecar
from tests.support.proxy import Proxy
from tests.support.servers import Server

LOOKS: dict[str, Callable[[Sidecar], Awaitable[object]]] = {
    "slot": Sidecar.slot,
    "event triggers": Sidecar.harm_to_event_triggers,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_source_that_is_silent_is_given_up_after_the_limit_and_not_waited_for_again(
    look: str, private_cluster: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ANSWER_LIMIT", 0.5)
    dsn = private_cluster("source", tcp=True).dsn()
    direct = conninfo_to_dict(dsn)

    async def asked(proxy: Proxy) -> float:
        """Seconds that the look takes while nothing gets through."""
        opened = await Sidecar.open(
            make_conninfo(dsn, port=proxy.port, sslmode="disable"),
            slot="none", tables=["*.*"], exclude=[], key_file="", publication_name="", application_name="test",
        )  # fmt: skip
        await LOOKS[look](opened)
        proxy.stall()
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="no answer within"):
            await LOOKS[look](opened)
        await opened.close()
        return time.monotonic() - begun

    with Proxy(str(direct["host"]), int(str(direct["port"]))) as proxy:
        took = asyncio.run(asked(proxy))
    assert 0.5 <= took < 4, "psycopg alone would wait for 10 s more"
