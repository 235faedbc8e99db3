"""Alerts at an HTTP endpoint: each arrives, in order, or is said not to; users are named only where that is wanted."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from cdc_audit.model.alert import SuspiciousAlert
from cdc_audit.ops import webhook as module
from cdc_audit.ops.webhook import Webhook
from tests.support.anchor_endpoint import Endpoint

ALERT = SuspiciousAlert(
    "many", "bulk", "u42", "10.0.0.9", "shop.orders", "UPDATE", 101, "2026-11-28 12:00:00", 7
)


def hook(endpoint: Endpoint, *, token_file: str = "", name_users: bool = False) -> Webhook:
    return Webhook(endpoint.url, token_file=token_file, source="shop", name_users=name_users)


def sent(one: Webhook, endpoint: Endpoint, alerts: int) -> list[str]:
    """Run it until the endpoint has so many, or as many were given up; why those were."""

    async def run() -> list[str]:
        failures: list[str] = []
        running = asyncio.create_task(one.run(failures.append))
        async with asyncio.timeout(10):
            while len(endpoint.lines) + len(failures) < alerts:
                await asyncio.to_thread(time.sleep, 0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.close(failures.append)
        return failures

    return asyncio.run(run())


def test_each_alert_arrives_in_order_with_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bearer\n")
    with Endpoint(token="bearer") as endpoint:
        one = hook(endpoint, token_file=str(tmp_path / "token"), name_users=True)
        assert all(one.offer(ALERT._replace(block=number)) for number in range(5))
        assert sent(one, endpoint, 5) == []
        bodies = [json.loads(line) for line in endpoint.lines]
    assert [body["block"] for body in bodies] == [0, 1, 2, 3, 4]
    assert bodies[0] == {"source": "shop", **ALERT._replace(block=0)._asdict()}


def test_users_and_addresses_are_not_named_unless_that_is_said() -> None:
    with Endpoint() as endpoint:
        one = hook(endpoint)
        one.offer(ALERT)
        assert sent(one, endpoint, 1) == []
        assert "u42" not in endpoint.lines[0].decode()
        assert "10.0.0.9" not in endpoint.lines[0].decode()


@pytest.mark.parametrize(
    ("trouble", "why"), [("500", "it answered 500"), ("away", "refused"), ("token", "401")]
)
def test_what_fails_is_tried_again_and_then_given_up(
    trouble: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    with Endpoint(token="wanted" if trouble == "token" else "") as endpoint:
        endpoint.status = 500 if trouble == "500" else 200
        one = hook(endpoint)
        one.offer(ALERT)
        if trouble == "away":
            endpoint.stop()
        assert why in sent(one, endpoint, 1)[0].lower()
        assert endpoint.requests == (0 if trouble == "away" else 3)


def test_what_does_not_fit_is_refused_and_what_is_late_at_the_stop_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    monkeypatch.setattr(module, "_LAST", 0.1)
    with Endpoint() as endpoint:
        endpoint.stall = True
        one = hook(endpoint)
        assert [one.offer(ALERT) for _ in range(3)] == [True, True, False]
        failures: list[str] = []
        asyncio.run(one.close(failures.append))
        assert failures == ["not sent before the stop"] * 2
